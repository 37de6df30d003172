package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"chatsessions/domain"
)

// An errand is what a client wants, with the key under which he asks for it.
type errand struct {
	session     string
	creates     bool // the session's id was made for it
	key, digest string
	command     func(now int64) domain.Command
	what        string
}

// An attempt is one request for an errand: one call of Transact.
type attempt struct {
	*errand
	name    string // its correlation id: the log says which attempt wrote
	node    *Log
	command domain.Command
	cancel  context.CancelFunc

	called, returned time.Time
	// lastDeposed is the deposition of the leader that was asked last for the newest event,
	// nil for a leader that was one. A deposed one does not know what came after it,
	// and nobody can tell by its answer.
	lastDeposed *deposition
	result      domain.Result
	err         error
	lost        bool   // its node died first
	synced      uint64 // what was on disk when it returned
	state       *state // on which it was refused, or found nothing to do; examined
}

type attemptKey struct{}

// definite says whether the client knows what became of it.
func (a *attempt) definite() bool {
	return !a.lost && !errors.Is(a.err, domain.ErrOutcomeUnknown) && !errors.Is(a.err, domain.ErrUnavailable)
}

// position returns the position that was answered, 0 for an answer without one.
func (a *attempt) position() uint64 {
	if a.result.Record == nil {
		return 0
	}
	return a.result.Record.Position
}

func (a *attempt) String() string {
	outcome := "no record"
	if r := a.result.Record; r != nil {
		outcome = fmt.Sprintf("version %d at %d", r.Event.Session.Version, r.Position)
	}
	if a.err != nil {
		outcome += ", " + a.err.Error()
	}
	if a.lost {
		outcome = "lost with its node"
	}
	return fmt.Sprintf("%s (%s, session %s): %s", a.name, a.what, a.session, outcome)
}

// try makes one attempt; it takes mu itself.
func (w *world) try(e *errand, timeout time.Duration) *attempt {
	w.mu.Lock()
	n := w.someNode()
	if n == nil {
		w.mu.Unlock()
		return nil
	}
	a := &attempt{errand: e, name: fmt.Sprint("attempt-", len(w.attempts)), node: n.log, called: time.Now()}
	a.command = e.command(a.called.UnixMilli())
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), attemptKey{}, a), w.unique(timeout))
	defer cancel()
	a.cancel = cancel
	w.attempts = append(w.attempts, a)
	n.running = append(n.running, a)
	w.note("%s begins on node %d: %s, session %s, key %q, digest %q", a.name, n.index, e.what, e.session, e.key, e.digest)
	w.mu.Unlock()

	req := domain.Request{SessionID: e.session, New: e.creates, Actor: "pat", CorrelationID: a.name, Key: e.key, Digest: e.digest}
	result, err := a.node.Transact(ctx, req, func(s domain.Session) ([]domain.Event, error) {
		return domain.Decide(s, a.command)
	})

	w.mu.Lock()
	defer w.mu.Unlock()
	a.result, a.err, a.returned, a.synced = result, err, time.Now(), w.log.synced
	n.ended(a)
	w.note("%s", a)
	return a
}

// pursue carries out an errand as a client with a key may: again until he knows,
// and twice at once. It takes mu itself.
func (w *world) pursue(e *errand) {
	w.mu.Lock()
	twice, pause := e.key != "" && w.chance(20), w.unique(w.between(0, w.pace/10))
	w.mu.Unlock()
	var twin sync.WaitGroup
	if twice {
		twin.Go(func() {
			time.Sleep(pause) // drawn before: two goroutines go on from here
			w.insist(e)
		})
	}
	w.insist(e)
	twin.Wait()
	w.mu.Lock()
	repeat, other := e.key != "" && w.chance(20), e.key != "" && w.chance(10)
	w.mu.Unlock()
	if repeat {
		w.sleep(0, w.pace)
		w.insist(e)
	}
	if other {
		w.sleep(0, w.pace)
		w.insist(&errand{
			session: e.session, creates: e.creates, key: e.key, digest: "other body", what: "another body",
			command: func(now int64) domain.Command {
				if e.creates {
					return creation(e.session, now, domain.Values{Room: ptr("other")})
				}
				return change(now, ptr("other"), nil)
			},
		})
	}
}

func (w *world) insist(e *errand) {
	for range 4 {
		w.mu.Lock()
		timeout := w.between(100*time.Millisecond, 6*time.Second)
		w.mu.Unlock()
		a := w.try(e, timeout)
		if a != nil && (a.definite() || e.key == "") {
			return
		}
		w.sleep(time.Millisecond, 2*time.Second)
	}
}

// clients sends all clients and returns when they are done. It takes mu itself.
func (w *world) clients() {
	w.mu.Lock()
	errands := make([][]*errand, 2+w.rng.IntN(3))
	sessions := 1 + w.rng.IntN(3)
	for s := range sessions {
		c := w.rng.IntN(len(errands))
		errands[c] = append(errands[c], w.create(fmt.Sprint("session-", s)))
	}
	for c := range errands {
		for range 1 + w.rng.IntN(4) {
			errands[c] = append(errands[c], w.change(fmt.Sprint("session-", w.rng.IntN(sessions))))
		}
	}
	pauses := make([]time.Duration, len(errands))
	for c := range pauses {
		pauses[c] = w.unique(w.between(0, w.pace))
	}
	w.mu.Unlock()
	var all sync.WaitGroup
	for c, mine := range errands {
		all.Go(func() {
			time.Sleep(pauses[c])
			for _, e := range mine {
				w.pursue(e)
				w.sleep(0, w.pace)
			}
		})
	}
	all.Wait()
}

// create draws a session's creation, with a key mostly.
func (w *world) create(session string) *errand {
	e := &errand{session: session, creates: true, what: "create"}
	w.addKey(e, 80)
	stamps := 0
	if w.chance(40) { // an import: several events in one write
		stamps = 1 + w.rng.IntN(3)
		e.what = fmt.Sprintf("create with %d stamps", stamps)
	}
	e.command = func(now int64) domain.Command {
		var v domain.Values
		for _, t := range []domain.Transition{domain.Start, domain.Accept, domain.Finish}[:stamps] {
			v.Stamps[t].By = ptr("doc")
		}
		return creation(session, now, v)
	}
	return e
}

// change draws a change: details, directives, both, or for a certain version only.
// Many are refused, some change nothing.
func (w *world) change(session string) *errand {
	e := &errand{session: session}
	w.addKey(e, 60)
	var room *string
	var directives []domain.Transition
	if w.chance(60) {
		room = ptr(string(rune('a' + w.rng.IntN(3))))
		e.what = "room " + *room + " "
	}
	if room == nil || w.chance(30) {
		start := w.rng.IntN(3)
		directives = [][]domain.Transition{
			{domain.Start}, {domain.Start, domain.Accept}, {domain.Start, domain.Reject, domain.Finish},
			{domain.Accept}, {domain.Reject}, {domain.Accept, domain.Finish}, {domain.Finish},
		}[start+w.rng.IntN(5)]
		for _, d := range directives {
			e.what += d.String() + " "
		}
	}
	var condition func(uint64) bool
	if w.chance(25) {
		version := uint64(1 + w.rng.IntN(6))
		condition = func(v uint64) bool { return v == version }
		e.what += fmt.Sprintf("if version %d", version)
	}
	e.what = strings.TrimSpace(e.what)
	e.command = func(now int64) domain.Command {
		c := change(now, room, directives)
		c.Condition = condition
		return c
	}
	return e
}

func (w *world) addKey(e *errand, percent int) {
	e.digest = "body"
	if w.chance(percent) {
		e.key = fmt.Sprint("key-", len(w.errands))
		w.errands = append(w.errands, e)
	}
}

func creation(session string, now int64, v domain.Values) domain.Create {
	return domain.Create{ID: session, By: domain.Caller{Account: "pat", Role: domain.RoleService}, Now: now, Values: v}
}

func change(now int64, room *string, directives []domain.Transition) domain.Change {
	c := domain.Change{By: domain.Caller{Account: "doc", Role: domain.RoleService}, Now: now, Values: domain.Values{Room: room}}
	for _, d := range directives {
		c.Directives[d].Asked = true
	}
	return c
}

func ptr[T any](v T) *T { return &v }
