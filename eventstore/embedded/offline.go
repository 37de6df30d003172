package embedded

import (
	"cmp"
	"context"
	"errors"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
)

// OpenOffline opens the stopped log in a store directory for reading, and keeps servers away
// until unlock is called. It reads all of the files first and reports each damage, and with a
// CutError an end before that of the files; the sound records can be read in spite of it. It
// returns ErrInUse and ErrNoLog.
func OpenOffline(ctx context.Context, storeDir string, damaged func(error), progress func(done, all int64)) (l *eventstore.Log, unlock func(), err error) {
	s, r, unlock, err := lockAndOpen(ctx, storeDir, damaged, progress)
	if err != nil {
		return nil, nil, err
	}
	return eventstore.OpenOffline(r, s.Info.Created, eventstore.Options{}), unlock, nil
}

// LockSound finds the stopped log in a store directory, keeps servers away until unlock is
// called, and checks all of it. It returns the position at which the log ends, and a
// DamageError.
func LockSound(ctx context.Context, storeDir string) (s *Stored, end uint64, unlock func(), err error) {
	var damage error
	s, r, unlock, err := lockAndOpen(ctx, storeDir, func(err error) {
		if !errors.As(err, new(*CutError)) {
			damage = cmp.Or(damage, err)
		}
	}, func(int64, int64) {})
	if err != nil {
		return nil, 0, nil, err
	}
	if damage != nil {
		unlock()
		return nil, 0, nil, damage
	}
	return s, r.Last, unlock, nil
}

func lockAndOpen(ctx context.Context, storeDir string, damaged func(error), progress func(done, all int64)) (s *Stored, r *blocks.Reader, unlock func(), err error) {
	lock, err := lockStored(storeDir)
	if err != nil {
		return nil, nil, nil, err
	}
	unlock = func() { _ = lock.Close() }
	if lock == nil { // no server ever ran there
		unlock = func() {}
	}
	s, err = FindStored(storeDir)
	if errors.As(err, new(*DamageError)) && s != nil {
		damaged(err)
		err = nil
	}
	if err == nil {
		r, err = s.open(ctx, damaged, progress)
	}
	if err != nil {
		unlock()
		return nil, nil, nil, err
	}
	return s, r, unlock, nil
}

// open reads all files up to the log's end, and reports every damage. The log ends at a place
// that a power cut has left after the durable position, as it will when a server starts. If
// that position is not known, any place that is not sound is reported.
func (s *Stored) open(ctx context.Context, damaged func(error), progress func(done, all int64)) (*blocks.Reader, error) {
	done, all := int64(0), s.size()
	endless := false // a damage up to the end was reported
	r, err := s.Open(ctx, func(f blocks.File) {
		progress(done, all)
		done += f.Size
	}, func(d *blocks.Damage) error {
		if s.Durable != nil && !s.isDamage(d) {
			damaged(&CutError{d})
			return errCut
		}
		endless = d.To == 0
		damaged(&DamageError{d})
		return nil
	})
	if err != nil && !errors.Is(err, errCut) {
		return nil, err
	}
	if err := s.compareFirst(r.First); err != nil {
		damaged(err)
	}
	if err := s.compareLast(r.Last); err != nil && !endless { // otherwise its end was reported
		damaged(err)
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
		r.Last, r.Newest = first-1, first-1
	}
	return nil
}
