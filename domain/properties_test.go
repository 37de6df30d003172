package domain_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"chatsessions/domain"
)

var accounts = []string{"pat", "doc", "eve"}

func pointerTo[T any](g *rapid.Generator[T]) *rapid.Generator[*T] {
	return rapid.Custom(func(t *rapid.T) *T {
		if rapid.IntRange(0, 3).Draw(t, "given") > 0 {
			return nil
		}
		v := g.Draw(t, "value")
		return &v
	})
}

func values(t *rapid.T) domain.Values {
	times := pointerTo(rapid.Int64Range(900, 1100))
	names := pointerTo(rapid.SampledFrom(accounts))
	texts := pointerTo(rapid.SampledFrom([]string{"", "a", "b"}))
	v := domain.Values{
		Type:         pointerTo(rapid.SampledFrom([]string{"", "telemed"})).Draw(t, "type"),
		Room:         texts.Draw(t, "room"),
		Participants: pointerTo(rapid.SliceOfNDistinct(rapid.SampledFrom(accounts), 0, 3, rapid.ID[string])).Draw(t, "participants"),
		CreatedAt:    times.Draw(t, "createdAt"),
	}
	for _, tr := range domain.Transitions() {
		v.Stamps[tr] = domain.StampValues{At: times.Draw(t, tr.AtField()), By: names.Draw(t, tr.ByField())}
		if tr.ReasonField() != "" {
			v.Stamps[tr].Reason = texts.Draw(t, tr.ReasonField())
		}
	}
	return v
}

func caller(t *rapid.T) domain.Caller {
	return domain.Caller{
		Account: rapid.SampledFrom(accounts).Draw(t, "account"),
		Role:    rapid.SampledFrom([]domain.Role{domain.RoleAccount, domain.RoleService}).Draw(t, "role"),
	}
}

func command(t *rapid.T, s domain.Session) domain.Command {
	now := rapid.Int64Range(950, 1200).Draw(t, "now")
	if !s.Exists() {
		return domain.Create{ID: "s1", By: caller(t), Now: now, Values: values(t)}
	}
	c := domain.Change{By: caller(t), Now: now}
	if rapid.Bool().Draw(t, "with values") {
		c.Values = values(t)
	}
	for _, tr := range domain.Transitions() {
		c.Directives[tr].Asked = rapid.IntRange(0, 3).Draw(t, tr.String()) == 0
	}
	return c
}

// TestEveryHistoryIsLegal drives sessions with random commands and checks what
// an auditor would: the machine, the order of times, versions without a gap,
// and changes that fold to the session.
func TestEveryHistoryIsLegal(t *testing.T) {
	legal := map[domain.State][]domain.State{
		domain.StateNone:     {domain.StateCreated},
		domain.StateCreated:  {domain.StateStarted},
		domain.StateStarted:  {domain.StateAccepted, domain.StateRejected},
		domain.StateAccepted: {domain.StateFinished},
		domain.StateRejected: {domain.StateFinished},
	}
	rapid.Check(t, func(t *rapid.T) {
		var s domain.Session
		for range rapid.IntRange(1, 12).Draw(t, "commands") {
			events, err := domain.Decide(s, command(t, s))
			if err != nil && len(events) > 0 {
				t.Fatalf("both events and %v", err)
			}
			for _, e := range events {
				folded, err := domain.Apply(s, e)
				if err != nil || !reflect.DeepEqual(folded, e.Session) {
					t.Fatalf("%s: changes fold to %+v (%v), the event says %+v", e.Type, folded, err, e.Session)
				}
				if e.Session.State != s.State && !slices.Contains(legal[s.State], e.Session.State) {
					t.Fatalf("%s leads from %q to %q", e.Type, s.State, e.Session.State)
				}
				if e.Session.Version != s.Version+1 || e.Session.UpdatedAt < s.UpdatedAt {
					t.Fatalf("%s: version %d after %d, recorded at %d after %d", e.Type, e.Session.Version, s.Version, e.Session.UpdatedAt, s.UpdatedAt)
				}
				last := e.Session.CreatedAt
				for _, stamp := range e.Session.Stamps {
					if stamp == nil {
						continue
					}
					if stamp.At < last || stamp.By == "" {
						t.Fatalf("%s: the stamps of %+v", e.Type, e.Session)
					}
					last = stamp.At
				}
				var decoded domain.Session
				if err := json.Unmarshal(e.Session.AppendJSON(nil), &decoded); err != nil || !reflect.DeepEqual(decoded, e.Session) {
					t.Fatalf("decoded %+v (%v), encoded %+v", decoded, err, e.Session)
				}
				s = e.Session
			}
		}
	})
}

// TestTheSameCommandAgainWritesNothing: a command that came through is refused
// when it is decided once more, or leads to no event. Creation aside: that its id
// is new is the log's to check.
func TestTheSameCommandAgainWritesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s domain.Session
		for range rapid.IntRange(1, 8).Draw(t, "commands") {
			c := command(t, s)
			events, err := domain.Decide(s, c)
			if err != nil || len(events) == 0 {
				continue
			}
			after := events[len(events)-1].Session
			if again, err := domain.Decide(after, c); err == nil && len(again) > 0 {
				t.Fatalf("deciding %+v again on %+v wrote %s", c, after, again[0].Changes)
			}
			s = after
		}
	})
}

// TestTextsSurviveJSON: every text that a client may send comes back as it was.
func TestTextsSurviveJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := domain.Session{ID: "s1", Version: 1, Room: rapid.String().Draw(t, "room")}
		var decoded domain.Session
		if err := json.Unmarshal(s.AppendJSON(nil), &decoded); err != nil || decoded.Room != s.Room {
			t.Fatalf("%q came back as %q (%v)", s.Room, decoded.Room, err)
		}
	})
}

// TestAllowedIsWhatTheMachineAccepts: what a refusal calls legal must be so.
func TestAllowedIsWhatTheMachineAccepts(t *testing.T) {
	by := domain.Caller{Account: "pat", Role: domain.RoleAccount}
	for _, history := range [][]domain.Transition{{}, {domain.Start}, {domain.Start, domain.Accept}, {domain.Start, domain.Reject}, {domain.Start, domain.Accept, domain.Finish}} {
		var v domain.Values
		for _, tr := range history {
			v.Stamps[tr].By = &by.Account
		}
		events, err := domain.Decide(domain.Session{}, domain.Create{ID: "s1", By: by, Now: 1000, Values: v})
		if err != nil {
			t.Fatal(err)
		}
		s := events[len(events)-1].Session
		for _, tr := range domain.Transitions() {
			c := domain.Change{By: by, Now: 1000}
			c.Directives[tr].Asked = true
			_, err := domain.Decide(s, c)
			var illegal *domain.IllegalTransitionError
			if allowed := slices.Contains(s.State.Allowed(), tr); allowed == errors.As(err, &illegal) {
				t.Errorf("%s in %s: allowed %v, but %v", tr, s.State, allowed, err)
			}
		}
	}
}

// TestReadmeShowsTheMachine keeps the README's state diagram equal to the one
// that the machine draws of itself.
func TestReadmeShowsTheMachine(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "```mermaid\n" + strings.TrimSpace(domain.Diagram()) + "\n```"; !strings.Contains(string(readme), want) {
		t.Errorf("README.md must contain:\n%s", want)
	}
}
