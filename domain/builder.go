package domain

import "fmt"

// MaxAhead is how far in the future a stamp may lie, in milliseconds: clocks of
// clients differ.
const MaxAhead int64 = 5 * 60 * 1000

// latestStamp returns the newest time that a transition of the session has to
// follow: that of the newest stamp before it in the order of the machine.
func (s *Session) latestStamp(t Transition) int64 {
	latest := s.CreatedAt
	for earlier := Start; earlier < t; earlier++ {
		if s.Stamps[earlier] != nil {
			latest = s.Stamps[earlier].At
		}
	}
	return latest
}

// notAfterNextGiven returns at, or the first time that the command gives for
// the transition `from` or one after it, where that is earlier.
func (w *writer) notAfterNextGiven(at int64, from Transition) int64 {
	for t := from; t < transitionCount; t++ {
		if given := w.values.Stamps[t].At; given != nil {
			return min(at, *given)
		}
	}
	return at
}

// checkOrder finds what is wrong with the order of the session's times as they
// stand now: createdAt ≤ startedAt ≤ acceptedAt or rejectedAt ≤ finishedAt.
func (w *writer) checkOrder() {
	type moment struct {
		field string
		at    int64
		given bool
	}
	earlier := moment{"createdAt", w.session.CreatedAt, w.values.CreatedAt != nil}
	for _, t := range Transitions() {
		stamp := w.session.Stamps[t]
		if stamp == nil {
			continue
		}
		later := moment{t.AtField(), stamp.At, w.values.Stamps[t].At != nil}
		if later.at < earlier.at {
			culprit := later.field
			if !later.given && earlier.given {
				culprit = earlier.field
			}
			w.complain(culprit, fmt.Sprintf("%s (%d) is before %s (%d); the order is createdAt, startedAt, acceptedAt or rejectedAt, finishedAt",
				later.field, later.at, earlier.field, earlier.at))
		}
		earlier = later
	}
}

// checkFuture finds given times that lie too far ahead.
func (w *writer) checkFuture() {
	check := func(field string, at *int64) {
		if at != nil && *at > w.now+MaxAhead {
			w.complain(field, fmt.Sprintf("%s (%d) is more than 5 minutes in the future; it is %d now", field, *at, w.now))
		}
	}
	check("createdAt", w.values.CreatedAt)
	for _, t := range Transitions() {
		check(t.AtField(), w.values.Stamps[t].At)
	}
}

// complain notes a problem once: a time that is wrong after one event is mostly
// wrong after the next one too.
func (w *writer) complain(field, detail string) {
	problem := FieldError{"/" + field, detail}
	for _, known := range w.wrong {
		if known == problem {
			return
		}
	}
	w.wrong = append(w.wrong, problem)
}
