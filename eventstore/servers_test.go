package eventstore

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestCheckSyncNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name, varz string
		status     int
		wrong      string // "" for nothing
	}{
		{"syncs always", `{"server_name": "n1", "jetstream": {"config": {"sync_always": true, "sync_interval": 120000000000}}}`, 200, ""},
		{"syncs now and then", `{"server_name": "n1", "jetstream": {"config": {"sync_interval": 120000000000}}}`, 200, "n1 (http://user:xxxxx@"},
		{"its interval", `{"server_name": "n1", "jetstream": {"config": {"sync_interval": 120000000000}}}`, 200, "sync_interval is 2m0s, needed is always"},
		{"no JetStream", `{"server_name": "n1", "jetstream": {}}`, 200, "n1 (http://user:xxxxx@127.0.0.1"},
		{"something else", `{"hello": "world"}`, 200, "not the monitoring endpoint"},
		{"a web page", `<html>`, 200, "not the monitoring endpoint"},
		{"refused", ``, 401, "401"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/base/varz" {
					t.Errorf("asked for %s", r.URL)
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.varz))
			}))
			defer server.Close()
			monitor, err := ParseMonitor(strings.Replace(server.URL, "//", "//user:secret@", 1) + "/base/")
			if err != nil {
				t.Fatal(err)
			}
			name, err := CheckSync(t.Context(), server.Client(), monitor)
			switch {
			case test.wrong == "" && (err != nil || name != "n1"):
				t.Errorf("%q, %v", name, err)
			case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)):
				t.Errorf("%v, want %q", err, test.wrong)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the password is told: %v", err)
			}
		})
	}
}

func TestCheckSyncDoesNotWaitForEver(t *testing.T) {
	hanging := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hanging }))
	defer server.Close()
	defer close(hanging)
	monitor, err := ParseMonitor(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := CheckSync(ctx, server.Client(), monitor); err == nil || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("%v; want an error that names %s", err, server.URL)
	}
}

func TestParseMonitorRefusesWhatIsNoEndpoint(t *testing.T) {
	for _, address := range []string{"", "http://", "nats://host:4222", "http://user:secret@host:x"} {
		if u, err := ParseMonitor(address); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, %v", address, u, err)
		}
	}
}
