package readmodel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// noticeEvery is how often the checkpoint is read while a request waits and no notice
// comes. It is the cost of a lost notice.
const noticeEvery = 10 * time.Millisecond

// Run tracks the log and the read model until ctx ends; then it returns nil. Without it,
// no answer is trusted.
func (m *ReadModel) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { m.keepProbing(ctx) })
	running.Go(func() { m.keepListening(ctx) })
	running.Go(func() { m.keepPolling(ctx) })
	running.Wait()
	return nil
}

// keepProbing asks for the log's end by this node's own clock: a report from another node
// might have been delayed.
func (m *ReadModel) keepProbing(ctx context.Context) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	var trouble error
	for {
		err := m.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		if (err == nil) != (trouble == nil) {
			if err != nil {
				m.logger.Warn("the read model cannot be compared with the log", "error", err)
			} else {
				m.logger.Info("the read model can be compared with the log again")
			}
		}
		trouble = err
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-m.fresh.probeNow:
		}
	}
}

func (m *ReadModel) probe(ctx context.Context) error {
	if err := m.checkServers(ctx); err != nil {
		m.fresh.distrust(err.Error())
		return err
	}
	standing, parked, err := m.readProgress(ctx)
	before := m.fresh.highest()
	seen := probe{asked: time.Now(), epoch: m.connections()}
	bounded, cancel := context.WithTimeout(ctx, projections.Bound/2)
	defer cancel()
	var failed error
	if seen.end, failed = m.log.End(bounded); failed != nil {
		return fmt.Errorf("ask for the end of the log: %w", failed)
	}
	if seen.epoch != m.comparedEpoch {
		if err != nil {
			return err
		}
		// A new connection, to Redis or to the log, may lead to an older copy.
		found, failed := m.logHolds(bounded)
		if failed != nil {
			return failed
		}
		if !found {
			m.fresh.distrust("the log does not hold what it was made from")
			return nil
		}
		m.comparedEpoch = seen.epoch
	}
	m.fresh.recordProbe(seen, before, err == nil, Status{End: seen.end, Projected: standing, Parked: parked})
	return nil
}

// checkServers returns an error if Redis may have dropped keys. One that cannot be reached
// answers no read either.
func (m *ReadModel) checkServers(ctx context.Context) error {
	if !m.checkEviction {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, projections.Bound/2)
	defer cancel()
	err := projections.CheckEviction(ctx, m.rdb, m.partitions)
	if errors.As(err, new(redis.Error)) || errors.As(err, new(*projections.EvictionError)) {
		return err
	}
	return nil
}

// logHolds reports whether the log has the events at the checkpoints.
func (m *ReadModel) logHolds(ctx context.Context) (bool, error) {
	texts, err := m.readCheckpoints(ctx)
	if err != nil {
		return false, err
	}
	for _, text := range texts {
		if c, ok := layout.ParseCheckpoint(text); ok && c.Identity == m.log.Identity() {
			if found, err := projections.LogHolds(ctx, m.log, c); err != nil || !found {
				return found, err
			}
		}
	}
	return true, nil
}

// readProgress reads how far the read model is, and registers this node's layout.
func (m *ReadModel) readProgress(ctx context.Context) (standing uint64, parked int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, projections.Bound/2)
	defer cancel()
	if !m.private {
		m.register(ctx)
	}
	texts, err := m.readCheckpoints(ctx)
	if err != nil {
		return 0, 0, err
	}
	for i, text := range texts {
		c, ok := layout.ParseCheckpoint(text)
		if !ok || c.Identity != m.log.Identity() {
			return 0, parked, nil
		}
		if i == 0 || c.Position < standing {
			standing = c.Position
		}
		n, err := m.rdb.HLen(ctx, m.partitions[i].Keys(c.Generation).Parked()).Result()
		if err != nil {
			return 0, parked, fmt.Errorf("count parked sessions: %w", err)
		}
		parked += n
	}
	return standing, parked, nil
}

// readCheckpoints reads the checkpoints and learns from them.
func (m *ReadModel) readCheckpoints(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, projections.Bound/2)
	defer cancel()
	texts := make([]string, len(m.partitions))
	for i, part := range m.partitions {
		var err error
		if texts[i], err = projections.ReadText(ctx, m.rdb, part.Checkpoint()); err != nil {
			return nil, err
		}
		c, _ := layout.ParseCheckpoint(texts[i])
		m.learn(i, c)
	}
	return texts, nil
}

// learn records a partition's progress from a checkpoint. It ignores one of another log,
// which includes one that could not be parsed.
func (m *ReadModel) learn(partition int, c layout.Checkpoint) {
	if c.Identity == m.log.Identity() {
		m.fresh.recordProjected(partition, c.Generation, c.Position)
	}
}

// keepListening receives the notices of projectors in other processes.
func (m *ReadModel) keepListening(ctx context.Context) {
	numbers := map[string]int{}
	for i, part := range m.partitions {
		numbers[part.Notices()] = i
	}
	notices := m.rdb.Subscribe(ctx, slices.Collect(maps.Keys(numbers))...)
	defer context.AfterFunc(ctx, func() { _ = notices.Close() })() // which ends the loop
	for notice := range notices.Channel() {                        // resubscribes by itself
		c, _ := layout.ParseCheckpoint(notice.Payload)
		m.learn(numbers[notice.Channel], c)
	}
}

// keepPolling reads the checkpoints while requests wait for them to move.
func (m *ReadModel) keepPolling(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.fresh.awaited:
		}
		for last := uint64(0); ; {
			if !projections.Pause(ctx, noticeEvery) {
				return
			}
			positions, doubters, passed := m.fresh.demand()
			if positions+doubters == 0 {
				break
			}
			if doubters > 0 || passed == last { // otherwise notices arrive
				if err := m.poll(ctx); err != nil && !projections.Pause(ctx, 10*noticeEvery) {
					return
				}
			}
			last = passed
		}
	}
}

// poll reads the checkpoints as a read would. If they can be trusted, it wakes those who
// wait for that. It returns an error if Redis fails.
func (m *ReadModel) poll(ctx context.Context) error {
	_, doubt := m.views(m.allPartitions)
	texts, err := m.readCheckpoints(ctx)
	if err != nil {
		return err
	}
	if doubt != nil {
		signal(m.fresh.probeNow)
		return nil
	}
	if m.trusted(texts, 0) {
		m.fresh.announceTrusted()
	}
	return nil
}

// trusted reports whether answers with these checkpoints would be given and hold
// everything up to a position.
func (m *ReadModel) trusted(texts []string, position uint64) bool {
	views, err := m.views(m.allPartitions)
	if err != nil {
		return false
	}
	for i, v := range views {
		v.ticket.need = max(v.ticket.need, position)
		if _, err := v.ticket.check(texts[i]); err != nil {
			return false
		}
	}
	return true
}
