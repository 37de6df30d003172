package audit

import (
	"context"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

// BenchmarkVerifyEvent is what one event costs a verification beside reading it: decode
// and check.
func BenchmarkVerifyEvent(b *testing.B) {
	const id = "0192f5c6-3c00-7000-8000-00000000000a"
	typ, room, participants := domain.TypeTelemed, "0192f5c6-3c00-7000-8000-00000000000b", []string{"0192f5c6-3c00-7000-8000-00000000000c", "0192f5c6-3c00-7000-8000-00000000000d"}
	pat := domain.Caller{Account: participants[0], Role: domain.RoleAccount}
	var s domain.Session
	var msgs []*envelope.Message
	decide := func(c domain.Command) {
		events, err := domain.Decide(s, c)
		if err != nil {
			b.Fatal(err)
		}
		request := domain.Request{SessionID: id, Actor: pat.Account, CorrelationID: id, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
		m, _ := envelope.Encode(&request, &events[0], "0192f5c6-3c00-7000-8000-0000000000ff", uint64(len(msgs)))
		msgs = append(msgs, &envelope.Message{Subject: m.Subject, Sequence: uint64(len(msgs) + 1), Header: m.Header, Data: m.Data})
		s = events[0].Session
	}
	decide(domain.Create{ID: id, By: pat, Now: 1732000000123, Values: domain.Values{Type: &typ, Room: &room, Participants: &participants}})
	for _, t := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
		c := domain.Change{By: pat, Now: 1732000000123}
		c.Directives[t].Asked = true
		decide(c)
	}
	b.ReportAllocs()
	for b.Loop() {
		v := &verification{states: newRecentStates(defaultMemory), claims: newClaims(1 << 10)}
		v.options.Defect = func(d domain.Defect) error { b.Fatal(d); return nil }
		v.options.Sessions = func(context.Context, []domain.Entry) error { return nil }
		messages := make([]message, len(msgs))
		for i, m := range msgs {
			messages[i] = decode(m)
		}
		for i := range messages {
			known := v.states.get(id)
			if known == nil {
				known = &lastState{}
			}
			if err := v.checkEvent(b.Context(), &messages[i], false, known, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(msgs)), "ns/event")
}
