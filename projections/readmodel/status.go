package readmodel

import "time"

// A Status is how far the log and the read model were when this node looked last,
// which it does several times a second.
type Status struct {
	// End is the position of the log's newest event.
	End uint64
	// Projected is the position that the read model had then, shortly before the
	// end was asked for; 0 where there was none that can be used.
	Projected uint64
	// Parked is how many sessions are parked.
	Parked int64
	// Trusted says whether an answer from the read model would have been given.
	Trusted bool
}

// Status tells how far the log and the read model are, without asking them.
func (m *ReadModel) Status() Status { return m.fresh.status(time.Now()) }

// looked records what a probe saw.
func (f *freshness) recordStatus(s Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = s
}

func (f *freshness) status(now time.Time) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.newest
	for _, p := range f.probes {
		if age(now, p.asked) <= probeLife {
			s.Trusted = f.distrusted == "" && s.Projected >= p.end
			break
		}
	}
	return s
}
