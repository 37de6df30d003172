package domain

import (
	"fmt"
	"slices"
)

// MaxAhead is how many milliseconds a stamp may lie in the future: clients' clocks differ.
const MaxAhead int64 = 5 * 60 * 1000

// An eventBuilder collects the events of one command and the problems with their times.
type eventBuilder struct {
	now      int64
	session  Session // after the events so far
	values   *Values // what the command gives
	events   []Event
	problems []FieldError
}

// add appends the event that leads to after, and sets after's version and time of recording.
func (b *eventBuilder) add(typ EventType, after Session) {
	before := b.session
	after.Version = before.Version + 1
	after.UpdatedAt = max(b.now, before.UpdatedAt)
	b.events = append(b.events, newEvent(typ, &before, &after))
	b.session = after
	b.checkOrder()
}

func (b *eventBuilder) transition(t Transition, stamp Stamp) {
	to, ok := b.session.State.after(t)
	if !ok {
		panic("decide: " + t.String() + " was not checked against the state machine")
	}
	after := b.session.clone()
	after.Stamps[t] = &stamp
	after.State = to
	b.add(t.EventType(), after)
}

func (b *eventBuilder) done() ([]Event, error) {
	b.checkFuture()
	if err := invalid(b.problems); err != nil {
		return nil, err
	}
	return b.events, nil
}

// latestTime returns the time that the session's next transition has to follow.
func (s *Session) latestTime() int64 {
	latest := s.CreatedAt
	for _, stamp := range s.Stamps {
		if stamp != nil {
			latest = stamp.At
		}
	}
	return latest
}

// notAfterNextGiven returns the earlier of at and the first time that the command gives
// for the transition `from` or a later one.
func (b *eventBuilder) notAfterNextGiven(at int64, from Transition) int64 {
	for t := from; t < transitionCount; t++ {
		if given := b.values.Stamps[t].At; given != nil {
			return min(at, *given)
		}
	}
	return at
}

// checkOrder checks that createdAt ≤ startedAt ≤ acceptedAt or rejectedAt ≤ finishedAt. It
// blames the time that the command gave.
func (b *eventBuilder) checkOrder() {
	type moment struct {
		field string
		at    int64
		given bool
	}
	earlier := moment{"createdAt", b.session.CreatedAt, b.values.CreatedAt != nil}
	for _, t := range Transitions() {
		stamp := b.session.Stamps[t]
		if stamp == nil {
			continue
		}
		later := moment{t.AtField(), stamp.At, b.values.Stamps[t].At != nil}
		if later.at < earlier.at {
			culprit := later.field
			if !later.given && earlier.given {
				culprit = earlier.field
			}
			b.addProblem(culprit, fmt.Sprintf("%s (%d) is before %s (%d); the order is createdAt, startedAt, acceptedAt or rejectedAt, finishedAt",
				later.field, later.at, earlier.field, earlier.at))
		}
		earlier = later
	}
}

// checkFuture checks that no given time is too far in the future.
func (b *eventBuilder) checkFuture() {
	check := func(field string, at *int64) {
		if at != nil && *at > b.now+MaxAhead {
			b.addProblem(field, fmt.Sprintf("%s (%d) is more than 5 minutes in the future; it is %d now", field, *at, b.now))
		}
	}
	check("createdAt", b.values.CreatedAt)
	for _, t := range Transitions() {
		check(t.AtField(), b.values.Stamps[t].At)
	}
}

// addProblem adds a problem once: a time that is wrong after one event is usually still
// wrong after the next.
func (b *eventBuilder) addProblem(field, detail string) {
	problem := FieldError{"/" + field, detail}
	if !slices.Contains(b.problems, problem) {
		b.problems = append(b.problems, problem)
	}
}
