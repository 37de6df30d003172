package main

import (
	"context"
	"errors"
	"fmt"
)

// lag measures how long the read model takes to show a write, at half the rate of
// writes that there can be at most.
func (b *bench) lag(ctx context.Context) (err error) {
	// More connections than the rate needs, so that it is kept.
	const connections, paced = 64, 256
	redis, err := startRedis(ctx, b.dir("redis"))
	if err != nil {
		return err
	}
	defer redis.stop()
	s, err := startService(b.binary, b.dir("service"), withArgs("--redis-url", redis.url))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	f := figures{}
	for round := range b.Rounds {
		if err := b.patch(ctx, s, connections, f, "most ", ""); err != nil {
			return err
		}
		rate := f["most PATCHes"][round] / 2
		paths, _, err := s.create(ctx, int(rate*b.Duration.Seconds()))
		if err != nil {
			return fmt.Errorf("creating sessions: %w", err)
		}
		before, err := s.metrics(ctx)
		if err != nil {
			return err
		}
		l := s.starts(paths, paced, 2*b.Duration) // it ends with the sessions
		l.rate = rate
		r, err := l.run(ctx)
		if err != nil {
			return err
		}
		if len(r.refused) > 0 {
			return fmt.Errorf("PATCH refused: %v", r.refused)
		}
		after, err := s.metrics(ctx)
		if err != nil {
			return err
		}
		f.add("lag p99", 1e6*after.quantile(before, "chatsessions_read_model_wait_duration_seconds", 0.99))
		f.add("lag", 1e6*after.mean(before, "chatsessions_read_model_wait_duration_seconds", `{outcome="reached"}`))
		f.add("rate", r.perSecond())
		f.add("p99", micros(r.percentile(0.99)))
		progress("lag, round %d of %d: p99 %.0f µs at %.0f PATCH/s", round+1, b.Rounds, f["lag p99"][round], r.perSecond())
	}
	b.rows = append(b.rows,
		f.ratio("rate of PATCHes, half the maximum", paced, "1/s", "rate", "most PATCHes", ""),
		f.single("projection lag p99 at that rate", paced, "µs", "lag p99").aims("≤ 20 ms"),
		f.single("projection lag, mean", paced, "µs", "lag"),
		f.single("PATCH p99 at that rate, from when it was due", paced, "µs", "p99"),
	)
	return nil
}
