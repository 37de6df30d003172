package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
)

// ErrNotParked is returned for a session that is not parked, or no longer.
var ErrNotParked = errors.New("the session is not parked")

// reachEvery is how often the checkpoint is read until it has reached a position.
const reachEvery = 10 * time.Millisecond

// parkedAtOnce is how many parked sessions are asked for in one trip, about.
const parkedAtOnce = 500

// EachParked calls f for every session that is parked. A session that is parked or
// brought back meanwhile may be missing. It returns f's error, or that of Redis.
func EachParked(ctx context.Context, rdb redis.UniversalClient, partitions int, f func(Parked) error) error {
	for _, part := range newPartitions(partitions) {
		c, err := answering(ctx, rdb, part)
		if err != nil {
			return err
		}
		for cursor := uint64(0); ; {
			var found []string // ids, each with what is noted
			if found, cursor, err = rdb.HScan(ctx, part.of(c.generation).parked(), cursor, "", parkedAtOnce).Result(); err != nil {
				return fmt.Errorf("parked sessions: %w", err)
			}
			for pair := range slices.Chunk(found, 2) {
				one, err := parseParked(pair[1])
				if err != nil {
					return err
				}
				if err := f(one); err != nil {
					return err
				}
			}
			if cursor == 0 {
				break
			}
		}
	}
	return nil
}

// FindParked returns one parked session, or ErrNotParked.
func FindParked(ctx context.Context, rdb redis.UniversalClient, partitions int, id string) (Parked, error) {
	part := partitionOf(id, partitions)
	c, err := answering(ctx, rdb, part)
	if err != nil {
		return Parked{}, err
	}
	text, err := rdb.HGet(ctx, part.of(c.generation).parked(), id).Result()
	if errors.Is(err, redis.Nil) {
		return Parked{}, fmt.Errorf("%s: %w", id, ErrNotParked)
	}
	if err != nil {
		return Parked{}, fmt.Errorf("parked session %s: %w", id, err)
	}
	return parseParked(text)
}

// Retry brings a parked session back as the log has it now: load returns its newest
// state. It returns load's error when that cannot be read still, ErrNotParked when the
// session is not parked any more, and an error when it cannot be projected.
func Retry(ctx context.Context, rdb redis.UniversalClient, partitions int, p Parked, load func(ctx context.Context, id string) (*domain.Record, error)) error {
	newest, err := load(ctx, p.SessionID)
	if err != nil {
		return err
	}
	d, err := newDocument(&domain.Entry{Record: newest})
	if err != nil {
		return err
	}
	// Otherwise the projector would show older events of the session after this one.
	part := partitionOf(p.SessionID, partitions)
	c, err := reaching(ctx, rdb, part, d.position)
	if err != nil {
		return err
	}
	space := part.of(c.generation)
	keys := []string{space.checkpoint(), space.parked(), space.document(d.id)}
	for name := range d.indexes() {
		keys = append(keys, space.index(name))
	}
	done, err := retryScript.Run(ctx, rdb, keys, space.generation, d.id, p.String(), d.value, d.member).Int()
	if err != nil {
		return fmt.Errorf("bring session %s back: %w", p.SessionID, err)
	}
	if done == 0 {
		return fmt.Errorf("%s: %w", p.SessionID, ErrNotParked)
	}
	return nil
}

// reaching returns the checkpoint of the generation that answers when that has reached
// a position, and an error when it has not within Bound.
func reaching(ctx context.Context, rdb redis.UniversalClient, part partition, position uint64) (checkpoint, error) {
	for until := time.Now().Add(Bound); ; {
		c, err := answering(ctx, rdb, part)
		switch {
		case err != nil || c.position >= position:
			return c, err
		case time.Now().After(until):
			return c, fmt.Errorf("the read model is at position %d, and the session at %d: is a projector at work?", c.position, position)
		case !pause(ctx, reachEvery):
			return c, ctx.Err()
		}
	}
}
