package projections

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatsessions/domain"
)

// VerifyOptions are what a verification needs.
type VerifyOptions struct {
	Partitions int // as ProjectorOptions.Partitions
	// Load returns a session's newest event, as the log's leader has it, as
	// eventstore.Log.Load does.
	Load func(ctx context.Context, id string) (domain.Recorded, error)
	// Event returns the event at a position, as eventstore.Log.Event does.
	Event func(ctx context.Context, position uint64) (domain.Recorded, error)
	// Difference, where it is set, is told each difference between the read model and the
	// log; its error ends the verification.
	Difference func(Difference) error
	// Parked, where it is set, is told each session that is parked, as it has to be: the
	// log has something of it that cannot be shown.
	Parked func(Parked) error
	// Progress, where it is set, is told how far a stage is, now and then. total is 0
	// where it is not known.
	Progress func(s VerifyStage, done, total uint64)
	// Pace, where it is set, is called before so many more sessions, documents or keys are
	// looked at.
	Pace func(ctx context.Context, n int) error

	patience time.Duration // doubtPatience, or a test's
}

// A VerifyStage is what a verification is doing.
type VerifyStage int

// The stages, in their order.
const (
	CheckingSessions VerifyStage = iota // counted in positions of the log
	CountingKeys                        // counted in keys of Redis
	CheckingKeys                        // the same; only where their numbers leave a doubt
)

// A Verified is what came of a verification.
type Verified struct {
	Sessions    uint64 // in the log; one that was written meanwhile may count more than once
	Differences uint64
	Parked      uint64 // sessions that are parked as they have to be
}

const (
	// verifyBatch is how many sessions are looked up at once: a millisecond of Redis.
	verifyBatch = 128
	// verifyKeys is how many keys one script looks at, about.
	verifyKeys = 256
	// maxTold bounds what is remembered so that it is told once.
	maxTold = 100_000
)

// Verify compares the read model that answers with the log: each session's newest event
// with its document and its index entries, and the other way round, whether there are
// documents and entries that the log does not account for. It writes nothing, and its
// memory does not grow with the log. Log and read model may go on meanwhile: what
// differs at first sight is looked at again when the read model has reached the
// session's newest event.
//
// It returns an error where there is no read model that can be compared: none,
// ErrOtherLog, or one that is being filled.
func Verify(ctx context.Context, rdb redis.UniversalClient, log Log, opts VerifyOptions) (Verified, error) {
	v := &verification{
		VerifyOptions: opts, rdb: rdb, log: log, seed: maphash.MakeSeed(),
		told: map[Difference]struct{}{},
	}
	if v.patience == 0 {
		v.patience = doubtPatience
	}
	if v.Pace == nil {
		v.Pace = func(context.Context, int) error { return nil }
	}
	if v.Difference == nil {
		v.Difference = func(Difference) error { return nil }
	}
	if v.Parked == nil {
		v.Parked = func(Parked) error { return nil }
	}
	if v.Progress == nil {
		v.Progress = func(VerifyStage, uint64, uint64) {}
	}
	if err := v.run(ctx); err != nil {
		return v.done, fmt.Errorf("verify the read model: %w", err)
	}
	return v.done, nil
}

// A verification is one call of Verify.
type verification struct {
	VerifyOptions
	rdb   redis.UniversalClient
	log   Log
	parts []*verified
	seed  maphash.Seed
	told  map[Difference]struct{}
	done  Verified
}

// A verified is one partition of the read model, as it is verified.
type verified struct {
	*verification
	keys     keyspace
	behind   bool // it does not reach the end of the log, which was told
	doubts   map[doubt]struct{}
	rightful tally // what is there, and the log accounts for
}

// A tally counts documents and index entries, each in a place by the hash of the
// session's id or of the index's name. Where two tallies differ, something is there that
// should not be, or has come or gone in between.
type tally struct {
	documents, entries []int32
}

// tallyPlaces is how many places a tally has for each of the two: 2 MB.
const tallyPlaces = 1 << 18

func newTally() tally { return tally{make([]int32, tallyPlaces), make([]int32, tallyPlaces)} }

func (v *verification) place(text string) int {
	return int(maphash.String(v.seed, text) % tallyPlaces) //nolint:gosec // a small number
}

// open finds the generation of each partition that answers, and returns the end of the
// log, which they have reached.
func (v *verification) open(ctx context.Context) (end uint64, err error) {
	if end, err = v.log.End(ctx); err != nil {
		return 0, err
	}
	for _, part := range newPartitions(v.Partitions) {
		c, err := answering(ctx, v.rdb, part)
		switch {
		case err != nil:
			return 0, err
		case c.identity != v.log.Identity():
			return 0, fmt.Errorf("%w: %s, and the log is %s", ErrOtherLog, c.identity, v.log.Identity())
		case c.state != projected:
			return 0, errors.New("the read model is being filled: try again when the service is ready")
		}
		p := &verified{verification: v, keys: part.of(c.generation), doubts: map[doubt]struct{}{}, rightful: newTally()}
		held, err := holds(ctx, v.log, c)
		if err != nil {
			return 0, err
		}
		if !held {
			if err := v.report(Difference{Position: c.position, Detail: "the log does not hold the event up to which the read model was made: the log was restored from an older copy"}); err != nil {
				return 0, err
			}
		}
		v.parts = append(v.parts, p)
		if err := p.reach(ctx, end); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// reach waits until the partition has reached a position, and tells when it does not.
func (p *verified) reach(ctx context.Context, position uint64) error {
	for since := time.Now(); !p.behind; {
		c, err := p.checkpoint(ctx)
		if err != nil || c.position >= position {
			return err
		}
		if time.Since(since) > p.patience {
			return p.lags(c.position, position)
		}
		if !pause(ctx, pollEvery) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// lags tells once that the partition is not kept up to date.
func (p *verified) lags(reached, position uint64) error {
	if p.behind {
		return nil
	}
	p.behind = true
	return p.report(Difference{
		Position: reached,
		Detail:   fmt.Sprintf("the read model is at position %d, and the log at %d: is a projector at work? What it lacks is not told session by session", reached, position),
	})
}

// checkpoint reads the partition's checkpoint, which has to be of the same generation
// still.
func (p *verified) checkpoint(ctx context.Context) (checkpoint, error) {
	text, err := readText(ctx, p.rdb, p.keys.checkpoint())
	if err != nil {
		return checkpoint{}, err
	}
	return p.parse(text)
}

func (p *verified) parse(text string) (checkpoint, error) {
	c, ok := parseCheckpoint(text)
	if !ok || c.generation != p.keys.generation || c.state != projected {
		return c, fmt.Errorf("the read model was made anew meanwhile (checkpoint %q): verify it again", text)
	}
	return c, nil
}

// isNews notes what is told, and says whether it was not told before.
func (v *verification) isNews(d Difference) bool {
	_, known := v.told[d]
	if !known && len(v.told) < maxTold {
		v.told[d] = struct{}{}
	}
	return !known
}

func (v *verification) report(d Difference) error {
	if !v.isNews(d) {
		return nil
	}
	v.done.Differences++
	return v.Difference(d)
}

func (v *verification) park(parked Parked) error {
	if !v.isNews(Difference{SessionID: parked.SessionID, Position: parked.Position, Detail: parked.Reason}) {
		return nil
	}
	v.done.Parked++
	return v.Parked(parked)
}

func (v *verification) run(ctx context.Context) error {
	end, err := v.open(ctx)
	if err != nil {
		return err
	}
	meanwhile, stop := v.touches(ctx, end)
	defer stop()
	if err := v.sessions(ctx, end); err != nil {
		return err
	}
	for _, p := range v.parts {
		if err := p.resolve(ctx); err != nil {
			return err
		}
		if err := p.reverse(ctx, meanwhile); err != nil {
			return err
		}
	}
	return nil
}

// sessions compares every session of the log with what the read model has of it.
func (v *verification) sessions(ctx context.Context, end uint64) error {
	v.Progress(CheckingSessions, 0, end)
	batches := make(chan []domain.Recorded, 1) // one is read while another is compared
	working, ctx := errgroup.WithContext(ctx)
	working.Go(func() error {
		defer close(batches)
		_, err := v.log.Newest(ctx, verifyBatch, func(batch []domain.Recorded) error {
			if err := v.Pace(ctx, len(batch)); err != nil {
				return err
			}
			select {
			case batches <- batch:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		return err
	})
	working.Go(func() error {
		for batch := range batches {
			parts := make([][]*domain.Recorded, len(v.parts))
			for i := range batch {
				shard := shardOf(batch[i].Session.ID, len(parts))
				parts[shard] = append(parts[shard], &batch[i])
			}
			for i, p := range v.parts {
				if len(parts[i]) == 0 {
					continue
				}
				if err := p.compare(ctx, parts[i]); err != nil {
					return err
				}
			}
			v.done.Sessions += uint64(len(batch))
			v.Progress(CheckingSessions, min(batch[len(batch)-1].Position, end), end)
		}
		return nil
	})
	return working.Wait()
}

// compare compares some sessions, as their newest events left them.
func (p *verified) compare(ctx context.Context, newest []*domain.Recorded) error {
	keys, documents := make([]string, len(newest)), make([]*document, len(newest))
	members := map[string][]any{} // by index, with the sessions that belong there
	owners := map[string][]string{}
	for i, r := range newest {
		keys[i] = p.keys.document(r.Session.ID)
		d, err := p.documentOf(r)
		if err != nil { // it is to be parked
			if err := p.doubt(ctx, doubt{id: r.Session.ID}); err != nil {
				return err
			}
			continue
		}
		documents[i] = d
		var member any = d.member
		for name := range d.indexes() {
			members[name] = append(members[name], member)
			owners[name] = append(owners[name], d.id)
		}
	}
	trip := p.rdb.Pipeline()
	texts := trip.MGet(ctx, keys...)
	found := make(map[string]*redis.Cmd, len(members))
	for name, all := range members {
		found[name] = trip.Do(ctx, append([]any{"ZMSCORE", p.keys.index(name)}, all...)...)
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !isWrongType(err) {
		return err
	}
	for i, text := range texts.Val() {
		d := documents[i]
		if d == nil {
			continue
		}
		text, ok := text.(string)
		if ok {
			p.rightful.documents[p.place(d.id)]++
		}
		if text != string(d.value) {
			if err := p.doubt(ctx, doubt{id: d.id}); err != nil {
				return err
			}
		}
	}
	for name, cmd := range found {
		scores, err := cmd.Slice()
		if err != nil && !isWrongType(err) {
			return err
		}
		place := p.place(name)
		for i, id := range owners[name] {
			if i < len(scores) && scores[i] != nil {
				p.rightful.entries[place]++
				continue
			}
			if err := p.doubt(ctx, doubt{id: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// documentOf returns what the read model has to hold of a session, or why it has to be
// parked.
func (v *verification) documentOf(r *domain.Recorded) (*document, error) {
	if r.Unreadable != nil {
		return nil, r.Unreadable
	}
	return newDocument(r)
}

// isWrongType says whether a command failed because a key is not of its kind.
func isWrongType(err error) bool { return err != nil && strings.Contains(err.Error(), "WRONGTYPE") }

func (p *verified) doubt(ctx context.Context, d doubt) error {
	p.doubts[d] = struct{}{}
	if len(p.doubts) < maxDoubts {
		return nil
	}
	return p.resolve(ctx)
}
