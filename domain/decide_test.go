package domain_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatsessions/domain"
)

// TestTheFirstErrorWins removes one reason of refusal after the other from a command that
// is wrong in every way. The order is a promise to clients.
func TestTheFirstErrorWins(t *testing.T) {
	states, _ := life(t)
	session := states[2] // started
	pat := "pat"
	late := int64(1_000_000_000)
	broken := []domain.FieldError{{Pointer: "/room", Detail: "room is a number"}}
	type flaws struct{ stranger, broken, contradicts, stale, foreign, illegal, late bool }
	decide := func(f flaws) error {
		c := domain.Change{By: domain.Caller{Account: "pat", Role: domain.RoleAccount}, Now: 5000}
		var findings []domain.FieldError
		if f.stranger {
			c.By.Account = "eve"
		}
		if f.broken {
			findings = broken
		}
		if f.contradicts {
			c.Directives[domain.Reject].Refused = true
			c.Values.Stamps[domain.Reject].By = &pat
		}
		if f.stale {
			c.Condition = func(uint64) bool { return false }
		}
		if f.foreign {
			doc := "doc"
			c.Values.Stamps[domain.Accept].By = &doc
		}
		if f.illegal {
			c.Directives[domain.Start].Asked = true
		}
		c.Values.Stamps[domain.Accept].At = &late
		if !f.late {
			at := int64(4000)
			c.Values.Stamps[domain.Accept].At = &at
		}
		_, err := domain.Decide(session, domain.Parsed{Command: c, Findings: func(*domain.Session) []domain.FieldError { return findings }})
		return err
	}
	f := flaws{true, true, true, true, true, true, true}
	for _, step := range []struct {
		want  string
		solve *bool
	}{
		{"no such session", &f.stranger},
		// The parser's findings come first, and the command's own flaws with them.
		{"/room /reject /reject", &f.broken},
		{"/reject /reject", &f.contradicts},
		{"the session is at version 2", &f.stale},
		{"/acceptedBy", &f.foreign},
		{"start is not possible: the session is started", &f.illegal},
		{"/acceptedAt", &f.late},
		{"<nil>", nil},
	} {
		err := decide(f)
		got := fmt.Sprint(err)
		if p := pointers(err); p != nil {
			got = strings.Join(p, " ")
		}
		if got != step.want {
			t.Errorf("%+v: %s, want %s", f, got, step.want)
		}
		if (err != nil) != domain.IsRefusal(err) {
			t.Errorf("%v is a refusal: %v", err, domain.IsRefusal(err))
		}
		if step.solve != nil {
			*step.solve = false
		}
	}
}

// pointers returns the pointers of an error that names fields; nil for any other.
func pointers(err error) []string {
	var fields []domain.FieldError
	var invalid *domain.InvalidError
	var forbidden *domain.ForbiddenError
	switch {
	case errors.As(err, &invalid):
		fields = invalid.Fields
	case errors.As(err, &forbidden):
		fields = forbidden.Fields
	}
	var all []string
	for _, f := range fields {
		all = append(all, f.Pointer)
	}
	return all
}

// TestAParsedCommandWithoutFindingsIsTheCommand, and findings refuse even a command that
// would be in order.
func TestAParsedCommandWithoutFindingsIsTheCommand(t *testing.T) {
	states, events := life(t)
	accept := domain.Change{By: domain.Caller{Account: "pat", Role: domain.RoleService}, Now: 4000}
	accept.Directives[domain.Accept].Asked = true
	var seen *domain.Session
	parsed := func(findings ...domain.FieldError) domain.Command {
		return domain.Parsed{Command: accept, Findings: func(s *domain.Session) []domain.FieldError {
			seen = s
			return findings
		}}
	}
	got, err := domain.Decide(states[3], parsed())
	if err != nil || len(got) != 1 || string(got[0].Changes) != string(events[3].Changes) {
		t.Errorf("got %+v, %v", got, err)
	}
	if seen == nil || seen.Version != 3 {
		t.Errorf("the findings are about %+v", seen)
	}
	got, err = domain.Decide(states[3], parsed(domain.FieldError{Pointer: "/title", Detail: "no such field"}))
	if got != nil || err == nil || err.Error() != "no such field" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestAStampWithAFindingNeedsNoPredecessor: the client may not have meant it.
func TestAStampWithAFindingNeedsNoPredecessor(t *testing.T) {
	at := int64(1000)
	for _, test := range []struct {
		given   domain.Transition
		finding string
		want    []string
	}{
		{domain.Finish, "", []string{"/startedAt", "/acceptedAt"}},
		{domain.Finish, "/finishedAt", []string{"/finishedAt"}},
		{domain.Finish, "/finishedBy", []string{"/finishedBy"}},
		{domain.Finish, "/finishReason", []string{"/finishReason", "/startedAt", "/acceptedAt"}},
		{domain.Accept, "/finishedAt", []string{"/finishedAt", "/startedAt"}},
	} {
		create := domain.Create{ID: "s1", By: domain.Caller{Account: "pat"}, Now: 2000}
		create.Values.Stamps[test.given].At = &at
		_, err := domain.Decide(domain.Session{}, domain.Parsed{Command: create, Findings: func(*domain.Session) []domain.FieldError {
			if test.finding == "" {
				return nil
			}
			return []domain.FieldError{{Pointer: test.finding}}
		}})
		if got := pointers(err); !slices.Equal(got, test.want) {
			t.Errorf("%s with %q: %v, want %v", test.given, test.finding, got, test.want)
		}
	}
}

// TestATakenIDIsNoRefusal: the service chooses ids, so it is a defect.
func TestATakenIDIsNoRefusal(t *testing.T) {
	states, _ := life(t)
	_, err := domain.Decide(states[1], domain.Create{ID: "s1", By: domain.Caller{Account: "pat"}})
	if err == nil || domain.IsRefusal(err) || !strings.Contains(err.Error(), "the id s1 is taken") {
		t.Errorf("got %v", err)
	}
}

// TestDecidingLeavesTheSessionAsItIs: the log's cache holds it.
func TestDecidingLeavesTheSessionAsItIs(t *testing.T) {
	states, _ := life(t)
	finished := states[len(states)-1]
	before := string(finished.AppendJSON(nil))
	by, reason, uids := "doc", "healed", []string{"doc"}
	c := domain.Change{By: domain.Caller{Account: "crm", Role: domain.RoleService}, Now: 9000}
	c.Values.Participants = &uids
	c.Values.Stamps[domain.Finish] = domain.StampValues{By: &by, Reason: &reason}
	events, err := domain.Decide(finished, c)
	if err != nil || len(events) != 2 {
		t.Fatalf("got %+v, %v", events, err)
	}
	if after := string(finished.AppendJSON(nil)); after != before {
		t.Errorf("it was %s and is %s", before, after)
	}
	uids[0] = "eve" // the caller's own slice
	if got := events[1].Session.Participants; !slices.Equal(got, []string{"doc"}) {
		t.Errorf("the event shares the participants with the command: %v", got)
	}
}

func TestRefusalsAreToldFromFailures(t *testing.T) {
	for _, refusal := range []error{
		domain.ErrNotFound, domain.ErrKeyReused, &domain.InvalidError{}, &domain.ForbiddenError{},
		&domain.PreconditionError{}, &domain.IllegalTransitionError{}, fmt.Errorf("wrapped: %w", domain.ErrNotFound),
	} {
		if !domain.IsRefusal(refusal) {
			t.Errorf("%T (%v) is no refusal", refusal, refusal)
		}
	}
	for _, failure := range []error{
		nil, domain.ErrUnavailable, domain.ErrOutcomeUnknown, domain.ErrHistoryTooLong, domain.ErrUnreadable,
		domain.ErrBusy, domain.ErrTooExpensive, errors.New("broken"),
	} {
		if domain.IsRefusal(failure) {
			t.Errorf("%v is a refusal", failure)
		}
	}
}

func TestAnErrorNamesEveryField(t *testing.T) {
	fields := []domain.FieldError{{Pointer: "/a", Detail: "one"}, {Pointer: "/b", Detail: "two"}}
	if got := (&domain.InvalidError{Fields: fields}).Error(); got != "one; two" {
		t.Error(got)
	}
	if got := (&domain.ForbiddenError{Fields: fields}).Error(); got != "one; two" {
		t.Error(got)
	}
}

func TestTheTransitionThatEnteredTheState(t *testing.T) {
	states, _ := life(t)
	for i, want := range []string{"", "", "start", "start", "accept", "finish"} {
		got := ""
		if tr, ok := states[i].Entered(); ok {
			got = tr.String()
		}
		if got != want {
			t.Errorf("version %d: %q, want %q", i, got, want)
		}
	}
}
