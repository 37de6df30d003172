package embedded

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
)

// inspect checks the log before the server gets it, which would cut it at a damage.
func (s *Server) inspect(ctx context.Context) error {
	stored, err := FindStored(s.options.StoreDir)
	if errors.Is(err, ErrNoLog) {
		return nil
	}
	if err != nil {
		return err
	}
	if n := stored.Info.Replicas; n > 1 {
		return &eventstore.ConfigError{Differences: []eventstore.Difference{
			{Field: "num_replicas", Found: strconv.Itoa(n), Needed: "1"},
		}}
	}
	if stored.Durable != nil {
		s.first = max(stored.Durable.First, 1)
	}
	if stored.Clean && stored.Durable != nil && len(stored.Files) > 0 {
		newest, err := stored.checkNewest(ctx)
		if err != nil {
			return err
		}
		s.checkLater(stored, newest)
		return nil
	}
	began, noted := time.Now(), time.Now()
	read, all := int64(0), stored.size()
	first, cut, err := stored.checkAll(ctx, func(f blocks.File) {
		if read += f.Size; time.Since(noted) > checkNoted {
			noted = time.Now()
			s.options.Logger.Info("checking the log", "megabytes", read>>20, "of", all>>20)
		}
	})
	if stored.Durable == nil && first > 0 {
		s.first = first
	}
	if err != nil || cut == nil {
		return err
	}
	aside, err := stored.setAside(cut, s.options.Sync)
	if err != nil {
		return fmt.Errorf("setting aside what follows the end of the log: %w", err)
	}
	s.options.Logger.Warn("the log ends before its files do; what follows is not known to be on disk, and is set aside",
		"found", cut.Error(), "aside", aside, "took", time.Since(began))
	return nil
}

// checkNoted is how often the progress of a check is logged.
const checkNoted = 5 * time.Second

// checkLater checks the older files while the server runs. A damage is a failure.
func (s *Server) checkLater(stored *Stored, newest uint64) {
	s.working.Go(func() {
		began := time.Now()
		err := stored.checkOlder(s.ctx, newest, func(blocks.File) {
			time.Sleep(time.Since(began)) // half of the time is left to others
			began = time.Now()
		})
		switch {
		case s.ctx.Err() != nil, err == nil:
		case errors.As(err, new(*DamageError)):
			s.failure.set(err)
		default:
			s.options.Logger.Error("the older files of the log cannot be checked", "error", err)
		}
	})
}

// noteDurable keeps the durable position beside the log, from now on.
func (s *Server) noteDurable(end uint64) error {
	note, err := openDurableNote(s.options.StoreDir, s.options.Sync, Durable{s.first, end})
	if err != nil {
		return fmt.Errorf("durable position: %w", err)
	}
	covered := &s.barrier.Load().covered
	s.working.Go(func() {
		note.follow(covered, s.ctx.Done(), func(err error) {
			s.options.Logger.Error("the durable position cannot be noted; after a crash, less of the log is known to be on disk", "error", err)
		})
	})
	return nil
}
