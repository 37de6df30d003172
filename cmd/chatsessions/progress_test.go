package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithoutATerminalProgressIsALineNowAndThen(t *testing.T) {
	// What is shown at which time, in seconds, and the line that comes of it.
	type step struct {
		at          float64
		stage, unit string
		done, total uint64
		line        string
	}
	for name, steps := range map[string][]step{
		"what is over soon is not told": {
			{0, "reading", "events", 0, 1000, ""}, {4.9, "reading", "events", 1000, 1000, ""},
			{4.9, "comparing", "sessions", 0, 10, ""}, {9.8, "comparing", "sessions", 10, 10, ""},
		},
		"a line every five seconds": {
			{0, "reading", "events", 0, 1000, ""}, {1, "reading", "events", 50, 1000, ""}, {4.99, "reading", "events", 100, 1000, ""},
			{5, "reading", "events", 400, 1000, "reading: 400 of 1000 events (40 %), 80 a second, 8s left"},
			{6, "reading", "events", 480, 1000, ""},
			{10, "reading", "events", 400, 1000, "reading: 400 of 1000 events (40 %), 40 a second, 15s left"},
			{16, "reading", "events", 1000, 1000, "reading: 1000 of 1000 events (100 %), 62 a second, 0s left"},
		},
		"a stage begins anew": {
			{0, "reading", "events", 0, 100, ""}, {5, "reading", "events", 50, 100, "reading: 50 of 100 events (50 %), 10 a second, 5s left"},
			{6, "comparing", "sessions", 10, 100, ""}, {10, "comparing", "sessions", 20, 100, ""},
			{11, "comparing", "sessions", 60, 100, "comparing: 60 of 100 sessions (60 %), 10 a second, 4s left"},
		},
		"how much there is, is not known": {
			{0, "comparing", "indexes", 0, 0, ""}, {5, "comparing", "indexes", 15, 0, "comparing: 15 indexes, 3 a second"},
			{10, "comparing", "indexes", 15, 0, "comparing: 15 indexes, 2 a second"},
		},
		"nothing moves": {
			{0, "taking over", "partitions", 0, 4, ""}, {5, "taking over", "partitions", 0, 4, "taking over: 0 of 4 partitions (0 %), 0 a second, unknown left"},
		},
		"hours": {
			{0, "reading", "events", 0, 10_000_000, ""}, {5, "reading", "events", 5000, 10_000_000, "reading: 5000 of 10000000 events (0 %), 1000 a second, 2h46m35s left"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := newProgress(&out)
				began := time.Now()
				for _, s := range steps {
					time.Sleep(time.Duration(s.at*float64(time.Second)) - time.Since(began))
					out.Reset()
					p.show(s.stage, s.unit, s.done, s.total)
					want := s.line
					if want != "" {
						want += "\n"
					}
					if out.String() != want {
						t.Errorf("after %v s: %q, want %q", s.at, out.String(), want)
					}
				}
				out.Reset()
				p.finish()
				p.finish()
				if out.Len() > 0 {
					t.Errorf("the end is told as %q", out.String())
				}
			})
		})
	}
}
