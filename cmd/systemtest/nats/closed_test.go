package nats

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
)

// The server's limit is lowered for a moment, and a write in that moment is too large. NATS'
// client then closes the connection for good. The service must not stay without a log: it
// ends with a status that has it started again, and is then as before.
func TestAServiceWhoseConnectionIsClosedForGoodEnds(t *testing.T) {
	deployed, err := os.ReadFile("../../../deploy/nats/nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "nats-server.conf")
	limit := func(bytes string) {
		t.Helper()
		content := append([]byte("max_payload: "+bytes+"\n"), deployed...)
		if err := os.WriteFile(config, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, "../../../deploy/nats/subscribers.conf", filepath.Join(dir, "subscribers.conf"))
	limit("1MB")
	server := natstest.Start(t, natstest.Config{File: config})
	s := rig.Start(t, "--dev", "--nats-url", server.URL())
	crm := s.As("service-crm")
	path := crm.Create(`{}`)

	limit("500")
	server.Reload()
	if a, err := crm.Do("POST", "/chat-sessions", `{"room": "`+strings.Repeat("r", 128)+`"}`); err == nil && a.Status != 503 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	limit("1MB")
	server.Reload()

	select {
	case <-s.Exited:
	case <-time.After(rig.Patience):
		t.Fatal("the service goes on without its connection")
	}
	if status := s.Cmd.ProcessState.ExitCode(); status != rig.ExitFailed || !strings.Contains(strings.ToLower(s.Errors.String()), "maximum payload violation") {
		t.Errorf("exit status %d", status)
	}
	s.Start()
	crm = s.As("service-crm")
	crm.Expect(200, "GET", path, "")
	crm.Create(`{}`)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
