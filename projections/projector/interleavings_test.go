package projector

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

// An interleaving is what two projectors, a rebuild and Redis do, step by step, in some
// order. Each step that a projector or a rebuild takes may be its last.
type interleaving struct {
	t          *testing.T
	rt         *rapid.T
	rdb        redis.UniversalClient
	log        *logtest.Log
	partitions int
	projectors [2]*Projector // nil: not running
	builder    *Projector    // of a rebuild, nil: there is none
	newest     map[string]*domain.Session
}

var steps = map[string]func(*interleaving){
	"append":             (*interleaving).append,
	"append some more":   (*interleaving).append,
	"project":            (*interleaving).project,
	"project some more":  (*interleaving).project,
	"kill a projector":   func(i *interleaving) { i.projectors[i.drawProjector()] = nil },
	"begin a rebuild":    (*interleaving).beginRebuild,
	"go on rebuilding":   (*interleaving).goOnRebuilding,
	"finish the rebuild": (*interleaving).finishRebuild,
	"kill the rebuild":   func(i *interleaving) { i.builder = nil },
	"sweep":              (*interleaving).sweep,
	"flush":              func(i *interleaving) { modeltest.Empty(i.t, i.rdb) },
}

// Whatever projectors and rebuilds do beside each other, and wherever they are killed:
// what answers is always what the log was up to its checkpoint, and in the end the whole.
func TestHoweverRebuildsAndProjectorsInterleaveWhatAnswersIsRight(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		names := slices.Sorted(maps.Keys(steps))
		rapid.Check(t, func(rt *rapid.T) {
			modeltest.Empty(t, rdb)
			i := &interleaving{
				t: t, rt: rt, rdb: rdb, log: logtest.New("log"), newest: map[string]*domain.Session{},
				partitions: rapid.IntRange(1, 2).Draw(rt, "partitions"),
			}
			for range rapid.IntRange(5, 25).Draw(rt, "steps") {
				steps[rapid.SampledFrom(names).Draw(rt, "step")](i)
			}
			i.mustBeRight()
			i.projectors[0] = nil
			for !i.isDone() {
				i.project0(0, len(i.log.Events))
			}
			for _, part := range layout.Partitions(i.partitions) { // as the next rebuild does
				logtest.MustRun(t, rdb.Del(context.Background(), part.Next()).Err())
			}
			i.sweep()
			modeltest.SameKeys(rt, modeltest.DumpOf(t, rdb, i.partitions), scratchOf(t, i.log, i.partitions))
		})
	})
}

func (i *interleaving) drawProjector() int { return rapid.IntRange(0, 1).Draw(i.rt, "which") }

// append records an event of one of a few sessions. Some cannot be projected, and some
// tell of the session before.
func (i *interleaving) append() {
	for range rapid.IntRange(1, 3).Draw(i.rt, "events") {
		n := rapid.IntRange(1, 4).Draw(i.rt, "session")
		e := domain.Entry{Record: &domain.Record{Event: domain.Event{Session: logtest.Session(n, int64(n), logtest.Version(uint64(len(i.log.Events)+1)),
			logtest.Room(rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(i.rt, "room")),
			logtest.With(rapid.SampledFrom([]string{"alice", "bob", "carol"}).Draw(i.rt, "participant")))}}}
		switch rapid.IntRange(0, 9).Draw(i.rt, "kind") {
		case 0:
			e = domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: logtest.ID(n)}}}, Err: logtest.ErrNoEvent}
		case 1:
			e.Record.Event.Session.CreatedAt = -1
		}
		if e.Err == nil && rapid.Bool().Draw(i.rt, "tells before") {
			if e.Before = i.newest[logtest.ID(n)]; e.Before == nil {
				e.Before = &domain.Session{}
			}
		}
		if i.newest[logtest.ID(n)] = &e.Record.Event.Session; e.Err != nil {
			i.newest[logtest.ID(n)] = nil
		}
		if e.Before != nil && e.Before.ID == "" && i.knows(logtest.ID(n)) {
			e.Before = nil // what was before cannot be read
		}
		i.log.Record(e)
	}
}

func (i *interleaving) knows(id string) bool {
	return slices.ContainsFunc(i.log.Events, func(e domain.Entry) bool { return e.Record.Event.Session.ID == id })
}

func (i *interleaving) project() {
	i.project0(i.drawProjector(), rapid.IntRange(0, 5).Draw(i.rt, "events to project"))
}

// project0 lets a projector start, or else write some events.
func (i *interleaving) project0(which, events int) {
	ctx, p := context.Background(), i.projectors[which]
	if p == nil {
		p = New(i.rdb, i.log, silent(i.partitions))
		for _, part := range p.partitions {
			w, err := p.resume(ctx, part, true)
			if i.isOver(err) {
				return
			}
			p.writers = append(p.writers, w)
		}
		if i.isOver(p.withTransactions(ctx, p.writers, func() error { return p.fill(ctx, p.writers) })) {
			return
		}
		i.projectors[which] = p
		return
	}
	for _, part := range p.partitions {
		if _, ready, err := p.successor(ctx, part); err != nil || ready {
			logtest.MustRun(i.t, err)
			i.projectors[which] = nil // it begins anew, with that
			return
		}
	}
	rest := i.log.Events[p.position():]
	if rest = rest[:min(events, len(rest))]; len(rest) > 0 && i.isOver(p.applyAlone(ctx, rest)) {
		i.projectors[which] = nil
	}
}

// isOver says whether a projector or a rebuild has to begin anew, because of another one
// or of what happened to Redis. No other error may happen.
func (i *interleaving) isOver(err error) bool {
	if err != nil && !errors.Is(err, errDeposed) && !errors.Is(err, errUnexpected) {
		i.rt.Fatalf("got %v", err)
	}
	return err != nil
}

func (i *interleaving) beginRebuild() {
	ctx, b := context.Background(), New(i.rdb, i.log, silent(i.partitions))
	i.builder = nil
	for _, part := range b.partitions {
		found, err := projections.ReadText(ctx, i.rdb, part.Next())
		logtest.MustRun(i.t, err)
		w, err := b.begin(ctx, part, part.Next(), found)
		logtest.MustRun(i.t, err)
		b.writers = append(b.writers, w)
		if rapid.IntRange(0, 9).Draw(i.rt, "is killed") == 0 {
			return
		}
	}
	logtest.MustRun(i.t, b.withTransactions(ctx, b.writers, func() error { return b.fill(ctx, b.writers) }))
	i.builder = b
}

func (i *interleaving) goOnRebuilding() {
	if i.builder == nil {
		return
	}
	rest := i.log.Events[i.builder.position():]
	if rest = rest[:rapid.IntRange(0, len(rest)).Draw(i.rt, "events to rebuild")]; len(rest) > 0 {
		if i.isOver(i.builder.applyAlone(context.Background(), rest)) {
			i.builder = nil
		}
	}
}

func (i *interleaving) finishRebuild() {
	if i.builder == nil {
		return
	}
	b := &rebuild{opts: RebuildOptions{Progress: func(Stage, uint64, uint64) {}}, builder: i.builder}
	finished := i.builder.writers[:rapid.IntRange(1, i.partitions).Draw(i.rt, "partitions that it gets to")]
	i.isOver(i.builder.withTransactions(context.Background(), finished, func() error {
		return b.declareComplete(context.Background(), finished)
	}))
	i.builder = nil
}

func (i *interleaving) sweep() {
	for _, part := range layout.Partitions(i.partitions) {
		_, err := sweep(context.Background(), i.rdb, part, func(int64) error { return nil })
		logtest.MustRun(i.t, err)
	}
	i.mustBeRight()
}

// mustBeRight checks, for each partition that answers, that it holds what the log was up
// to its checkpoint.
func (i *interleaving) mustBeRight() {
	i.t.Helper()
	held := modeltest.DumpOf(i.t, i.rdb, i.partitions)
	for _, part := range layout.Partitions(i.partitions) {
		c, ok := layout.ParseCheckpoint(i.rdb.Get(context.Background(), part.Checkpoint()).Val())
		if !ok || c.State != layout.Projected {
			continue
		}
		until := logtest.New("log")
		until.Events = i.log.Events[:c.Position]
		prefix := string(rune('0'+part.Number)) + ": "
		of := func(all map[string]string) map[string]string {
			some := map[string]string{}
			for key, value := range all {
				if strings.HasPrefix(key, prefix) && !strings.HasPrefix(key, prefix+"of another") {
					some[key] = value
				}
			}
			return some
		}
		modeltest.SameKeys(i.rt, of(held), of(scratchOf(i.t, until, i.partitions)))
	}
}

// isDone says whether the first projector has adopted and projected all there is.
func (i *interleaving) isDone() bool {
	if i.projectors[0] == nil || i.projectors[0].position() < uint64(len(i.log.Events)) {
		return false
	}
	for _, part := range i.projectors[0].partitions {
		if _, ready, err := i.projectors[0].successor(context.Background(), part); err != nil || ready {
			return false
		}
	}
	return true
}
