package eventstore

import "sync/atomic"

// Stats counts what a Log has done since it was opened.
type Stats struct {
	// Writes were acknowledged and have passed the barrier, with so many Events.
	Writes, Events uint64
	// Conflicts are the times that another writer of the session was quicker, so
	// that a command was decided again.
	Conflicts uint64
	// Replays are repeated requests that were found in the log.
	Replays uint64
	// CacheHits and CacheMisses are commands that found the session's newest event
	// in memory, and that had to read it.
	CacheHits, CacheMisses uint64
}

type counters struct {
	writes, events, conflicts, replays, cacheHits, cacheMisses atomic.Uint64
}

// Stats returns what has been counted so far.
func (l *Log) Stats() Stats {
	c := &l.counters
	return Stats{
		Writes: c.writes.Load(), Events: c.events.Load(), Conflicts: c.conflicts.Load(), Replays: c.replays.Load(),
		CacheHits: c.cacheHits.Load(), CacheMisses: c.cacheMisses.Load(),
	}
}
