package embedded

import (
	"context"
	"errors"
	"os"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
)

// OpenOffline opens the stopped log in a store directory for reading, and keeps servers away
// until close is called. It reads all of the files first and reports each damage; the sound
// records can be read in spite of it. It returns ErrInUse and ErrNoLog.
func OpenOffline(ctx context.Context, storeDir string, damaged func(error), progress func(done, all int64)) (l *eventstore.Log, close func(), err error) {
	lock, err := LockStored(storeDir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			unlock(lock)
		}
	}()
	stored, err := FindStored(storeDir)
	if errors.As(err, new(*DamageError)) {
		damaged(err)
	} else if err != nil {
		return nil, nil, err
	}
	r, err := stored.open(ctx, damaged, progress)
	if err != nil {
		return nil, nil, err
	}
	l = eventstore.OpenOffline(r, stored.Info.Created, eventstore.Options{})
	return l, func() { l.Close(); unlock(lock) }, nil
}

func unlock(lock *os.File) {
	if lock != nil {
		_ = lock.Close()
	}
}

// open reads all files up to the log's end, and reports every damage. The log ends at a place
// that a power cut has left after the durable position, as it will when a server starts.
func (s *Stored) open(ctx context.Context, damaged func(error), progress func(done, all int64)) (*blocks.Reader, error) {
	var done, all int64
	for _, f := range s.Files {
		all += f.Size
	}
	r, err := s.Open(ctx, func(f blocks.File) {
		progress(done, all)
		done += f.Size
	}, func(d *blocks.Damage) error {
		if !s.isDamage(d) {
			return errCut
		}
		damaged(d)
		return nil
	})
	if err != nil && !errors.Is(err, errCut) {
		return nil, err
	}
	for _, err := range []error{s.compareFirst(r.First), s.compareLast(r.Last)} {
		if err != nil {
			damaged(err)
		}
	}
	progress(all, all)
	return r, s.leaveOutCutWrite(r)
}

// leaveOutCutWrite ends the log before an atomic write whose end is missing. The next start
// completes it.
func (s *Stored) leaveOutCutWrite(r *blocks.Reader) error {
	if s.Durable == nil || r.Last <= s.Durable.Position {
		return nil
	}
	first, write := uint64(0), "" // of the write that continues after the last record
	for at, err := range r.From(s.Durable.Position + 1) {
		if err != nil {
			return err
		}
		m := envelope.Message{}
		m.Header, _ = nats.DecodeHeadersMsg(at.Header) // without headers, it is a write of its own
		if id := m.WriteID(); id != write {
			first, write = at.Position, id
		}
		if !m.WriteContinues() {
			write = ""
		}
	}
	if write != "" {
		r.Last = first - 1
	}
	return nil
}
