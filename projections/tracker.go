package projections

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pollEvery is how often the checkpoint is read while somebody waits and no
// notice comes: what a lost notice costs.
const pollEvery = 10 * time.Millisecond

// Run keeps track of the log and the read model until ctx ends, and returns nil
// then. Without it no answer is ever trusted.
func (m *ReadModel) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { m.keepProbing(ctx) })
	running.Go(func() { m.keepListening(ctx) })
	running.Go(func() { m.keepPolling(ctx) })
	running.Wait()
	return nil
}

// keepProbing asks for the log's end on this node's own clock: what another
// node says about it could have been long on its way.
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
				m.logger.Warn("the end of the log is not known", "error", err)
			} else {
				m.logger.Info("the end of the log is known again")
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
	text, compared := m.readCheckpoint(ctx)
	before := m.fresh.highest()
	asked := time.Now()
	bounded, cancel := context.WithTimeout(ctx, Bound/2)
	defer cancel()
	end, err := m.log.End(bounded)
	if err != nil {
		return fmt.Errorf("ask for the end of the log: %w", err)
	}
	m.fresh.probed(probe{asked, end}, before, compared == nil)
	standing, ok := parseCheckpoint(text)
	if !ok || standing.identity != m.log.Identity() {
		standing.position = 0
	}
	m.fresh.looked(end, standing.position)
	return nil
}

// readCheckpoint reads what stands in the checkpoint's place, and takes note of it.
func (m *ReadModel) readCheckpoint(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Bound/2)
	defer cancel()
	text, err := m.keys.readCheckpoint(ctx, m.rdb)
	if err != nil {
		return "", err
	}
	m.note(text)
	return text, nil
}

// note learns from a checkpoint how far the read model is.
func (m *ReadModel) note(text string) {
	if c, ok := parseCheckpoint(text); ok && c.identity == m.log.Identity() {
		m.fresh.projected(c.position)
	}
}

// keepListening takes the notices that projectors in other processes send.
func (m *ReadModel) keepListening(ctx context.Context) {
	notices := m.rdb.Subscribe(ctx, m.keys.notices())
	defer notices.Close()        //nolint:errcheck // nothing is lost
	channel := notices.Channel() // subscribes again by itself
	for {
		select {
		case <-ctx.Done():
			return
		case notice, ok := <-channel:
			if !ok {
				return
			}
			m.note(notice.Payload)
		}
	}
}

// keepPolling reads the checkpoint while somebody waits for it to move.
func (m *ReadModel) keepPolling(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.fresh.awaited:
		}
		for last := uint64(0); ; {
			if !pause(ctx, pollEvery) {
				return
			}
			positions, doubters, passed := m.fresh.demand()
			if positions+doubters == 0 {
				break
			}
			if doubters > 0 || passed == last { // otherwise notices arrive
				if err := m.poll(ctx); err != nil && !pause(ctx, 10*pollEvery) {
					return
				}
			}
			last = passed
		}
	}
}

// poll reads the checkpoint as a read would, and wakes those who wait for one to
// be trusted when it would have been. It returns an error when Redis fails.
func (m *ReadModel) poll(ctx context.Context) error {
	t, doubt := m.fresh.ticket(m.log.Identity(), time.Now())
	text, err := m.readCheckpoint(ctx)
	if err != nil {
		return err
	}
	if doubt != nil {
		signal(m.fresh.probeNow)
		return nil
	}
	if _, err := t.check(text); err == nil {
		m.fresh.heal()
	}
	return nil
}
