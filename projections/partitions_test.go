package projections

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
)

func silent(partitions int) ProjectorOptions {
	return ProjectorOptions{Logger: slog.New(slog.DiscardHandler), Partitions: partitions}
}

func TestEverySessionIsInThePartitionOfItsID(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{3, 4} {
			empty(t, rdb)
			log := newFakeLog("log")
			for n := range 50 { // some are there before, and some come later
				log.append(session(n, int64(n)))
			}
			r := newRigOf(t, rdb, log, partitions)
			r.caughtUp()
			for n := range 100 {
				log.append(session(n, int64(n), version(2)))
			}
			r.mustBeWhole()
			held := 0
			for _, part := range r.parts {
				space := servingOf(t, rdb, part)
				members := rdb.ZRange(t.Context(), space.index(indexAll), 0, -1).Val()
				if len(members) == 0 {
					t.Errorf("partition %d of %d is empty", part.shard, partitions)
				}
				held += len(members)
				for _, member := range members {
					_, is := placeOf(member)
					if shardOf(is, partitions) != part.shard || rdb.Exists(t.Context(), space.document(is)).Val() != 1 {
						t.Errorf("session %s is in partition %d of %d", is, part.shard, partitions)
					}
				}
				if c, _ := parseCheckpoint(rdb.Get(t.Context(), part.checkpoint()).Val()); c.position != 150 {
					t.Errorf("partition %d of %d is at %d", part.shard, partitions, c.position)
				}
			}
			if held != 100 {
				t.Errorf("the partitions hold %d sessions", held)
			}
			for n := range 100 {
				got, err := r.Get(t.Context(), id(n), "alice")
				if err != nil || got.Version != 2 || !got.Visible {
					t.Errorf("session %d: version %d, %v", n, got.Version, err)
				}
			}
			if _, err := r.Get(t.Context(), id(999), ""); !errors.Is(err, domain.ErrNotFound) {
				t.Errorf("no session: %v", err)
			}
			r.projector.end()
		}
	})
}

// Whatever the histories, wherever batches are cut, and whichever partitions a projector
// got through with before it died, the partitions hold what they would from scratch.
func TestIncrementalProjectionIntoPartitionsEqualsOneFromScratch(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		rapid.Check(t, func(rt *rapid.T) {
			ctx := context.Background()
			empty(t, rdb)
			log := newFakeLog("log")
			log.append(histories(rt)...)
			tellBefore(rt, log.events)
			p := NewProjector(rdb, newFakeLog("log"), silent(3)) // what there is comes in batches
			mustRun(t, p.begins(ctx))
			p.log = log
			for rest := log.events; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
				if rapid.IntRange(0, 2).Draw(rt, "dies between partitions") == 0 {
					only := p.lanes[:1:1]
					for _, l := range p.lanes[1:] {
						if rapid.Bool().Draw(rt, "gets there") {
							only = append(only, l)
						}
					}
					mustRun(t, p.withWriters(ctx, only, func() error {
						for _, l := range only {
							var documents []*document
							for i := range rest[:n] {
								if d := p.documentOf(&rest[i]); shardOf(d.id, 3) == l.keys.shard {
									documents = append(documents, d)
								}
							}
							mustRun(t, l.apply(ctx, documents, &rest[n-1]))
						}
						return nil
					}))
					p = NewProjector(rdb, log, silent(3))
					mustRun(t, p.begins(ctx))
					rest = log.events[p.position():]
					continue
				}
				mustRun(t, p.applyAlone(ctx, rest[:n]))
				rest = rest[n:]
			}
			sameKeys(rt, dumpOf(t, rdb, 3), scratchOf(t, log, 3))
		})
	})
}

func TestARestartGoesOnFromTheCheckpointsOfAllPartitions(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 20, 3)
		var before []keyspace
		for _, part := range w.parts {
			before = append(before, servingOf(t, rdb, part))
		}
		w.projector.end()
		for n := range 20 {
			w.log.append(session(n, int64(n), version(2)))
		}
		w.project()
		w.mustBeWhole()
		for i, part := range w.parts {
			if servingOf(t, rdb, part) != before[i] {
				t.Errorf("partition %d was built anew", i)
			}
		}
	})
}

// Of two projectors only one gets beyond the first partition.
func TestAProjectorThatIsLateWritesNoPartition(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		p, late := NewProjector(rdb, newFakeLog("log"), silent(3)), NewProjector(rdb, newFakeLog("log"), silent(3))
		mustRun(t, p.begins(ctx))
		mustRun(t, late.begins(ctx))
		log := newFakeLog("log")
		for n := range 20 {
			log.append(session(n, int64(n)))
		}
		mustRun(t, late.withWriters(ctx, late.lanes, func() error {
			mustRun(t, p.applyAlone(ctx, log.events[:10]))
			before := dumpOf(t, rdb, 3)
			for range 2 {
				if err := late.apply(ctx, late.lanes, log.events); !errors.Is(err, errDeposed) {
					t.Errorf("got %v, want %v", err, errDeposed)
				}
				sameKeys(t, dumpOf(t, rdb, 3), before)
			}
			return nil
		}))
		mustRun(t, p.applyAlone(ctx, log.events[10:]))
		sameKeys(t, dumpOf(t, rdb, 3), scratchOf(t, log, 3))
	})
}

// However often projectors take the place of one another, no partition is left alone.
func TestProjectorsThatComeAndGoKeepAllPartitionsUpToDate(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 40, 4)
		w.live(true)
		at := []*running{w.projector, w.project()}
		for round := range 20 {
			i := rand.IntN(len(at))
			at[i].end()
			at[i] = w.project()
			if round%7 == 0 {
				empty(t, rdb)
			}
			position := w.log.append(session(rand.IntN(40), 1, version(1<<40)))
			mustWait(t, w.ReadModel, position)
			mustWait(t, w.other, position)
		}
		w.rest()
		w.mustBeWhole()
	})
}

func TestAPartitionThatIsLostIsBuiltAnewAndTheOthersAreNot(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 40, 3)
		for what, text := range map[string]string{
			"lost": "", "damaged": "damaged", "of another log": "other 9 g p0 e", "beyond the log's end": "log 999999 g p0 e",
			"half filled": "log 0 g f7",
		} {
			before := checkpoints(t, rdb, 3)
			hit := rand.IntN(3)
			if text == "" {
				mustRun(t, rdb.Del(t.Context(), w.parts[hit].checkpoint()).Err())
			} else {
				mustRun(t, rdb.Set(t.Context(), w.parts[hit].checkpoint(), text, 0).Err())
			}
			eventually(t, what+": there is another one", func() bool {
				c, ok := parseCheckpoint(checkpoints(t, rdb, 3)[hit])
				return ok && c.identity == "log" && c.generation != "g"
			})
			position := w.log.append(session(1, 1, version(w.answered[1].Add(1))))
			mustWait(t, w.ReadModel, position)
			w.caughtUp()
			w.mustAnswer()
			sameKeys(t, dumpOf(t, rdb, 3), scratchOf(t, w.log, 3))
			for i, text := range checkpoints(t, rdb, 3) {
				was, _ := parseCheckpoint(before[i])
				is, _ := parseCheckpoint(text)
				if built := was.generation != is.generation; built != (i == hit) {
					t.Errorf("%s: partition %d was built anew: %v; it hit %d", what, i, built, hit)
				}
			}
		}
		mustHaveOneGeneration(t, rdb, w.parts)
	})
}

// One partition is behind: its sessions are not answered, the others' are.
func TestAPartitionThatIsBehindDoesNotHideTheOthers(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 40, 3)
		w.projector.end()
		behind := w.parts[1]
		old := rdb.Get(t.Context(), behind.checkpoint()).Val()
		mustRun(t, rdb.Set(t.Context(), behind.checkpoint(), strings.Replace(old, " 40 ", " 39 ", 1), 0).Err())
		asked := false
		for n := range 40 {
			if shardOf(id(n), 3) != behind.shard {
				if _, err := w.Get(t.Context(), id(n), ""); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
			} else if !asked {
				asked = true // one is enough: it takes a second
				_, err := w.Get(t.Context(), id(n), "")
				if !errors.Is(err, domain.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "at position 39") {
					t.Errorf("session %d: %v", n, err)
				}
			}
		}
	})
}
