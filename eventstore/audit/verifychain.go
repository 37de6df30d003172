package eventstore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"

	"chatsessions/domain"

	"golang.org/x/sync/errgroup"
)

// A lastState is what a verification knows of a session.
type lastState struct {
	position   uint64          // of its newest event that could be read
	session    *domain.Session // after it; nil if there was none
	folded     *domain.Session // to what that event's changes fold, where that is something else
	unreadable uint64          // position of its newest message that is no event
	between    uint64          // how many of these came since its newest event
	bytes      int             // that are counted of it
}

// recent keeps the states of the sessions that were written last, in two halves: when
// the newer one is full, the older one is dropped.
type recent struct {
	room         int // bytes of one half
	used         int
	newer, older map[string]*lastState
}

func newRecent(memory int) *recent {
	return &recent{room: memory / 2, newer: map[string]*lastState{}, older: map[string]*lastState{}}
}

// get returns nil for a session that is not known.
func (r *recent) get(id string) *lastState {
	if s, ok := r.newer[id]; ok {
		return s
	}
	return r.older[id]
}

// put keeps a state, and returns those that are dropped for it.
func (r *recent) put(id string, s *lastState) (dropped map[string]*lastState) {
	if known, ok := r.newer[id]; ok {
		r.used -= known.bytes
	}
	s.bytes = s.size(id)
	r.used += s.bytes
	r.newer[id] = s
	if r.used <= r.room {
		return nil
	}
	dropped = r.older
	for id := range r.newer {
		delete(dropped, id)
	}
	r.newer, r.older, r.used = make(map[string]*lastState, len(r.newer)), r.newer, 0
	return dropped
}

// size is about how many bytes it takes to keep a state.
func (s *lastState) size(id string) int {
	n := len(id) + 100
	for _, session := range []*domain.Session{s.session, s.folded} {
		if session != nil {
			n += int(weight(&domain.Record{Event: domain.Event{Session: *session}}))
		}
	}
	return n
}

// entry is the session as a state has it.
func (s *lastState) entry(id string) domain.Entry {
	if s.unreadable > s.position {
		return domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id}}, Position: s.unreadable}, Err: errNoEvent}
	}
	return domain.Entry{Record: &domain.Record{Event: domain.Event{Session: *s.session}, Position: s.position}}
}

// claims remembers which events have been named as the one before, and which sessions
// have been created, each by one bit or two in a table (a Bloom filter): it never
// forgets, and it may take one for another. The bigger the log, the more often it does;
// then the log is asked.
type claims struct {
	seed maphash.Seed
	bits []uint64
}

// claimWords is the size of the table: 32 MB. With ten million events, one claim in
// two hundred is looked up in vain.
const claimWords = 1 << 22

func newClaims(words int) claims { return claims{maphash.MakeSeed(), make([]uint64, words)} }

// places of an event's claim in the table.
func (c claims) places(r *domain.Record) (one, other uint64) {
	var h uint64
	if r.Previous == 0 {
		h = maphash.String(c.seed, r.Event.Session.ID)
	} else {
		h = maphash.Comparable(c.seed, r.Previous)
	}
	bits := uint64(len(c.bits)) * 64
	return h % bits, (h >> 32) % bits
}

func (c claims) add(r *domain.Record) {
	one, other := c.places(r)
	c.bits[one/64] |= 1 << (one % 64)
	c.bits[other/64] |= 1 << (other % 64)
}

// has says whether the claim may have been made before.
func (c claims) has(r *domain.Record) bool {
	one, other := c.places(r)
	return c.bits[one/64]&(1<<(one%64)) != 0 && c.bits[other/64]&(1<<(other%64)) != 0
}

// A looked is what the log says of an event's place in its session.
type looked struct {
	claimed *domain.Record // at the position to which ce-previous leads
	err     error          // why there is none
	// rival is an event of the session that makes the same claim: it follows the same
	// event, or comes before what should be the first. 0 for none.
	rival uint64
}

// lookups is how many questions the log is asked at once.
const lookups = 32

// lookUp asks the log about those of the events whose sessions are not known: nil for
// each of the others.
func (v *verification) lookUp(ctx context.Context, events []examined) ([]*looked, error) {
	all := make([]*looked, len(events))
	first := map[string]bool{}
	asking, ctx := errgroup.WithContext(ctx)
	asking.SetLimit(lookups)
	for i := range events {
		r := events[i].Record
		if r == nil || first[r.Event.Session.ID] {
			continue
		}
		first[r.Event.Session.ID] = true
		doubtful := v.claims.has(r)
		if v.newest.get(r.Event.Session.ID) != nil || r.Previous == 0 && !doubtful {
			continue
		}
		asking.Go(func() (err error) {
			all[i], err = v.ask(ctx, r, doubtful)
			return err
		})
	}
	return all, asking.Wait()
}

// ask asks the log about the place of an event; where its claim is doubtful, also for
// a rival.
func (v *verification) ask(ctx context.Context, r *domain.Record, doubtful bool) (*looked, error) {
	l := &looked{}
	if r.Previous > 0 {
		l.claimed, l.err = v.log.at(ctx, r.Previous)
		if err := ignoreMissing(l.err); err != nil {
			return nil, err
		}
	}
	if !doubtful {
		return l, nil
	}
	for from := r.Previous + 1; ; {
		m, err := v.log.get(ctx, leader, `{"seq":`+strconv.FormatUint(from, 10)+`,"next_by_subj":"`+subjectOf(r.Event.Session.ID)+`"}`)
		if err != nil {
			return nil, unavailable(fmt.Sprintf("the event behind %d", from-1), err)
		}
		if m.sequence >= r.Position {
			return l, nil
		}
		if other, err := decode(m); err == nil && (r.Previous == 0 || other.Previous == r.Previous) {
			l.rival = m.sequence
			return l, nil
		}
		from = m.sequence + 1
	}
}

// before returns the session before an event, nil where that cannot be told, and what
// is wrong with the way that leads there.
func (v *verification) before(ctx context.Context, r *domain.Record, known *lastState, l *looked) (before *domain.Session, wrong *domain.Defect, err error) {
	if r.Previous > 0 {
		switch {
		case r.Previous == known.position:
			return known.session, nil, nil
		case r.Previous == known.unreadable && known.between > 0: // told already
			return nil, nil, nil
		}
	} else if known.session != nil { // a second first event
		return known.session, nil, nil
	}
	doubtful := v.claims.has(r)
	if l == nil && (r.Previous > 0 || doubtful) {
		if l, err = v.ask(ctx, r, doubtful); err != nil {
			return nil, nil, err
		}
	}
	id := r.Event.Session.ID
	if r.Previous == 0 {
		if l == nil || l.rival == 0 {
			return &domain.Session{}, nil, nil
		}
		known, err = v.stateBefore(ctx, id, r.Position)
		if err != nil || known.session != nil {
			return known.session, nil, err
		}
		return nil, &domain.Defect{
			Kind: domain.DefectVersionRepeated, SessionID: id, Position: r.Position,
			Detail: fmt.Sprintf("the session was created at %d already", l.rival),
		}, nil
	}
	claims := fmt.Sprintf("%s leads to position %d", headerPrevious, r.Previous)
	defect := func(kind domain.DefectKind, detail string) *domain.Defect {
		return &domain.Defect{Kind: kind, SessionID: id, Position: r.Position, Detail: claims + ", " + detail}
	}
	isOwn := l.claimed != nil && l.claimed.Event.Session.ID == id
	switch {
	case !isOwn || l.claimed.Event.Session.Version+1 != r.Event.Session.Version:
	case l.rival > 0:
		return &l.claimed.Event.Session, defect(domain.DefectFork, fmt.Sprintf("which the event at %d follows already", l.rival)), nil
	default: // where known is something else, that was told
		return &l.claimed.Event.Session, nil, nil
	}
	if known, err = v.lastRead(ctx, r, known); err != nil {
		return nil, nil, err
	}
	var unreadable *UnreadableError
	if errors.As(l.err, &unreadable) && unreadable.SessionID == id &&
		(known.position < r.Previous || known.session.Version >= r.Event.Session.Version) {
		return nil, nil, nil // told when it was read
	}
	if isOwn && known.position == r.Previous {
		return known.session, nil, nil // the version is wrong
	}
	var where string
	switch {
	case isOwn:
		where = fmt.Sprintf("version %d of the session", l.claimed.Event.Session.Version)
	case l.claimed != nil:
		where = "an event of session " + l.claimed.Event.Session.ID
	case unreadable != nil:
		where = "a message that is not an event"
	default:
		where = "where there is no message"
	}
	instead := "and the session has no event before"
	if known.session != nil {
		instead = fmt.Sprintf("and the session's event before is at %d", known.position)
	}
	if known.between > 0 {
		return nil, defect(domain.DefectPrevious, where+", "+instead), nil
	}
	return known.session, defect(domain.DefectPrevious, where+", "+instead), nil
}

// foldedAt returns to what the changes of the event at a position fold, where that is
// not the session after it; else nil.
func (v *verification) foldedAt(ctx context.Context, position uint64, known *lastState) (*domain.Session, error) {
	if position == known.position {
		return known.folded, nil
	}
	r, err := v.log.at(ctx, position)
	if err != nil || r.Previous == 0 {
		return nil, ignoreMissing(err)
	}
	before, err := v.log.at(ctx, r.Previous)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	_, folded := domain.Check(&before.Event.Session, r)
	return folded, nil
}

// ignoreMissing returns an error that is trouble, nil for one that says that there is
// no such event.
func ignoreMissing(err error) error {
	if errors.Is(err, errNoMessage) || errors.Is(err, domain.ErrUnreadable) {
		return nil
	}
	return err
}

// maxUnreadable bounds how many messages that are no events are passed over to find the
// event before them.
const maxUnreadable = 100

// lastRead returns what is known of a session before an event, read again where it was
// forgotten.
func (v *verification) lastRead(ctx context.Context, r *domain.Record, known *lastState) (*lastState, error) {
	if known.session != nil {
		return known, nil
	}
	return v.stateBefore(ctx, r.Event.Session.ID, r.Position)
}

// stateBefore returns the session as its newest readable event before a position has left
// it.
func (v *verification) stateBefore(ctx context.Context, id string, position uint64) (*lastState, error) {
	s := &lastState{}
	for s.between < maxUnreadable && position > 1 {
		m, err := v.log.get(ctx, anyReplica, `{"multi_last":["`+subjectOf(id)+`"],"up_to_seq":`+strconv.FormatUint(position-1, 10)+`}`)
		if errors.Is(err, errNoMessage) {
			break
		}
		if err != nil {
			return nil, unavailable(fmt.Sprintf("session %s before position %d", id, position), err)
		}
		if r, err := decode(m); err == nil {
			s.position, s.session = r.Position, &r.Event.Session
			break
		}
		s.unreadable, s.between = max(s.unreadable, m.sequence), s.between+1 // told when it was read
		position = m.sequence
	}
	return s, nil
}
