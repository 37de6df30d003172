package domain_test

import (
	"encoding/json"
	"testing"

	"chatsessions/domain"
)

// benchmarkData is the data of a typical event.
const benchmarkData = `{"changes":{"startedAt":1763800000000,"startedBy":"patient-0001","state":"started","version":2,"updatedAt":1763800000000},"session":{"id":"019aa9c1-0000-7000-8000-000000000000","createdAt":1763800000000,"createdBy":"patient-0001","room":"consultation","startedAt":1763800000000,"startedBy":"patient-0001","participants":["patient-0001","doctor-0001"],"state":"started","version":2,"updatedAt":1763800000000}}`

func BenchmarkAppendJSON(b *testing.B) {
	var e domain.Event
	if _, err := e.UnmarshalData([]byte(benchmarkData)); err != nil {
		b.Fatal(err)
	}
	states, _ := life(&testing.T{})
	buffer := make([]byte, 0, 1024)
	for name, s := range map[string]*domain.Session{"started": &e.Session, "finished": &states[len(states)-1]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buffer = s.AppendJSON(buffer[:0])
			}
		})
	}
}

func BenchmarkUnmarshalData(b *testing.B) {
	data := []byte(benchmarkData)
	b.Run("decoder", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var e domain.Event
			if session, err := e.UnmarshalData(data); session == nil || err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var e domain.Event
			if err := json.Unmarshal(data, &e); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	states, events := life(&testing.T{})
	b.ReportAllocs()
	for i := range b.N {
		n := i % len(events)
		if defects, _ := domain.Check(&states[n], recorded(events[n])); len(defects) > 0 {
			b.Fatal(defects)
		}
	}
}

// BenchmarkDecide decides one transition: a fold, a diff, and the session after it.
func BenchmarkDecide(b *testing.B) {
	states, _ := life(&testing.T{})
	accept := domain.Change{By: domain.Caller{Account: "pat", Role: domain.RoleService}, Now: 4000}
	accept.Directives[domain.Accept].Asked = true
	b.ReportAllocs()
	for b.Loop() {
		if events, err := domain.Decide(states[3], accept); len(events) != 1 || err != nil {
			b.Fatal(events, err)
		}
	}
}

// BenchmarkFilterable lists the index entries of a finished session.
func BenchmarkFilterable(b *testing.B) {
	states, _ := life(&testing.T{})
	s := &states[len(states)-1]
	b.ReportAllocs()
	for b.Loop() {
		for range s.Filterable() {
		}
	}
}
