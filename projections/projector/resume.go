package projector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// How often isRewritten asks for the log's end.
const (
	endAsked    = 3
	endAskEvery = 200 * time.Millisecond
)

// A standby takes over when the checkpoint has not moved for stallAfter although there is
// work.
const (
	stallAfter = time.Second
	stallEvery = 100 * time.Millisecond
	// fillStallAfter is the same for a generation that is being filled: the log first has
	// to find the newest event of every session.
	fillStallAfter = 15 * time.Second
)

// resume returns the writer of a partition, at the checkpoint to resume from. If there is
// no checkpoint, or one that does not belong to this log, it begins a new generation.
// takeOver says that no other projector is at work.
func (p *Projector) resume(ctx context.Context, part layout.Partition, takeOver bool) (*partitionWriter, error) {
	found, err := projections.ReadText(ctx, p.rdb, part.Checkpoint())
	if err != nil {
		return nil, err
	}
	identity := p.log.Identity()
	c, ok := layout.ParseCheckpoint(found)
	next, ready, err := p.successor(ctx, part)
	if err != nil {
		return nil, err
	}
	var rewritten string
	if ok && c.Identity == identity && (ready || c.State != layout.Filling) {
		if rewritten, err = p.isRewritten(ctx, c); err != nil {
			return nil, err
		}
	}
	if ready {
		lacks := uint64(0) // none, if the position belongs to another log or was lost
		if ok && c.Identity == identity && rewritten == "" {
			lacks = c.Position
		}
		return p.adopt(ctx, part, next, found, lacks)
	}
	switch {
	case found == "":
		p.logger.Info("there is no read model: building it", "log", identity)
	case !ok:
		p.logger.Error("the read model is damaged: rebuilding it", "log", identity, "checkpoint", found)
	case c.Identity != identity:
		p.logger.Error("the read model is of another log: rebuilding it", "log", identity, "checkpoint", found)
	case c.State == layout.Filling:
		if !takeOver && !p.began[c.Generation] {
			return nil, errDeposed
		}
		p.logger.Warn("the read model was left half filled: rebuilding it", "log", identity)
	case rewritten == "":
		return p.openPartition(ctx, part, part.Checkpoint(), c)
	default:
		p.logger.Error("the log was restored from an older copy, it lost events: rebuilding the read model",
			"log", identity, "checkpoint", c.Position, "found", rewritten)
	}
	return p.begin(ctx, part, part.Checkpoint(), found)
}

// isRewritten returns the evidence that the log does not hold what the read model was
// made from, "" for none. It asks several times for an end before the checkpoint: a leader
// that was just deposed may report an old end, and a rebuild is expensive.
func (p *Projector) isRewritten(ctx context.Context, c layout.Checkpoint) (sign string, err error) {
	var end uint64
	for range endAsked {
		if end, err = p.log.End(ctx); err != nil {
			return "", fmt.Errorf("ask for the end of the log: %w", err)
		}
		if end >= c.Position {
			held, err := projections.LogHolds(ctx, p.log, c)
			if err != nil || held {
				return "", err
			}
			return fmt.Sprintf("the event at %d is another one", c.Position), nil
		}
		if !projections.Pause(ctx, endAskEvery) {
			return "", ctx.Err()
		}
	}
	return fmt.Sprintf("the log ends at %d", end), nil
}

// begin replaces the checkpoint with that of a new, empty generation, and removes the
// generations that no checkpoint names.
func (p *Projector) begin(ctx context.Context, part layout.Partition, place, found string) (*partitionWriter, error) {
	c := layout.Checkpoint{Identity: p.log.Identity(), Generation: layout.NewGeneration(), State: layout.Filling}
	p.began[c.Generation] = true
	err := withTransaction(ctx, p.rdb, place, p.private, func(tx *transaction) error {
		change := change{keys: part.Keys(c.Generation), begins: true}
		if err := tx.commit(ctx, found, c, change); err != nil {
			return err
		}
		change.begins = false
		// The checkpoint keeps moving, so that standbys see work in progress.
		lastReport := time.Now()
		removed, err := sweep(ctx, p.rdb, part, func(int64) error {
			if time.Since(lastReport) < stallEvery {
				return nil
			}
			lastReport = time.Now()
			before := c.String()
			c = c.AfterFilling(1)
			return tx.commit(ctx, before, c, change)
		})
		if removed > 0 {
			p.logger.Info("removed unused read models", "keys", removed)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin a read model: %w", err)
	}
	return p.openPartition(ctx, part, place, c)
}

// successor returns the checkpoint of a generation that is ready to take over, if any.
func (p *Projector) successor(ctx context.Context, part layout.Partition) (next layout.Checkpoint, ready bool, err error) {
	text, err := projections.ReadText(ctx, p.rdb, part.Next())
	next, ok := layout.ParseCheckpoint(text)
	return next, ok && next.State == layout.Complete && next.Identity == p.log.Identity(), err
}

// adopt replaces the live generation, which is at a position, with its successor, and
// returns the successor's writer. The successor first catches up, so that no reader has to
// wait.
func (p *Projector) adopt(ctx context.Context, part layout.Partition, next layout.Checkpoint, found string, position uint64) (*partitionWriter, error) {
	w, err := p.openPartition(ctx, part, part.Next(), next)
	if err != nil {
		return nil, err
	}
	err = withTransaction(ctx, p.rdb, w.checkpointKey, p.private, func(tx *transaction) error {
		w.tx = tx
		return p.catchUp(ctx, []*partitionWriter{w}, position)
	})
	if errors.Is(err, errDeposed) || errors.Is(err, errUnexpected) {
		return nil, fmt.Errorf("%w: another rebuild has replaced it", errSuccessorReady)
	}
	if err != nil {
		return nil, fmt.Errorf("catch up with the rebuilt read model: %w", err)
	}
	if err := p.log.Durable(ctx, w.current.Position); err != nil {
		return nil, err
	}
	if err := p.swapCheckpoints(ctx, w, found); err != nil {
		return nil, err
	}
	p.logger.Info("the rebuilt read model has taken over", "partition", part.Number, "generation", next.Generation, "position", w.current.Position)
	return w, nil
}

// errReached stops Follow at a position.
var errReached = errors.New("the position is reached")

// catchUp brings generations that do not answer yet to a position, without notices.
func (p *Projector) catchUp(ctx context.Context, writers []*partitionWriter, position uint64) error {
	if leastPosition(writers) >= position {
		return nil
	}
	err := p.log.Follow(ctx, leastPosition(writers), maxBatchEvents, func(batch []domain.Entry) error {
		documents := p.split(batch, len(p.partitions))
		err := p.eachPartition(writers, func(w *partitionWriter) error {
			return w.apply(ctx, documents[w.keys.Partition.Number], &batch[len(batch)-1])
		})
		if err == nil && leastPosition(writers) >= position {
			return errReached
		}
		return err
	})
	if errors.Is(err, errReached) {
		return nil
	}
	return err
}

// swapCheckpoints makes a successor live and removes its own checkpoint, in one step.
func (p *Projector) swapCheckpoints(ctx context.Context, w *partitionWriter, live string) error {
	after := w.current
	after.State = layout.Projected
	place := w.keys.Partition.Checkpoint()
	err := watching(ctx, p.rdb, func(tx *redis.Tx) error {
		found, err := projections.ReadText(ctx, tx, place)
		if err != nil {
			return err
		}
		if found != live {
			return checkpointMoved(after.Identity, found)
		}
		if found, err = projections.ReadText(ctx, tx, w.checkpointKey); err != nil {
			return err
		}
		if found != w.current.String() { // the other projector has nothing to do with this
			return fmt.Errorf("%w: another rebuild has replaced it", errSuccessorReady)
		}
		_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Set(ctx, place, after.String(), 0)
			pipe.Del(ctx, w.checkpointKey)
			pipe.Publish(ctx, w.keys.Partition.Notices(), after.String())
			return nil
		})
		return err
	}, place, w.checkpointKey)
	if errors.Is(err, redis.TxFailedErr) { // one of the two has moved; the next attempt finds out which
		return fmt.Errorf("%w, but a checkpoint has moved", errSuccessorReady)
	}
	if err != nil {
		return fmt.Errorf("let the rebuilt read model take over: %w", err)
	}
	w.checkpointKey, w.current = place, after
	return nil
}

// standBy returns true when the other projector has stopped: no checkpoint moves although
// there is work. It returns false when ctx ends.
func (p *Projector) standBy(ctx context.Context) bool {
	last, since := "", time.Now()
	for projections.Pause(ctx, stallEvery) {
		found, waiting, err := p.readStanding(ctx)
		if err != nil {
			since = time.Now() // the other projector is stuck for the same reason
			continue
		}
		if found != last || !waiting {
			last, since = found, time.Now()
			continue
		}
		patience := stallAfter
		if c, _ := layout.ParseCheckpoint(found); c.State == layout.Filling {
			patience = fillStallAfter
		}
		if time.Since(since) >= patience {
			p.logger.Warn("the other projector has stopped: taking over", "checkpoint", found)
			return true
		}
	}
	return false
}

// readStanding returns the checkpoints, and whether a projector has work to do.
func (p *Projector) readStanding(ctx context.Context) (found string, waiting bool, err error) {
	var all []string
	for _, part := range p.partitions {
		texts := make([]string, 2)
		for i, key := range []string{part.Checkpoint(), part.Next()} {
			if texts[i], err = projections.ReadText(ctx, p.rdb, key); err != nil {
				return "", false, err
			}
		}
		end, err := p.log.End(ctx)
		if err != nil {
			return "", false, err
		}
		c, ok := layout.ParseCheckpoint(texts[0])
		next, _ := layout.ParseCheckpoint(texts[1])
		upToDate := ok && c.Identity == p.log.Identity() && c.State == layout.Projected && c.Position == end
		waiting = waiting || !upToDate || next.State == layout.Complete
		all = append(all, texts[0])
		if next.State == layout.Complete { // until then, the rebuild moves it
			all = append(all, texts[1])
		}
	}
	return strings.Join(all, "\n"), waiting, nil
}
