package operation

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// The disk of the embedded log runs full. The service says so and ends; with room on the
// disk, the next start has everything that was answered.
func TestAFullDiskIsCalledThat(t *testing.T) {
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "chatsessions-full", disk).CombinedOutput(); err != nil {
		t.Skipf("NOT TRIED: only root may mount a small disk: %v: %s", err, out)
	}
	t.Cleanup(func() { // after the service has ended
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", disk, err, out)
		}
	})
	s := rig.Start(t, "--dev", "--data-dir", filepath.Join(disk, "data"))
	crm := s.As("service-crm")
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 24<<20), 0o600); err == nil {
		t.Fatal("the disk has room")
	}
	info, err := os.Stat(ballast)
	if err == nil {
		err = os.Truncate(ballast, info.Size()-64<<10) // room for some events
	}
	if err != nil {
		t.Fatal(err)
	}
	var answered []string
	for full := false; !full; {
		a, err := crm.Do("POST", "/chat-sessions", `{"room": "`+strings.Repeat("r", 128)+`"}`)
		switch {
		case err == nil && a.Status == 200:
			answered = append(answered, a.Header.Get("Location"))
		default:
			full = true
			if err == nil && (a.Status != 503 || strings.Contains(string(a.Body), "cannot be reached") || strings.Contains(string(a.Body), "try again")) {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		}
	}
	select {
	case <-s.Exited:
	case <-time.After(rig.Patience):
		t.Fatal("the service goes on without room for its log")
	}
	if status, log := s.Cmd.ProcessState.ExitCode(), s.Errors.String(); status != rig.ExitFailed || !strings.Contains(log, "the disk of the embedded log is full") {
		t.Errorf("exit status %d", status)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.Start()
	crm = s.As("service-crm")
	crm.Create(`{}`)
	for _, path := range answered {
		crm.Expect(200, "GET", path, "")
	}
	t.Logf("%d were answered before the disk was full", len(answered))
}
