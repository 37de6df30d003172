package eventstore

import (
	"context"
	"fmt"
	"time"

	"chatsessions/domain"
)

const (
	// writePatience bounds a write if its context has no deadline.
	writePatience = 10 * time.Second
	// maxKeySearch is how many events of a session are searched for a request key.
	maxKeySearch = 1000
)

// Transact decides on the newest state of the request's session and appends the decided
// events, all or none. If another writer was first, it decides again, until ctx ends (10 s
// without a deadline). decide may be called with a stale session; then its decision is not
// used. It gets the zero Session if there is none.
//
// The Result has the last event of the write. When decide returns an error or no events,
// Transact returns that error and the session as the leader has it.
//
// A request whose key was used before, with the same digest, gets the recorded result; with
// another digest, the error is domain.ErrKeyReused.
//
// Errors of the log: domain.ErrUnavailable when nothing was written,
// domain.ErrHistoryTooLong when it is unknown whether the key was used,
// domain.ErrOutcomeUnknown, and UnreadableError.
func (l *Log) Transact(ctx context.Context, req domain.Request, decide func(domain.Session) ([]domain.Event, error)) (domain.Result, error) {
	ctx, cancel := withPatience(ctx, writePatience)
	defer cancel()
	d := decision{log: l, era: l.era.Load(), connection: l.Connections(), keys: keySearch{log: l, key: req.Key}, pause: backoff{jitter: l.jitter}}
	if err := d.begin(ctx, &req); err != nil {
		return domain.Result{}, err
	}
	for {
		repeated, err := d.keys.find(ctx, d.newest)
		if err != nil {
			return domain.Result{}, err
		}
		var events []domain.Event
		if repeated == nil {
			events, err = decide(d.newest.Event.Session)
		}
		if repeated != nil || err != nil || len(events) == 0 {
			// No append will reveal a stale state.
			ready, failed := d.confirm(ctx, req.SessionID)
			if failed != nil {
				return domain.Result{}, failed
			}
			if !ready {
				continue
			}
			if repeated != nil {
				return d.repeat(ctx, repeated, req.Digest)
			}
			return domain.Result{Record: d.newest}, err
		}
		w, err := l.newWrite(req, d.newest, events, d.connection)
		if err != nil {
			return domain.Result{}, err
		}
		w.era = d.era
		result, overtaking, err := w.append(ctx, &d.pause)
		if err != nil || overtaking == nil {
			return result, err
		}
		d.newest, d.confirmed = overtaking, true
		l.counters.conflicts.Add(1)
	}
}

// A decision is one call of Transact, and what its command is decided on.
type decision struct {
	log        *Log
	era        *era           // in which the session is read
	connection uint64         // over which the session is read; see Log.Connections
	newest     *domain.Record // the session's newest event, as far as known
	confirmed  bool           // by the leader
	keys       keySearch
	pause      backoff
}

// begin finds the session's newest event, which may be stale.
func (d *decision) begin(ctx context.Context, req *domain.Request) (err error) {
	known, cached := d.log.cache.get(req.SessionID, d.connection)
	switch {
	case cached:
		d.log.counters.cacheHits.Add(1)
		d.newest = known
	case req.New:
		d.newest = &domain.Record{} // if there is a session, the append conflicts
	default:
		d.log.counters.cacheMisses.Add(1)
		d.newest, err = d.log.newest(ctx, req.SessionID, anyReplica)
	}
	return err
}

// confirm makes newest durable if the leader has no newer event; false means: decide again.
func (d *decision) confirm(ctx context.Context, id string) (bool, error) {
	if !d.confirmed {
		latest, err := d.log.newest(ctx, id, leader)
		if err != nil {
			return false, err
		}
		if latest.Position < d.newest.Position {
			// The leader was replaced, and does not know it yet.
			if err := d.pause.wait(ctx); err != nil {
				return false, unavailable("session "+id, err)
			}
			return false, nil
		}
		d.confirmed = true
		if latest.Position > d.newest.Position {
			d.newest = latest
			return false, nil
		}
	}
	if err := d.log.Durable(ctx, d.newest.Position); err != nil {
		return false, unavailable("session "+id, err)
	}
	if d.newest.Position > 0 {
		d.log.cache.put(d.newest, d.connection)
	}
	return true, nil
}

// repeat returns the result of the write whose last event has the request's key.
func (d *decision) repeat(ctx context.Context, last *domain.Record, digest string) (domain.Result, error) {
	if last.Request.Digest != digest {
		return domain.Result{}, domain.ErrKeyReused
	}
	before, err := d.keys.sessionBefore(ctx, last)
	d.log.counters.replays.Add(1)
	return domain.Result{Record: last, Before: before}, err
}

// A keySearch looks for a request key in a history, and remembers how far it has searched.
type keySearch struct {
	log      *Log
	key      string
	searched uint64 // up to this position the key does not occur
	events   int    // that were searched
}

// find returns the last event of the write that carries the key, nil if there is none up to
// newest. All events of a write carry its key, so the first one on the way back is the last.
func (s *keySearch) find(ctx context.Context, newest *domain.Record) (*domain.Record, error) {
	if s.key == "" || newest.Position <= s.searched {
		return nil, nil
	}
	for r, err := range s.log.walk(ctx, newest) {
		if err != nil {
			return nil, err
		}
		if r.Position <= s.searched {
			break
		}
		if s.events++; s.events > maxKeySearch {
			return s.findFirst(ctx, newest.Event.Session.ID)
		}
		if r.Request.Key == s.key {
			return r, nil
		}
	}
	s.searched = newest.Position
	return nil, nil
}

// findFirst looks for the key in the write that created the session. That key determined the
// session's id, so it is found however long the history is.
func (s *keySearch) findFirst(ctx context.Context, id string) (*domain.Record, error) {
	last, err := s.log.firstFrom(ctx, id, 1)
	if err != nil {
		return nil, err
	}
	if last.Request.Key != s.key {
		return nil, fmt.Errorf("session %s: %w (%d)", id, domain.ErrHistoryTooLong, maxKeySearch)
	}
	for { // the events of a write are adjacent
		next, err := s.log.at(ctx, last.Position+1)
		if err != nil {
			return nil, err
		}
		if next.Request.SessionID != id || next.Request.Key != s.key {
			return last, nil
		}
		last = next
	}
}

// sessionBefore returns the session on which the write that ends with an event was decided.
func (s *keySearch) sessionBefore(ctx context.Context, last *domain.Record) (*domain.Session, error) {
	for r, err := range s.log.walk(ctx, last) {
		if err != nil {
			return nil, err
		}
		if r.Request.Key != s.key {
			return &r.Event.Session, nil
		}
	}
	return &domain.Session{}, nil
}
