package main

import (
	"os"
	"strings"
	"testing"
)

func TestARebuildShowsItsProgressOnATerminalOnly(t *testing.T) {
	t.Parallel()
	s := startService(t, "--dev")
	fill(t, s, 6)
	shown := onTerminal(t, func(terminal *os.File) {
		p := startRebuildTo(t, terminal, "--data-dir", s.flag("--data-dir"))
		if run := p.wait(); run.status != exitDone || !strings.Contains(run.stdout, "it answers now") {
			t.Errorf("exit status %d, %q", run.status, run.stdout)
		}
	})
	for _, stage := range []string{"reading the log", "comparing", "taking over", "removing the old one"} {
		if !strings.Contains(shown, stage) {
			t.Errorf("%q lacks %s", shown, stage)
		}
	}
}
