package domain

import "fmt"

// Decide returns the events to which a command leads, in the order in which they are to
// be written, all or none. No events and no error mean that the session is already as
// the command wants it.
//
// The first of these errors wins: ErrNotFound, *InvalidError of the command's shape,
// *PreconditionError, *ForbiddenError, *IllegalTransitionError, *InvalidError of times.
func Decide(s Session, c Command) ([]Event, error) {
	flaws, err := c.flaws(s, nil)
	if err != nil {
		return nil, err
	}
	if err := invalid(flaws); err != nil {
		return nil, err
	}
	return c.decide(s)
}

func (c Create) flaws(s Session, known []FieldError) ([]FieldError, error) {
	if s.Exists() {
		// Clients never choose ids, so a taken one is a defect of the service.
		return nil, fmt.Errorf("create: the id %s is taken", c.ID)
	}
	return c.Values.gaps(known), nil
}

func (c Create) decide(s Session) ([]Event, error) {
	if err := forbidden(c.Values.forbiddenNames(c.By)); err != nil {
		return nil, err
	}

	b := eventBuilder{now: c.Now, values: &c.Values}
	created := s.clone()
	created.ID = c.ID
	created.CreatedAt = b.notAfterNextGiven(c.Now, Start)
	if c.Values.CreatedAt != nil {
		created.CreatedAt = *c.Values.CreatedAt
	}
	created.CreatedBy = c.By.Account
	if c.Values.CreatedBy != nil {
		created.CreatedBy = *c.Values.CreatedBy
	}
	created.State = StateCreated
	c.Values.setDetails(&created)
	b.add(EventCreated, created)

	for _, t := range Transitions() {
		stamp := c.Values.Stamps[t]
		if !stamp.given() {
			continue
		}
		b.transition(t, Stamp{
			At:     valueOr(stamp.At, b.session.latestTime()),
			By:     valueOr(stamp.By, created.CreatedBy),
			Reason: valueOr(stamp.Reason, ""),
		})
	}
	return b.done()
}

func (c Change) flaws(s Session, _ []FieldError) ([]FieldError, error) {
	if !s.Exists() || !c.By.MaySee(&s) {
		return nil, ErrNotFound
	}
	values := c.Values.changed(&s)
	return contradictions(&s, &c.Directives, &values), nil
}

func (c Change) decide(s Session) ([]Event, error) {
	if c.Condition != nil && !c.Condition(s.Version) {
		return nil, &PreconditionError{s.Version}
	}

	values := c.Values.changed(&s)
	var asked, corrected []Transition
	for _, t := range Transitions() {
		switch {
		case c.Directives[t].Asked, values.Stamps[t].given() && s.Stamps[t] == nil:
			asked = append(asked, t)
		case values.Stamps[t].given() || values.Stamps[t].Reason != nil:
			corrected = append(corrected, t)
		}
	}
	if err := forbidden(append(values.forbiddenNames(c.By), forbiddenCorrections(&s, c.By, corrected, &values)...)); err != nil {
		return nil, err
	}
	if err := checkLegal(&s, asked); err != nil {
		return nil, err
	}

	b := eventBuilder{now: c.Now, session: s, values: &values}
	if len(corrected) > 0 {
		after := s.clone()
		for _, t := range corrected {
			stamp := after.Stamps[t]
			stamp.At = valueOr(values.Stamps[t].At, stamp.At)
			stamp.By = valueOr(values.Stamps[t].By, stamp.By)
			stamp.Reason = valueOr(values.Stamps[t].Reason, stamp.Reason)
		}
		b.add(EventCorrected, after)
	}
	if values.hasDetails() {
		after := b.session.clone()
		values.setDetails(&after)
		after.CreatedAt = valueOr(values.CreatedAt, after.CreatedAt)
		b.add(EventUpdated, after)
	}
	for _, t := range asked {
		stamp := values.Stamps[t]
		now := max(b.notAfterNextGiven(c.Now, t+1), b.session.latestTime())
		b.transition(t, Stamp{
			At:     valueOr(stamp.At, now),
			By:     valueOr(stamp.By, c.By.Account),
			Reason: valueOr(stamp.Reason, c.Directives[t].Reason),
		})
	}
	return b.done()
}

// checkLegal checks that the state machine can make all these transitions in a row.
func checkLegal(s *Session, asked []Transition) error {
	state := s.State
	for _, t := range asked {
		to, ok := state.after(t)
		if !ok {
			return &IllegalTransitionError{Directive: t, State: state, Session: *s}
		}
		state = to
	}
	return nil
}

// valueOr returns what the pointer points to, or the default where it is nil.
func valueOr[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

func invalid(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return &InvalidError{fields}
}

func forbidden(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return &ForbiddenError{fields}
}
