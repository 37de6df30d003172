package domain

import (
	"fmt"
	"slices"
	"strings"
)

// given reports whether the request names the stamp itself; a reason alone does not.
func (v StampValues) given() bool { return v.At != nil || v.By != nil }

func (v *Values) hasDetails() bool {
	return v.Type != nil || v.Room != nil || v.Participants != nil || v.CreatedAt != nil
}

// setDetails writes type, room, and participants into the session.
func (v *Values) setDetails(s *Session) {
	s.Type = valueOr(v.Type, s.Type)
	s.Room = valueOr(v.Room, s.Room)
	// append(nil, …), not Clone: a session without participants always has a nil slice.
	s.Participants = append([]string(nil), valueOr(v.Participants, s.Participants)...)
}

// changed drops the session's own values: a client may send back the whole session.
func (v Values) changed(s *Session) Values {
	dropEqual(&v.Type, s.Type)
	dropEqual(&v.Room, s.Room)
	dropEqual(&v.CreatedAt, s.CreatedAt)
	if v.Participants != nil && slices.Equal(*v.Participants, s.Participants) {
		v.Participants = nil
	}
	for _, t := range Transitions() {
		stamp := &v.Stamps[t]
		if recorded := s.Stamps[t]; recorded != nil {
			dropEqual(&stamp.At, recorded.At)
			dropEqual(&stamp.By, recorded.By)
			dropEqual(&stamp.Reason, recorded.Reason)
		} else {
			dropEqual(&stamp.Reason, "")
		}
	}
	return v
}

func dropEqual[T comparable](p **T, current T) {
	if *p != nil && **p == current {
		*p = nil
	}
}

// contradictions lists where a change contradicts itself, or gives the reason of a
// transition that never happened.
func contradictions(s *Session, directives *[transitionCount]Directive, v *Values) []FieldError {
	var wrong []FieldError
	for _, t := range Transitions() {
		directive, stamp := directives[t], v.Stamps[t]
		if directive.Refused && stamp.given() {
			wrong = append(wrong, FieldError{"/" + t.String(), fmt.Sprintf(
				"%s is false, but %s is given; leave one of them out", t, strings.Join(stamp.names(t), " and "))})
		}
		if stamp.Reason == nil {
			continue
		}
		happens := directive.Asked || stamp.given()
		switch {
		case directive.Reason != "" && *stamp.Reason != "" && directive.Reason != *stamp.Reason:
			wrong = append(wrong, FieldError{"/" + t.ReasonField(), fmt.Sprintf(
				"%s differs from the reason in %s; give one of them, or the same in both", t.ReasonField(), t)})
		case !happens && s.Stamps[t] == nil:
			wrong = append(wrong, FieldError{"/" + t.ReasonField(), fmt.Sprintf(
				"%s is given, but there was no %s; give it together with %s", t.ReasonField(), t, t)})
		}
	}
	accepts := directives[Accept].Asked || v.Stamps[Accept].given()
	rejects := directives[Reject].Asked || v.Stamps[Reject].given()
	if accepts && rejects {
		wrong = append(wrong, bothAcceptedAndRejected)
	}
	return wrong
}

var bothAcceptedAndRejected = FieldError{"/reject", "a session is either accepted or rejected; give accept (acceptedAt, acceptedBy) or reject (rejectedAt, rejectedBy), not both"}

// gaps lists gaps and contradictions in an imported history. A stamp with a known problem
// needs no predecessor: the client may not have meant it.
func (v *Values) gaps(known []FieldError) []FieldError {
	var wrong []FieldError
	hasProblem := func(t Transition) bool {
		return slices.ContainsFunc(known, func(f FieldError) bool {
			return f.Pointer == "/"+t.AtField() || f.Pointer == "/"+t.ByField()
		})
	}
	accepted, rejected := v.Stamps[Accept].given(), v.Stamps[Reject].given()
	for _, t := range Transitions() {
		stamp := v.Stamps[t]
		if !stamp.given() {
			if stamp.Reason != nil && *stamp.Reason != "" {
				wrong = append(wrong, FieldError{"/" + t.ReasonField(), fmt.Sprintf(
					"%s needs %s or %s beside it", t.ReasonField(), t.AtField(), t.ByField())})
			}
			continue
		}
		if hasProblem(t) {
			continue
		}
		if t != Start && !v.Stamps[Start].given() {
			wrong = append(wrong, missing(t, Start))
		}
		if t == Finish && !accepted && !rejected {
			wrong = append(wrong, missing(t, Accept, Reject))
		}
	}
	if accepted && rejected {
		wrong = append(wrong, FieldError{"/rejectedAt", "a session is either accepted or rejected; give acceptedAt and acceptedBy, or rejectedAt and rejectedBy, not both"})
	}
	return wrong
}

// missing reports that t is given without any of the transitions that lead to it.
func missing(t Transition, before ...Transition) FieldError {
	names := make([]string, len(before))
	for i, b := range before {
		names[i] = b.AtField()
	}
	return FieldError{"/" + names[0], fmt.Sprintf("%s is missing: %s is given, and the history must have no gap",
		strings.Join(names, " or "), strings.Join([]string{t.AtField(), t.ByField()}, " or "))}
}

// names lists the given members of the stamp.
func (v StampValues) names(t Transition) []string {
	var names []string
	if v.At != nil {
		names = append(names, t.AtField())
	}
	if v.By != nil {
		names = append(names, t.ByField())
	}
	return names
}

// forbiddenNames lists stamps for another account if the caller may not act for others.
func (v *Values) forbiddenNames(by Caller) []FieldError {
	if by.MayActForOthers() {
		return nil
	}
	var wrong []FieldError
	for _, t := range Transitions() {
		if name := v.Stamps[t].By; name != nil && *name != by.Account {
			wrong = append(wrong, FieldError{"/" + t.ByField(), fmt.Sprintf(
				"%s may only be your own account, %q", t.ByField(), by.Account)})
		}
	}
	return wrong
}

// forbiddenCorrections lists the corrections that the caller may not make: of stamps
// that are recorded under another account, and of any stamp of a finished session.
func forbiddenCorrections(s *Session, by Caller, corrected []Transition, v *Values) []FieldError {
	if by.MayActForOthers() {
		return nil
	}
	var wrong []FieldError
	for _, t := range corrected {
		names := v.Stamps[t].names(t)
		if v.Stamps[t].Reason != nil {
			names = append(names, t.ReasonField())
		}
		for _, name := range names {
			switch {
			case s.State == StateFinished:
				wrong = append(wrong, FieldError{"/" + name, name + " can't be corrected: the session is finished"})
			case s.Stamps[t].By != by.Account:
				wrong = append(wrong, FieldError{"/" + name, fmt.Sprintf(
					"%s can't be corrected: it is recorded under another account", name)})
			}
		}
	}
	return wrong
}
