package projector

import (
	"context"
	_ "embed" // retry.lua
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

//go:embed retry.lua
var retrySource string

var retryScript = redis.NewScript(retrySource)

// ErrNotParked is returned for a session that is not parked, or no longer.
var ErrNotParked = errors.New("the session is not parked")

// reachEvery is how often the checkpoint is read until it reaches a position.
const reachEvery = 10 * time.Millisecond

// parkedAtOnce is about how many parked sessions are read per round trip.
const parkedAtOnce = 500

// EachParked calls f for every parked session. It may miss sessions that are parked or
// restored during the call. It returns f's error, or Redis's.
func EachParked(ctx context.Context, rdb redis.UniversalClient, partitions int, f func(layout.Parked) error) error {
	for _, part := range layout.Partitions(partitions) {
		c, err := projections.Live(ctx, rdb, part)
		if err != nil {
			return err
		}
		notes := rdb.HScan(ctx, part.Keys(c.Generation).Parked(), 0, "", parkedAtOnce).Iterator()
		for notes.Next(ctx) { // to an id
			_ = notes.Next(ctx) // to its note
			one, err := layout.ParseParked(notes.Val())
			if err != nil {
				return err
			}
			if err := f(one); err != nil {
				return err
			}
		}
		if err := notes.Err(); err != nil {
			return fmt.Errorf("parked sessions: %w", err)
		}
	}
	return nil
}

// FindParked returns one parked session, or ErrNotParked.
func FindParked(ctx context.Context, rdb redis.UniversalClient, partitions int, id string) (layout.Parked, error) {
	part := layout.PartitionOf(id, partitions)
	c, err := projections.Live(ctx, rdb, part)
	if err != nil {
		return layout.Parked{}, err
	}
	text, err := rdb.HGet(ctx, part.Keys(c.Generation).Parked(), id).Result()
	if errors.Is(err, redis.Nil) {
		return layout.Parked{}, fmt.Errorf("%s: %w", id, ErrNotParked)
	}
	if err != nil {
		return layout.Parked{}, fmt.Errorf("parked session %s: %w", id, err)
	}
	return layout.ParseParked(text)
}

// Retry restores a parked session as the log has it now; load returns its newest event.
// It returns load's error if the event still cannot be read, ErrNotParked if the session
// is no longer parked, and another error if it still cannot be projected.
func Retry(ctx context.Context, rdb redis.UniversalClient, partitions int, p layout.Parked, load func(ctx context.Context, id string) (*domain.Record, error)) error {
	newest, err := load(ctx, p.SessionID)
	if err != nil {
		return err
	}
	d, err := layout.NewDocument(&domain.Entry{Record: newest})
	if err != nil {
		return err
	}
	// If the projector were behind, it would show older events of the session later.
	part := layout.PartitionOf(p.SessionID, partitions)
	c, err := reaching(ctx, rdb, part, d.Position)
	if err != nil {
		return err
	}
	space := part.Keys(c.Generation)
	keys := []string{space.Partition.Checkpoint(), space.Parked(), space.Document(d.ID)}
	for name := range d.Entries.Indexes() {
		keys = append(keys, space.Index(name))
	}
	done, err := retryScript.Run(ctx, rdb, keys, space.Generation, d.ID, p.String(), d.Value, d.Entries.Member).Int()
	if err != nil {
		return fmt.Errorf("restore session %s: %w", p.SessionID, err)
	}
	if done == 0 {
		return fmt.Errorf("%s: %w", p.SessionID, ErrNotParked)
	}
	return nil
}

// reaching returns the live checkpoint once it has reached a position. It fails after
// projections.Bound.
func reaching(ctx context.Context, rdb redis.UniversalClient, part layout.Partition, position uint64) (layout.Checkpoint, error) {
	for until := time.Now().Add(projections.Bound); ; {
		c, err := projections.Live(ctx, rdb, part)
		switch {
		case err != nil || c.Position >= position:
			return c, err
		case time.Now().After(until):
			return c, fmt.Errorf("the read model is at position %d, and the session at %d: is a projector running?", c.Position, position)
		case !projections.Pause(ctx, reachEvery):
			return c, ctx.Err()
		}
	}
}
