package eventstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

// A written is what one attempt has in the log.
type written struct {
	records []*domain.Record
	before  *state
	at      time.Time
}

func (w *written) last() *domain.Record { return w.records[len(w.records)-1] }

// A state of a session was its newest from a time until another.
type state struct {
	position    uint64
	session     domain.Session
	from, until time.Time
}

// An examination compares what was answered with what the log has in the end. The
// log says when each write took place, so whether the answers are linearizable
// needs no search: each one is tied to a state, and has to be the answer that this
// state gives, and the state the newest at some time between call and return.
type examination struct {
	world  *world
	wrong  []string
	writes map[string]*written // by attempt
	keys   map[string]*written
	states map[string][]*state // by session, the oldest first
}

// examine returns everything that is wrong, when nothing goes on any more. It takes
// mu itself.
func (w *world) examine(final []*attempt) []string {
	w.mu.Lock()
	x := &examination{world: w, writes: map[string]*written{}, keys: map[string]*written{}, states: map[string][]*state{}}
	x.readLog()
	for _, a := range w.attempts {
		x.attempt(a)
	}
	for i, a := range w.attempts {
		x.sequel(a, w.attempts[i+1:])
	}
	for _, a := range final {
		if !a.definite() {
			x.complain("no trouble is left, and nothing definite: %s", a)
		}
	}
	w.mu.Unlock()
	x.readAgain()
	return x.wrong
}

func (x *examination) complain(format string, args ...any) {
	x.wrong = append(x.wrong, fmt.Sprintf(format, args...))
}

// readLog checks that the log is made of whole writes, each by one attempt, each
// what was to be decided on the session as it was, and no key twice.
func (x *examination) readLog() {
	attempts := map[string]*attempt{}
	for _, a := range x.world.attempts {
		attempts[a.name] = a
		if x.states[a.session] == nil {
			x.states[a.session] = []*state{{from: x.world.begin, until: x.world.begin.Add(1000 * time.Hour)}}
		}
	}
	var records []*domain.Record
	for _, e := range x.world.log.entries {
		r, err := envelope.Decode(&envelope.Message{Subject: e.subject, Sequence: e.sequence, Header: e.header, Data: e.data})
		if err != nil {
			x.complain("%v", err)
			return
		}
		records = append(records, r)
		if !e.last {
			continue
		}
		a := attempts[r.Request.CorrelationID]
		if a == nil || x.writes[a.name] != nil {
			x.complain("event %d is of a write that is there already, or of none: %q", r.Position, r.Request.CorrelationID)
			return
		}
		x.write(a, &written{records: records, at: e.at})
		records = nil
	}
}

func (x *examination) write(a *attempt, w *written) {
	history := x.states[a.session]
	w.before = history[len(history)-1]
	w.before.until = w.at
	x.states[a.session] = append(history, &state{
		position: w.last().Position, session: w.last().Event.Session, from: w.at, until: x.world.begin.Add(1000 * time.Hour),
	})
	x.writes[a.name] = w
	if a.key != "" {
		if x.keys[a.key] != nil {
			x.complain("%s is in the log twice, the second time by %s", a.key, a)
		}
		x.keys[a.key] = w
	}
	events, err := domain.Decide(w.before.session, a.command)
	if err != nil || len(events) != len(w.records) {
		x.complain("%d events, to be decided were %d (%v): %s", len(w.records), len(events), err, a)
		return
	}
	session, previous := w.before.session, w.before.position
	for i, r := range w.records {
		folded, err := domain.Apply(session, r.Event)
		if err != nil || !same(&folded, &r.Event.Session) || !same(&events[i].Session, &r.Event.Session) || r.Event.Type != events[i].Type {
			x.complain("event %d is not what was to be decided, or its changes are not its session (%v): %s", r.Position, err, a)
		}
		if r.Event.Session.Version != session.Version+1 || r.Previous != previous || r.Request.Key != a.key || r.Request.CorrelationID != a.name {
			x.complain("event %d does not follow version %d at %d: %s", r.Position, session.Version, previous, a)
		}
		session, previous = r.Event.Session, r.Position
	}
}

// attempt checks one answer.
func (x *examination) attempt(a *attempt) {
	w := x.writes[a.name]
	unknown, unavailable := errors.Is(a.err, domain.ErrOutcomeUnknown), errors.Is(a.err, domain.ErrUnavailable)
	switch {
	case a.lost:
		x.world.count("answer: lost with its node")
	case unknown && unavailable:
		x.complain("both unknown and not written: %s", a)
	case unknown:
		x.world.count("answer: unknown")
	case unavailable:
		x.world.count("answer: not written")
		if w != nil {
			x.complain("answered as not written, and in the log at %d: %s", w.last().Position, a)
		}
	case w != nil:
		x.world.count("answer: written")
		x.recorded(a, w)
	default:
		x.unwritten(a)
	}
}

// recorded checks an answer that is a write's.
func (x *examination) recorded(a *attempt, w *written) {
	r := &a.result
	switch {
	case a.err != nil:
		x.complain("refused, and in the log at %d: %s", w.last().Position, a)
	case r.Record.Position != w.last().Position || !same(&r.Record.Event.Session, &w.last().Event.Session) || w.at.After(a.returned):
		x.complain("the log has this write at %d, version %d: %s", w.last().Position, w.last().Event.Session.Version, a)
	case r.Before != nil && !same(r.Before, &w.before.session):
		x.complain("was decided on version %d, and says %d: %s", w.before.session.Version, r.Before.Version, a)
	}
	x.durable(a, w.last().Position)
}

// unwritten checks an answer without a write: a refusal, a no-op, or what another
// attempt with the key has written.
func (x *examination) unwritten(a *attempt) {
	earlier := x.keys[a.key]
	if earlier != nil && earlier.at.After(a.returned) {
		earlier = nil
	}
	switch {
	case errors.Is(a.err, domain.ErrKeyReused):
		x.world.count("answer: key reused")
		if earlier == nil || earlier.last().Request.Digest == a.digest {
			x.complain("the key was not used with another body: %s", a)
			return
		}
		x.durable(a, earlier.last().Position)
		return
	case a.err == nil && earlier != nil && earlier.last().Request.Digest == a.digest && a.result.Record.Position == earlier.last().Position:
		x.world.count("answer: repeated")
		if a.result.Before == nil {
			x.complain("does not say on what it was decided: %s", a)
		}
		x.recorded(a, earlier)
		return
	}
	s := x.stateAt(a.session, a.position())
	if s == nil || !same(&a.result.Record.Event.Session, &s.session) {
		x.complain("the session never was like that: %s", a)
		return
	}
	a.state = s
	since := a.called
	if a.lastDeposed != nil && a.lastDeposed.at.Before(since) && s.position <= uint64(a.lastDeposed.end) {
		x.world.count("told by a deposed leader")
		since = a.lastDeposed.at
	}
	if s.from.After(a.returned) || s.until.Before(since) {
		x.complain("the state at %d was the newest from %v until %v, not between %v and %v: %s", s.position,
			s.from.Sub(x.world.begin), s.until.Sub(x.world.begin), since.Sub(x.world.begin), a.returned.Sub(x.world.begin), a)
	}
	if earlier != nil && earlier.last().Position <= s.position {
		x.complain("%s was there, at %d: %s", a.key, earlier.last().Position, a)
	}
	events, err := domain.Decide(s.session, a.command)
	if len(events) > 0 || !reflect.DeepEqual(err, a.err) {
		x.complain("to be decided were %d events (%v): %s", len(events), err, a)
	}
	if err != nil {
		x.world.count("answer: refused")
	} else {
		x.world.count("answer: nothing to do")
	}
	x.durable(a, s.position)
}

// durable checks that nothing was told that was not on disk.
func (x *examination) durable(a *attempt, position uint64) {
	if x.world.faults.barrier && position > a.synced {
		x.complain("told event %d when %d was on disk: %s", position, a.synced, a)
	}
}

// sequel compares an answer with those to later calls.
func (x *examination) sequel(a *attempt, later []*attempt) {
	if a.lost || !a.definite() && x.writes[a.name] == nil {
		return
	}
	for _, b := range later {
		if b.called.Before(a.returned) || b.session != a.session || !b.definite() || x.writes[b.name] != nil {
			continue
		}
		if w := x.writes[a.name]; w != nil && a.key != "" && a.key == b.key && a.digest == b.digest && b.state != nil {
			// What was still on its way must not be written after its repetition was
			// answered otherwise. What a deposed leader does not know, it cannot say.
			if b.lastDeposed != nil {
				x.world.count("told by a deposed leader: refused, though written before under this key")
			} else {
				x.complain("written at %v, and its repetition was answered otherwise: %s; %s", w.at.Sub(x.world.begin), a, b)
			}
		}
		// A node does not fall back behind its own answers.
		if a.definite() && a.node == b.node && b.state != nil && b.state.position < a.position() {
			x.complain("the same node has answered with %d before: %s", a.position(), b)
		}
	}
}

func (x *examination) stateAt(session string, position uint64) *state {
	for _, s := range x.states[session] {
		if s.position == position {
			return s
		}
	}
	return nil
}

// readAgain reads every session the way that a service does.
func (x *examination) readAgain() {
	log := x.world.nodes[0].log
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, id := range slices.Sorted(maps.Keys(x.states)) {
		states := x.states[id]
		newest := states[len(states)-1]
		loaded, err := log.Load(ctx, id)
		if newest.position == 0 {
			if !errors.Is(err, domain.ErrNotFound) {
				x.complain("load of a session that is not there: %v", err)
			}
			continue
		}
		switch {
		case err != nil:
			x.complain("load of %s: %v", id, err)
		case loaded.Position != newest.position || !same(&loaded.Event.Session, &newest.session):
			x.complain("load of %s: version %d at %d", id, loaded.Event.Session.Version, loaded.Position)
		}
		version := newest.session.Version
		for r, err := range log.History(ctx, id) {
			if err != nil || r.Event.Session.Version != version {
				x.complain("history of %s at version %d: %v", id, version, err)
				break
			}
			version--
		}
		if version != 0 {
			x.complain("the history of %s begins after version %d", id, version)
		}
	}
	if end, err := log.End(ctx); err != nil || end != uint64(len(x.world.log.entries)) {
		x.complain("the log's end: %d, %v", end, err)
	}
}

func same(a, b *domain.Session) bool {
	return string(a.AppendJSON(nil)) == string(b.AppendJSON(nil))
}
