package audit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// VerifyOptions are what a verification needs.
type VerifyOptions struct {
	Partitions int // as ProjectorOptions.Partitions
	// Load returns a session's newest event, as the log's leader has it, as
	// eventstore.Log.Load does.
	Load func(ctx context.Context, id string) (*domain.Record, error)
	// Event returns the event at a position, as eventstore.Log.Event does.
	Event func(ctx context.Context, position uint64) (*domain.Record, error)
	// Difference, where it is set, is told each difference between the read model and the
	// log; its error ends the verification.
	Difference func(Difference) error
	// Parked, where it is set, is told each session that is parked, as it has to be: the
	// log has something of it that cannot be shown.
	Parked func(layout.Parked) error
	// Progress, where it is set, is told how far a stage is, now and then, in keys of
	// Redis. total is 0 where it is not known.
	Progress func(s VerifyStage, done, total uint64)
	// Pace, where it is set, is called before so many more keys are looked at.
	Pace func(ctx context.Context, n int) error

	patience time.Duration // doubtPatience, or a test's
}

// A VerifyStage is what a verification is doing once all sessions were compared.
type VerifyStage int

// The stages, in their order.
const (
	CountingKeys VerifyStage = iota
	CheckingKeys             // only where their numbers leave a doubt
)

// A Verified is what came of a verification.
type Verified struct {
	Differences uint64
	Parked      uint64 // sessions that are parked as they have to be
}

const (
	// verifyBatch is how many sessions are looked up at once: a millisecond of Redis.
	verifyBatch = 256
	// verifyKeys is how many keys one script looks at, about.
	verifyKeys = 256
	// shortIndex is how many members an index may have that a script returns as a whole.
	shortIndex = 64
	// maxTold bounds what is remembered so that it is told once.
	maxTold = 100_000
)

// A Verification compares the read model that answers with the log: each session's newest
// event with its document and its index entries, and the other way round, whether there
// are documents and entries that the log does not account for. It writes nothing, and its
// memory does not grow with the log. Log and read model may go on meanwhile: what differs
// at first sight is looked at again when the read model has reached the session's newest
// event.
type Verification struct {
	VerifyOptions
	rdb       redis.UniversalClient
	log       projections.Log
	end       uint64 // of the log when this began
	parts     []*verified
	meanwhile *touched
	seed      maphash.Seed
	told      map[Difference]struct{}
	done      Verified

	batches chan []domain.Entry // to be compared
	ended   chan struct{}       // closed when no more are
	err     error               // why, once that is so
	count   count
	stop    func()
}

// NewVerification begins to verify the read model. It returns an error where there is
// none that can be compared: no read model, a PartitionsError, ErrOtherLog, or one that
// is being filled. Close ends it.
func NewVerification(ctx context.Context, rdb redis.UniversalClient, log projections.Log, opts VerifyOptions) (*Verification, error) {
	v := &Verification{
		VerifyOptions: opts, rdb: rdb, log: log, seed: maphash.MakeSeed(), told: map[Difference]struct{}{},
		batches: make(chan []domain.Entry, 1), ended: make(chan struct{}), count: count{ended: make(chan struct{})},
	}
	if v.Pace == nil {
		v.Pace = func(context.Context, int) error { return nil }
	}
	if v.patience == 0 {
		v.patience = doubtPatience
	}
	if v.Difference == nil {
		v.Difference = func(Difference) error { return nil }
	}
	if v.Parked == nil {
		v.Parked = func(layout.Parked) error { return nil }
	}
	if v.Progress == nil {
		v.Progress = func(VerifyStage, uint64, uint64) {}
	}
	if err := v.open(ctx); err != nil {
		return nil, fmt.Errorf("verify the read model: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	v.meanwhile = v.touches(ctx, v.end)
	go func() {
		defer close(v.ended)
		v.err = v.compareAll(ctx)
	}()
	go func() { // at the same time: Redis has a processor of its own
		defer close(v.count.ended)
		v.count.err = v.countAll(ctx)
	}()
	v.stop = func() {
		cancel()
		<-v.ended
		<-v.count.ended
		<-v.meanwhile.ended
	}
	return v, nil
}

// Close ends the verification, wherever it is.
func (v *Verification) Close() { v.stop() }

// Compare compares sessions of the log with what the read model has of them. A session
// is compared as its newest event has left it; one that is handed over earlier too is
// recognised by its position. It returns before that is done, with the error, if any, of
// what was handed over before.
func (v *Verification) Compare(ctx context.Context, sessions []domain.Entry) error {
	select {
	case v.batches <- sessions:
		return nil
	case <-v.ended:
		return v.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *Verification) failure() error {
	if v.err == nil {
		return nil
	}
	return fmt.Errorf("verify the read model: %w", v.err)
}

// compareAll compares what it is handed until there will be no more.
func (v *Verification) compareAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case sessions, open := <-v.batches:
			if !open {
				return nil
			}
			parts := make([][]*domain.Entry, len(v.parts))
			for i := range sessions {
				shard := layout.PartitionNumber(sessions[i].Record.Event.Session.ID, len(parts))
				parts[shard] = append(parts[shard], &sessions[i])
			}
			for i, p := range v.parts {
				for batch := range slices.Chunk(parts[i], verifyBatch) {
					if err := p.compare(ctx, batch); err != nil {
						return err
					}
				}
			}
		}
	}
}

// Finish returns what came of it. Every session of the log has to have been handed over.
func (v *Verification) Finish(ctx context.Context) (Verified, error) {
	close(v.batches)
	<-v.ended
	if v.err != nil {
		return v.done, v.failure()
	}
	if err := v.finish(ctx); err != nil {
		return v.done, fmt.Errorf("verify the read model: %w", err)
	}
	return v.done, nil
}

func (v *Verification) finish(ctx context.Context) error {
	for _, p := range v.parts {
		if err := p.resolve(ctx); err != nil {
			return err
		}
	}
	if err := v.awaitCount(ctx); err != nil {
		return err
	}
	if err := v.meanwhile.await(ctx); err != nil {
		return err
	}
	for _, p := range v.parts {
		if err := p.reverse(ctx); err != nil {
			return err
		}
	}
	for _, p := range v.parts { // of one that was removed, nothing is left to be told
		if _, err := p.checkpoint(ctx); err != nil {
			return err
		}
	}
	return nil
}

// A verified is one partition of the read model, as it is verified.
type verified struct {
	*Verification
	keys     layout.Keyspace
	behind   bool // it does not reach the end of the log, which was told
	doubts   map[doubt]struct{}
	rightful tally // what is there, and the log accounts for
	found    tally // what is there
	suspect  bool  // some index is not of its kind, or not in order
}

// A tally sums up documents and index entries, each by a hash, in places by the hash of
// the session's id or of the index's name. Where two tallies differ, something is missing,
// or is there and should not be, or has come or gone in between.
type tally struct{ documents, entries []uint64 }

// tallyPlaces is how many places the tallies of all partitions have together for each of
// the two: 2 MB.
const tallyPlaces = 1 << 18

func newTally(partitions int) tally {
	places := tallyPlaces >> bits.Len(uint(partitions-1)) //nolint:gosec // at least one; a power of two
	return tally{make([]uint64, places), make([]uint64, places)}
}

func (t tally) places() int { return len(t.documents) }

// hash is of an id, of an index's name, or of a member.
func (v *Verification) hash(text string) uint64 { return maphash.String(v.seed, text) }

// addDocument adds a document.
func (t tally) addDocument(idHash uint64) { t.documents[idHash%uint64(len(t.documents))] += idHash }

// addEntry adds an index entry, a member of the index with a name.
func (t tally) addEntry(nameHash, memberHash uint64) {
	// The finalizer of SplitMix64, so that sums of entries differ where the entries do.
	h := nameHash ^ bits.RotateLeft64(memberHash, 32)
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	t.entries[nameHash%uint64(len(t.entries))] += h ^ h>>31
}

// open finds the generation of each partition that answers, once that has reached the end
// of the log.
func (v *Verification) open(ctx context.Context) (err error) {
	if v.end, err = v.log.End(ctx); err != nil {
		return err
	}
	for _, part := range layout.Partitions(v.Partitions) {
		c, err := projections.Answering(ctx, v.rdb, part)
		switch {
		case err != nil:
			return err
		case c.Identity != v.log.Identity():
			return fmt.Errorf("%w: %s, and the log is %s", projections.ErrOtherLog, c.Identity, v.log.Identity())
		case c.State != layout.Projected:
			return errors.New("the read model is being filled: try again when the service is ready")
		}
		p := &verified{Verification: v, keys: part.Keys(c.Generation), doubts: map[doubt]struct{}{}, rightful: newTally(max(v.Partitions, 1)), found: newTally(max(v.Partitions, 1))}
		held, err := projections.LogHolds(ctx, v.log, c)
		if err != nil {
			return err
		}
		if !held {
			if err := v.report(Difference{Position: c.Position, Detail: "the log does not hold the event up to which the read model was made: the log was restored from an older copy"}); err != nil {
				return err
			}
		}
		v.parts = append(v.parts, p)
		if err := p.reach(ctx, v.end); err != nil {
			return err
		}
	}
	return nil
}

// reach waits until the partition has reached a position, and tells when it does not.
func (p *verified) reach(ctx context.Context, position uint64) error {
	for since := time.Now(); !p.behind; {
		c, err := p.checkpoint(ctx)
		if err != nil || c.Position >= position {
			return err
		}
		if time.Since(since) > p.patience {
			return p.lags(c.Position, position)
		}
		if !projections.Pause(ctx, pollEvery) {
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
func (p *verified) checkpoint(ctx context.Context) (layout.Checkpoint, error) {
	text, err := projections.ReadText(ctx, p.rdb, p.keys.Checkpoint())
	if err != nil {
		return layout.Checkpoint{}, err
	}
	return p.parse(text)
}

func (p *verified) parse(text string) (layout.Checkpoint, error) {
	c, ok := layout.ParseCheckpoint(text)
	if !ok || c.Generation != p.keys.Generation || c.State != layout.Projected {
		return c, fmt.Errorf("the read model was made anew meanwhile (checkpoint %q): verify it again", text)
	}
	return c, nil
}

// isNews notes what is told, and says whether it was not told before.
func (v *Verification) isNews(d Difference) bool {
	_, known := v.told[d]
	if !known && len(v.told) < maxTold {
		v.told[d] = struct{}{}
	}
	return !known
}

func (v *Verification) report(d Difference) error {
	if !v.isNews(d) {
		return nil
	}
	v.done.Differences++
	return v.Difference(d)
}

func (v *Verification) park(parked layout.Parked) error {
	if !v.isNews(Difference{SessionID: parked.SessionID, Position: parked.Position, Detail: parked.Reason}) {
		return nil
	}
	v.done.Parked++
	return v.Parked(parked)
}

// compare compares some sessions with their documents, and notes in which indexes they
// belong.
func (p *verified) compare(ctx context.Context, sessions []*domain.Entry) error {
	documents := make([]*layout.Document, 0, len(sessions))
	keys := make([]string, 0, len(sessions))
	for _, r := range sessions {
		d, err := p.documentOf(r)
		if err != nil { // it is to be parked
			if err := p.doubt(ctx, doubt{id: r.Record.Event.Session.ID}); err != nil {
				return err
			}
			continue
		}
		keys, documents = append(keys, p.keys.Document(d.ID)), append(documents, d)
	}
	if len(documents) == 0 {
		return nil
	}
	texts, err := p.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return err
	}
	for i, text := range texts {
		if err := p.document(ctx, documents[i], text); err != nil {
			return err
		}
	}
	return nil
}

// document compares a document with what Redis has in its place. One of a later event is
// of another time that the session is handed over.
func (p *verified) document(ctx context.Context, d *layout.Document, text any) error {
	value, there := text.(string)
	if value == string(d.Value) {
		p.rightful.addDocument(p.hash(d.ID))
		member := p.hash(d.Member)
		for name := range d.Indexes() {
			p.rightful.addEntry(p.hash(name), member)
		}
		return nil
	}
	if there {
		if stored, err := layout.DecodeDocument(value); err == nil && stored.Position > d.Position && stored.Position <= p.end {
			later, err := p.Event(ctx, stored.Position)
			if err == nil && later.Event.Session.ID == d.ID {
				return nil
			}
			if err != nil && !errors.Is(err, domain.ErrUnreadable) && !errors.Is(err, domain.ErrUnavailable) {
				return err
			}
		}
	}
	return p.doubt(ctx, doubt{id: d.ID})
}

// documentOf returns what the read model has to hold of a session, or why it has to be
// parked.
func (v *Verification) documentOf(r *domain.Entry) (*layout.Document, error) {
	if r.Err != nil {
		return nil, r.Err
	}
	return layout.NewDocument(r)
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
