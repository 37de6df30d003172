package projections

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"
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
	stallEvery = 200 * time.Millisecond
)

// clearKeys is how many keys one slice of clearing looks at.
const clearKeys = 500

// resume returns the checkpoint to go on from. Where there is none, or one that
// cannot be of this log, it clears the read model and begins at 0. takeOver is
// for a projector that has watched long enough to know that no other is at work.
func (p *Projector) resume(ctx context.Context, takeOver bool) (checkpoint, error) {
	found, err := p.keys.readCheckpoint(ctx, p.rdb)
	if err != nil {
		return checkpoint{}, err
	}
	identity := p.log.Identity()
	c, ok := parseCheckpoint(found)
	switch {
	case found == "":
		p.logger.Info("there is no read model: building it", "log", identity)
	case isClearing(found):
		if !takeOver && !p.rebuild && !strings.HasPrefix(found, clearingMark(p.token)) {
			return checkpoint{}, errDeposed
		}
		p.logger.Warn("the read model was left half cleared: rebuilding it", "log", identity)
	case p.rebuild:
		p.logger.Error("the read model is damaged: rebuilding it", "log", identity)
	case !ok || c.identity != identity:
		p.logger.Error("the read model is of another log: rebuilding it", "log", identity, "checkpoint", found)
	default:
		past, end, err := p.isPastEnd(ctx, c.position)
		if err != nil {
			return checkpoint{}, err
		}
		if !past {
			return c, nil
		}
		p.logger.Error("the log ends before the read model, it lost events: rebuilding the read model",
			"log", identity, "end", end, "checkpoint", c.position)
	}
	if err := p.clear(ctx, found); err != nil {
		return checkpoint{}, err
	}
	p.rebuild = false
	return checkpoint{identity, 0}, nil
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
		if !pause(ctx, endAskEvery) {
			return false, 0, ctx.Err()
		}
	}
	return true, end, nil
}

// clear removes everything of the partition and leaves a checkpoint at 0. While
// it works, a mark stands in the checkpoint's place, which no reader trusts and
// which every slice checks and moves: so no other projector can write meanwhile,
// and one that finds the mark resting takes over.
func (p *Projector) clear(ctx context.Context, found string) error {
	expected := found
	for slice, removed := 1, 0; ; {
		cursor, removedInPass := "0", 0
		for {
			mark := clearingMark(p.token) + strconv.Itoa(slice)
			n, next, err := p.clearSlice(ctx, expected, mark, cursor)
			if err != nil {
				return err
			}
			removedInPass += n
			expected, cursor, slice = mark, next, slice+1
			if cursor == "0" {
				break
			}
		}
		removed += removedInPass
		if removedInPass == 0 {
			if removed > 0 {
				p.logger.Info("cleared the read model", "keys", removed)
			}
			break
		}
	}
	empty := checkpoint{p.log.Identity(), 0}
	err := p.withWriter(ctx, func(w *writer) error {
		return w.write(ctx, expected, empty, nil, indexChanges{})
	})
	if err != nil {
		return fmt.Errorf("begin a read model: %w", err)
	}
	return nil
}

func (p *Projector) clearSlice(ctx context.Context, expected, mark, cursor string) (removed int, next string, err error) {
	reply, err := clearScript.Run(ctx, p.rdb, []string{p.keys.checkpoint()},
		expected, mark, p.keys.pattern(), cursor, clearKeys).Slice()
	if err != nil {
		return 0, "", fmt.Errorf("clear the read model: %w", err)
	}
	found, _ := reply[0].(string)
	next, _ = reply[1].(string)
	n, _ := reply[2].(int64)
	switch {
	case found == mark: // sent twice, and the first time answered too late: look again from the start
		return 1, "0", nil
	case found != expected:
		return 0, "", moved(p.log.Identity(), found)
	}
	return int(n), next, nil
}

// standBy returns true when the other projector has stopped: nothing moves, and
// there is something to do. It returns false when ctx ends.
func (p *Projector) standBy(ctx context.Context) bool {
	last, since := "", time.Now()
	for pause(ctx, stallEvery) {
		found, err := p.keys.readCheckpoint(ctx, p.rdb)
		if err != nil {
			since = time.Now() // the other one cannot get on either
			continue
		}
		end, err := p.log.End(ctx)
		if err != nil {
			since = time.Now()
			continue
		}
		c, ok := parseCheckpoint(found)
		upToDate := ok && c.identity == p.log.Identity() && c.position == end
		if found != last || upToDate {
			last, since = found, time.Now()
			continue
		}
		if time.Since(since) >= stallAfter {
			p.logger.Warn("the other projector has stopped: taking over", "checkpoint", found, "end", end)
			return true
		}
	}
	return false
}

// clearing begins what stands in the checkpoint's place while a read model is
// cleared: "clearing <who> <slice>".
const clearing = "clearing "

func clearingMark(token string) string { return clearing + token + " " }

func isClearing(text string) bool {
	return strings.HasPrefix(text, clearing) && strings.Count(text, " ") == 2
}

func newToken() string { return rand.Text() }
