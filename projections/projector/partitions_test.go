package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

func silent(partitions int) Options {
	return Options{Logger: slog.New(slog.DiscardHandler), Partitions: partitions}
}

func TestEverySessionIsInThePartitionOfItsID(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{3, 4} {
			modeltest.Empty(t, rdb)
			log := logtest.New("log")
			for n := range 50 { // some are there before, and some come later
				log.Append(logtest.Session(n, int64(n)))
			}
			r := newRigOf(t, rdb, log, partitions)
			r.caughtUp()
			for n := range 100 {
				log.Append(logtest.Session(n, int64(n), logtest.Version(2)))
			}
			r.mustBeWhole()
			held := 0
			for _, part := range r.parts {
				space := modeltest.Live(t, rdb, part)
				members := rdb.ZRange(t.Context(), space.Index(layout.IndexAll), 0, -1).Val()
				if len(members) == 0 {
					t.Errorf("partition %d of %d is empty", part.Number, partitions)
				}
				held += len(members)
				for _, member := range members {
					_, is := layout.MemberPlace(member)
					if layout.PartitionNumber(is, partitions) != part.Number || rdb.Exists(t.Context(), space.Document(is)).Val() != 1 {
						t.Errorf("session %s is in partition %d of %d", is, part.Number, partitions)
					}
				}
				if c, _ := layout.ParseCheckpoint(rdb.Get(t.Context(), part.Checkpoint()).Val()); c.Position != 150 {
					t.Errorf("partition %d of %d is at %d", part.Number, partitions, c.Position)
				}
			}
			if held != 100 {
				t.Errorf("the partitions hold %d sessions", held)
			}
			for n := range 100 {
				got, err := r.Get(t.Context(), logtest.ID(n), "alice")
				if err != nil || got.Version != 2 || !got.Visible {
					t.Errorf("session %d: version %d, %v", n, got.Version, err)
				}
			}
			if _, err := r.Get(t.Context(), logtest.ID(999), ""); !errors.Is(err, domain.ErrNotFound) {
				t.Errorf("no session: %v", err)
			}
			r.projector.End()
		}
	})
}

// Whatever the histories, wherever batches are cut, and whichever partitions a projector
// got through with before it died, the partitions hold what they would from scratch.
func TestIncrementalProjectionIntoPartitionsEqualsOneFromScratch(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		rapid.Check(t, func(rt *rapid.T) {
			ctx := context.Background()
			modeltest.Empty(t, rdb)
			log := logtest.New("log")
			log.Append(logtest.Histories(rt)...)
			tellBefore(rt, log.Events)
			p := New(rdb, logtest.New("log"), silent(3)) // what there is comes in batches
			logtest.MustRun(t, p.begins(ctx))
			p.log = log
			for rest := log.Events; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
				if rapid.IntRange(0, 2).Draw(rt, "dies between partitions") == 0 {
					only := p.writers[:1:1]
					for _, w := range p.writers[1:] {
						if rapid.Bool().Draw(rt, "gets there") {
							only = append(only, w)
						}
					}
					logtest.MustRun(t, p.withTransactions(ctx, only, func() error {
						for _, w := range only {
							var documents []*layout.Document
							for i := range rest[:n] {
								if d := p.documentOf(&rest[i]); layout.PartitionNumber(d.ID, 3) == w.keys.Partition.Number {
									documents = append(documents, d)
								}
							}
							logtest.MustRun(t, w.apply(ctx, documents, &rest[n-1]))
						}
						return nil
					}))
					p = New(rdb, log, silent(3))
					logtest.MustRun(t, p.begins(ctx))
					rest = log.Events[p.position():]
					continue
				}
				logtest.MustRun(t, p.applyAlone(ctx, rest[:n]))
				rest = rest[n:]
			}
			modeltest.SameKeys(rt, modeltest.DumpOf(t, rdb, 3), scratchOf(t, log, 3))
		})
	})
}

func TestARestartGoesOnFromTheCheckpointsOfAllPartitions(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 20, 3)
		var before []layout.Keyspace
		for _, part := range w.parts {
			before = append(before, modeltest.Live(t, rdb, part))
		}
		w.projector.End()
		for n := range 20 {
			w.log.Append(logtest.Session(n, int64(n), logtest.Version(2)))
		}
		w.project()
		w.mustBeWhole()
		for i, part := range w.parts {
			if modeltest.Live(t, rdb, part) != before[i] {
				t.Errorf("partition %d was built anew", i)
			}
		}
	})
}

// Of two projectors only one gets beyond the first partition.
func TestAProjectorThatIsLateWritesNoPartition(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		p, late := New(rdb, logtest.New("log"), silent(3)), New(rdb, logtest.New("log"), silent(3))
		logtest.MustRun(t, p.begins(ctx))
		logtest.MustRun(t, late.begins(ctx))
		log := logtest.New("log")
		for n := range 20 {
			log.Append(logtest.Session(n, int64(n)))
		}
		logtest.MustRun(t, late.withTransactions(ctx, late.writers, func() error {
			logtest.MustRun(t, p.applyAlone(ctx, log.Events[:10]))
			before := modeltest.DumpOf(t, rdb, 3)
			for range 2 {
				if err := late.apply(ctx, late.writers, log.Events); !errors.Is(err, errDeposed) {
					t.Errorf("got %v, want %v", err, errDeposed)
				}
				modeltest.SameKeys(t, modeltest.DumpOf(t, rdb, 3), before)
			}
			return nil
		}))
		logtest.MustRun(t, p.applyAlone(ctx, log.Events[10:]))
		modeltest.SameKeys(t, modeltest.DumpOf(t, rdb, 3), scratchOf(t, log, 3))
	})
}

// However often projectors take the place of one another, no partition is left alone.
func TestProjectorsThatComeAndGoKeepAllPartitionsUpToDate(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 40, 4)
		w.live(true)
		at := []*logtest.Running{w.projector, w.project()}
		for round := range 20 {
			i := rand.IntN(len(at))
			at[i].End()
			at[i] = w.project()
			if round%7 == 0 {
				modeltest.Empty(t, rdb)
			}
			position := w.log.Append(logtest.Session(rand.IntN(40), 1, logtest.Version(1<<40)))
			mustWait(t, w.ReadModel, position)
			mustWait(t, w.other, position)
		}
		w.rest()
		w.mustBeWhole()
	})
}

func TestAPartitionThatIsLostIsBuiltAnewAndTheOthersAreNot(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 40, 3)
		for what, text := range map[string]string{
			"lost": "", "damaged": "damaged", "of another log": "other 9 g p0 e", "beyond the log's end": "log 999999 g p0 e",
			"half filled": "log 0 g f7",
		} {
			before := modeltest.Checkpoints(t, rdb, 3)
			hit := rand.IntN(3)
			if text == "" {
				logtest.MustRun(t, rdb.Del(t.Context(), w.parts[hit].Checkpoint()).Err())
			} else {
				logtest.MustRun(t, rdb.Set(t.Context(), w.parts[hit].Checkpoint(), text, 0).Err())
			}
			logtest.Eventually(t, what+": there is another one", func() bool {
				c, ok := layout.ParseCheckpoint(modeltest.Checkpoints(t, rdb, 3)[hit])
				return ok && c.Identity == "log" && c.Generation != "g"
			})
			position := w.log.Append(logtest.Session(1, 1, logtest.Version(w.answered[1].Add(1))))
			mustWait(t, w.ReadModel, position)
			w.caughtUp()
			w.mustAnswer()
			modeltest.SameKeys(t, modeltest.DumpOf(t, rdb, 3), scratchOf(t, w.log, 3))
			for i, text := range modeltest.Checkpoints(t, rdb, 3) {
				was, _ := layout.ParseCheckpoint(before[i])
				is, _ := layout.ParseCheckpoint(text)
				if built := was.Generation != is.Generation; built != (i == hit) {
					t.Errorf("%s: partition %d was built anew: %v; it hit %d", what, i, built, hit)
				}
			}
		}
		modeltest.MustHaveOneGeneration(t, rdb, w.parts)
	})
}

// One partition is behind: its sessions are not answered, the others' are.
func TestAPartitionThatIsBehindDoesNotHideTheOthers(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 40, 3)
		w.projector.End()
		behind := w.parts[1]
		old := rdb.Get(t.Context(), behind.Checkpoint()).Val()
		logtest.MustRun(t, rdb.Set(t.Context(), behind.Checkpoint(), strings.Replace(old, " 40 ", " 39 ", 1), 0).Err())
		asked := false
		for n := range 40 {
			if layout.PartitionNumber(logtest.ID(n), 3) != behind.Number {
				if _, err := w.Get(t.Context(), logtest.ID(n), ""); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
			} else if !asked {
				asked = true // one is enough: it takes a second
				_, err := w.Get(t.Context(), logtest.ID(n), "")
				if !errors.Is(err, domain.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "at position 39") {
					t.Errorf("session %d: %v", n, err)
				}
			}
		}
	})
}
