package domain_test

import (
	"testing"

	"chatsessions/domain"
)

// BenchmarkAppendJSON writes a finished session, which has most of the members.
func BenchmarkAppendJSON(b *testing.B) {
	states, _ := life(&testing.T{})
	s := &states[len(states)-1]
	buffer := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buffer = s.AppendJSON(buffer[:0])
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
