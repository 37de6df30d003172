package readmodel

import "time"

// A Status is the progress of log and read model at the last probe. Probes run several
// times a second.
type Status struct {
	// End is the position of the log's newest event.
	End uint64
	// Projected is the read model's position shortly before the probe, 0 if there was no
	// usable read model.
	Projected uint64
	// Parked is the number of parked sessions.
	Parked int64
	// Trusted reports whether an answer from the read model would have been given.
	Trusted bool
}

// Status returns the progress of log and read model without asking them.
func (m *ReadModel) Status() Status { return m.fresh.status(time.Now()) }

// recordStatus records the result of a probe.
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
