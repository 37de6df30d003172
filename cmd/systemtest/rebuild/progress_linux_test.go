package rebuild

import (
	"os"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestARebuildShowsItsProgressOnATerminalOnly(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	rig.Fill(t, s, 6)
	shown := rig.OnTerminal(t, func(terminal *os.File) {
		p := startRebuildTo(t, terminal, "--data-dir", s.Flag("--data-dir"))
		if run := p.wait(); run.status != rig.ExitDone || !strings.Contains(run.stdout, "it answers now") {
			t.Errorf("exit status %d, %q", run.status, run.stdout)
		}
	})
	for _, stage := range []string{"reading the log", "comparing", "taking over", "removing the old one"} {
		if !strings.Contains(shown, stage) {
			t.Errorf("%q lacks %s", shown, stage)
		}
	}
}
