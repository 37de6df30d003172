package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// touched notes where the read model changes while it is verified: what is counted there
// proves nothing, since one that comes may hide one that goes.
type touched struct {
	*Verification
	ended chan struct{} // closed when the log is no longer followed

	mu                 sync.Mutex
	position           uint64 // up to which the log was followed
	documents, entries []bool // by the places of a tally
	everything         bool   // may have changed
	err                error
}

// touches follows the log from a position on, until ctx ends.
func (v *Verification) touches(ctx context.Context, after uint64) *touched {
	t := &touched{
		Verification: v, ended: make(chan struct{}), position: after,
		documents: make([]bool, tallyPlaces), entries: make([]bool, tallyPlaces), // of any partition
	}
	go func() {
		defer close(t.ended)
		err := v.log.Follow(ctx, after, followBatch, func(batch []domain.Entry) error { return t.note(ctx, batch) })
		t.mu.Lock()
		defer t.mu.Unlock()
		t.err = errors.Join(errors.New("the log is not followed any more"), err)
	}()
	return t
}

func (t *touched) note(ctx context.Context, batch []domain.Entry) error {
	for i := range batch {
		r := &batch[i]
		before, known, err := t.before(ctx, r)
		if err != nil {
			return err
		}
		t.mu.Lock()
		t.everything = t.everything || !known
		t.documents[t.hash(r.Record.Event.Session.ID)%tallyPlaces] = true
		t.entries[t.hash(layout.IndexAll)%tallyPlaces] = true
		for _, state := range []domain.State{domain.StateCreated, domain.StateStarted, domain.StateAccepted, domain.StateRejected, domain.StateFinished} {
			t.entries[t.hash(layout.FieldIndex("state", string(state)))%tallyPlaces] = true
		}
		for _, s := range []*domain.Session{&r.Record.Event.Session, before} {
			if s == nil {
				continue
			}
			for field, value := range s.Filterable() {
				t.entries[t.hash(layout.FieldIndex(field, value))%tallyPlaces] = true
			}
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.position = batch[len(batch)-1].Record.Position
	return nil
}

// before returns the session before an event, nil where it was in no index, by its state
// aside, in which it is not still; false where that is not known.
func (t *touched) before(ctx context.Context, r *domain.Entry) (s *domain.Session, known bool, err error) {
	switch {
	case r.Before != nil:
		return r.Before, true, nil
	case r.Err != nil: // no event: the session is parked, and leaves all its indexes
		return nil, false, nil
	case r.Record.Event.Type != domain.EventUpdated && r.Record.Event.Type != domain.EventCorrected:
		return nil, true, nil
	}
	before, err := t.Event(ctx, r.Record.Previous)
	if errors.Is(err, domain.ErrUnreadable) { // then it was parked
		return nil, true, nil
	}
	if err != nil {
		return nil, true, err
	}
	return &before.Event.Session, true, nil
}

// mark marks the places of a partition's tally that may have changed, and says whether
// there are any.
func (t *touched) mark(documents, entries []bool) (some bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range tallyPlaces { // a multiple of the partition's places
		documents[i%len(documents)] = documents[i%len(documents)] || t.everything || t.documents[i]
		entries[i%len(entries)] = entries[i%len(entries)] || t.everything || t.entries[i]
		some = some || t.everything || t.documents[i] || t.entries[i]
	}
	return some
}

// await waits until the log was followed up to its present end.
func (t *touched) await(ctx context.Context) error {
	end, err := t.log.End(ctx)
	if err != nil {
		return err
	}
	for since := time.Now(); ; {
		t.mu.Lock()
		reached, err := t.position, t.err
		t.mu.Unlock()
		switch {
		case reached >= end:
			return nil
		case err != nil:
			return err
		case time.Since(since) > t.patience:
			return fmt.Errorf("the log cannot be followed: at position %d of %d", reached, end)
		case !projections.Pause(ctx, pollEvery):
			return context.Cause(ctx)
		}
	}
}
