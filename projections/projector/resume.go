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

// Confirmation that a checkpoint lies past the log's end: a leader that was just
// deposed may name an old end, and a rebuild is dear.
const (
	endAsked    = 3
	endAskEvery = 200 * time.Millisecond
)

// standby's patience: how long the checkpoint may rest with events waiting
// before another projector takes over, and how often it looks.
const (
	stallAfter = time.Second
	stallEvery = 100 * time.Millisecond
	// fillStallAfter is the same for a generation that is being filled: the log has to
	// find the newest event of every session first.
	fillStallAfter = 15 * time.Second
)

// resume returns the lane of a partition, at the checkpoint to go on from. Where there
// is none, or one that cannot be of this log, it begins a new generation. takeOver is
// for a projector that has watched long enough to know that no other is at work.
func (p *Projector) resume(ctx context.Context, part layout.Partition, takeOver bool) (*partitionWriter, error) {
	found, err := projections.ReadText(ctx, p.rdb, part.Checkpoint())
	if err != nil {
		return nil, err
	}
	identity := p.log.Identity()
	c, ok := layout.ParseCheckpoint(found)
	if next, err := p.successor(ctx, part); err != nil {
		return nil, err
	} else if next != (layout.Checkpoint{}) {
		lacks := uint64(0) // nothing: a position of another log, or one that this log has lost
		if ok && c.Identity == identity {
			rewritten, err := p.isRewritten(ctx, c)
			if err != nil {
				return nil, err
			}
			if rewritten == "" {
				lacks = c.Position
			}
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
	default:
		rewritten, err := p.isRewritten(ctx, c)
		if err != nil {
			return nil, err
		}
		if rewritten == "" {
			return p.openPartition(ctx, part, part.Checkpoint(), c)
		}
		p.logger.Error("the log was restored from an older copy, it lost events: rebuilding the read model",
			"log", identity, "checkpoint", c.Position, "found", rewritten)
	}
	return p.begin(ctx, part, part.Checkpoint(), found)
}

// isRewritten says what shows that the log does not hold what the read model was made
// from, "" for nothing.
func (p *Projector) isRewritten(ctx context.Context, c layout.Checkpoint) (sign string, err error) {
	past, end, err := p.isPastEnd(ctx, c.Position)
	if err != nil {
		return "", err
	}
	if past {
		return fmt.Sprintf("the log ends at %d", end), nil
	}
	held, err := projections.LogHolds(ctx, p.log, c)
	if err != nil || held {
		return "", err
	}
	return fmt.Sprintf("the event at %d is another one", c.Position), nil
}

// isPastEnd says whether the log ends before the position, every time it is asked.
func (p *Projector) isPastEnd(ctx context.Context, position uint64) (past bool, end uint64, err error) {
	for range endAsked {
		end, err = p.log.End(ctx)
		if err != nil {
			return false, 0, fmt.Errorf("ask for the end of the log: %w", err)
		}
		if end >= position {
			return false, end, nil
		}
		if !projections.Pause(ctx, endAskEvery) {
			return false, 0, ctx.Err()
		}
	}
	return true, end, nil
}

// begin puts the checkpoint of a new, empty generation in the place of what was found
// there, and removes what no checkpoint names any more.
func (p *Projector) begin(ctx context.Context, part layout.Partition, place, found string) (*partitionWriter, error) {
	c := layout.Checkpoint{Identity: p.log.Identity(), Generation: layout.NewGeneration(), State: layout.Filling}
	p.began[c.Generation] = true
	err := withTransaction(ctx, p.rdb, place, p.private, func(w *transaction) error {
		change := change{keys: part.Keys(c.Generation), begins: true}
		if err := w.commit(ctx, found, c, change); err != nil {
			return err
		}
		change.begins = false
		// The checkpoint moves meanwhile, so that whoever stands by sees somebody at work.
		told := time.Now()
		removed, err := sweep(ctx, p.rdb, part, func(int64) error {
			if time.Since(told) < stallEvery {
				return nil
			}
			told = time.Now()
			before := c.String()
			c = c.AfterFilling(1)
			return w.commit(ctx, before, c, change)
		})
		if removed > 0 {
			p.logger.Info("removed read models that nobody reads", "keys", removed)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("begin a read model: %w", err)
	}
	return p.openPartition(ctx, part, place, c)
}

// successor returns the checkpoint of a generation that was built beside and waits to
// be taken over, or the zero value.
func (p *Projector) successor(ctx context.Context, part layout.Partition) (layout.Checkpoint, error) {
	text, err := projections.ReadText(ctx, p.rdb, part.Next())
	if err != nil {
		return layout.Checkpoint{}, err
	}
	if next, ok := layout.ParseCheckpoint(text); ok && next.State == layout.Complete && next.Identity == p.log.Identity() {
		return next, nil
	}
	return layout.Checkpoint{}, nil
}

// succeed lets a generation that was built beside take the place of what was found,
// which is at a position, and returns its lane. It first gets what it lacks, so that
// no reader has to wait for it.
func (p *Projector) adopt(ctx context.Context, part layout.Partition, next layout.Checkpoint, found string, position uint64) (*partitionWriter, error) {
	l, err := p.openPartition(ctx, part, part.Next(), next)
	if err != nil {
		return nil, err
	}
	err = withTransaction(ctx, p.rdb, l.checkpointKey, p.private, func(w *transaction) error {
		l.tx = w
		return p.catchUp(ctx, l, position)
	})
	if errors.Is(err, errDeposed) || errors.Is(err, errUnexpected) {
		return nil, fmt.Errorf("%w: another rebuild has begun instead", errSuccessorReady)
	}
	if err != nil {
		return nil, fmt.Errorf("catch up with the rebuilt read model: %w", err)
	}
	if err := p.log.Durable(ctx, l.current.Position); err != nil {
		return nil, err
	}
	if err := p.swapCheckpoints(ctx, l, found); err != nil {
		return nil, err
	}
	p.logger.Info("the rebuilt read model has taken over", "partition", part.Number, "generation", next.Generation, "position", l.current.Position)
	return l, nil
}

// errReached ends the following of the log at a position.
var errReached = errors.New("the position is reached")

// catchUp brings a lane to a position.
func (p *Projector) catchUp(ctx context.Context, l *partitionWriter, position uint64) error {
	if l.current.Position >= position {
		return nil
	}
	err := p.log.Follow(ctx, l.current.Position, maxBatchEvents, func(batch []domain.Entry) error {
		var documents []*layout.Document
		for i := range batch {
			if layout.PartitionNumber(batch[i].Record.Event.Session.ID, len(p.partitions)) == l.keys.Number {
				documents = append(documents, p.documentOf(&batch[i]))
			}
		}
		if err := l.apply(ctx, documents, &batch[len(batch)-1]); err != nil {
			return err
		}
		if l.current.Position >= position {
			return errReached
		}
		return nil
	})
	if errors.Is(err, errReached) {
		return nil
	}
	return err
}

// swap puts the checkpoint of a generation that was built beside in the place of the
// one that answers, in one step with its own going away. The lane writes there then.
func (p *Projector) swapCheckpoints(ctx context.Context, l *partitionWriter, answers string) error {
	after := l.current
	after.State = layout.Projected
	place := l.keys.Checkpoint()
	err := watching(ctx, p.rdb, func(tx *redis.Tx) error {
		found, err := projections.ReadText(ctx, tx, place)
		if err != nil {
			return err
		}
		if found != answers {
			return checkpointMoved(after.Identity, found)
		}
		if found, err = projections.ReadText(ctx, tx, l.checkpointKey); err != nil {
			return err
		}
		if found != l.current.String() { // which says nothing about the other projector
			return fmt.Errorf("%w: another rebuild has begun instead", errSuccessorReady)
		}
		_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Set(ctx, place, after.String(), 0)
			pipe.Del(ctx, l.checkpointKey)
			pipe.Publish(ctx, l.keys.Notices(), after.String())
			return nil
		})
		return err
	}, place, l.checkpointKey)
	if errors.Is(err, redis.TxFailedErr) { // one of the two has moved: the next attempt sees which
		return fmt.Errorf("%w, and something has moved", errSuccessorReady)
	}
	if err != nil {
		return fmt.Errorf("let the rebuilt read model take over: %w", err)
	}
	l.checkpointKey, l.current = place, after
	return nil
}

// standBy returns true when the other projector has stopped: nothing moves, and
// there is something to do. It returns false when ctx ends.
func (p *Projector) standBy(ctx context.Context) bool {
	last, since := "", time.Now()
	for projections.Pause(ctx, stallEvery) {
		found, waiting, err := p.readStanding(ctx)
		if err != nil {
			since = time.Now() // the other one cannot get on either
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

// standing returns what stands in the checkpoints' places, and whether there is
// something that a projector should be doing.
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
		if next.State == layout.Complete { // before, it is a rebuild that moves it
			all = append(all, texts[1])
		}
	}
	return strings.Join(all, "\n"), waiting, nil
}
