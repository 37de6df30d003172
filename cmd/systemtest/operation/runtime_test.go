package operation

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
)

// TestMemoryAndProcessorsAreTunedUnlessToldOtherwise: without a limit of memory the
// collector must not let the heap grow to five times its size.
func TestMemoryAndProcessorsAreTunedUnlessToldOtherwise(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS"} { // whatever the tests are run with
		t.Setenv(name, "") // brings back what was there, in the end
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		env   []string
		gogc  string
		procs int
	}{
		{"untouched", nil, "400", runtime.NumCPU() + 2},
		{"no limit", []string{"GOMEMLIMIT=off"}, "100", runtime.NumCPU() + 2},
		{"a limit", []string{"GOMEMLIMIT=2GiB"}, "400", runtime.NumCPU() + 2},
		{"told", []string{"GOGC=50", "GOMAXPROCS=1"}, "50", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := "127.0.0.1:" + servertest.Port(t)
			s := &rig.Service{T: t, Env: c.env, Args: []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--ops-listen", address, "--data-dir", t.TempDir()}}
			s.Start()
			defer s.Stop()
			answer, err := http.Get("http://" + address + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"go_gc_gogc_percent": c.gogc, "go_sched_gomaxprocs_threads": strconv.Itoa(c.procs)} {
				if !strings.Contains(string(text), "\n"+name+" "+want+"\n") {
					t.Errorf("%s is not %s", name, want)
				}
			}
		})
	}
}
