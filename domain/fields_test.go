package domain

import (
	"testing"

	"pgregory.net/rapid"
)

// TestWhatDiffersIsWhatADiffNames: the quick comparison of a verification and the merge
// patch of an event are of the same members.
func TestWhatDiffersIsWhatADiffNames(t *testing.T) {
	sessions := rapid.Custom(func(t *rapid.T) Session {
		text := rapid.SampledFrom([]string{"", "a", "b"})
		at := rapid.Int64Range(0, 2)
		s := Session{
			ID: text.Draw(t, "id"), CreatedAt: at.Draw(t, "at"), CreatedBy: text.Draw(t, "by"), Type: text.Draw(t, "type"),
			Room: text.Draw(t, "room"), Participants: rapid.SliceOfN(text, 0, 2).Draw(t, "participants"),
			State: State(text.Draw(t, "state")), Version: rapid.Uint64Range(0, 2).Draw(t, "version"), UpdatedAt: at.Draw(t, "updated"),
		}
		for tr := range transitionCount {
			if rapid.Bool().Draw(t, "stamped") {
				s.Stamps[tr] = &Stamp{At: at.Draw(t, "stamp"), By: text.Draw(t, "stamped by")}
				if tr.ReasonField() != "" {
					s.Stamps[tr].Reason = text.Draw(t, "reason")
				}
			}
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		from, to := sessions.Draw(t, "from"), sessions.Draw(t, "to")
		diff := appendDiff(nil, &from, &to)
		if !isDiff(diff, &from, &to) {
			t.Fatalf("%s is not the diff of %+v and %+v", diff, from, to)
		}
		if other := sessions.Draw(t, "other"); isDiff(diff, &from, &other) && string(appendDiff(nil, &from, &other)) != string(diff) {
			t.Fatalf("%s is taken for the diff of %+v and %+v", diff, from, other)
		}
	})
}
