package operation

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/projections/redistest"
)

func TestMetricsCountWhatHappened(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0", "--max-commands", "77")
	alice := s.As("account-alice")
	path := alice.Create(`{"participants": ["bob"]}`)
	alice.Expect(200, "PATCH", path, `{"start": true}`)
	alice.Expect(200, "PATCH", path, `{"accept": true, "finish": "well"}`)
	alice.Expect(409, "PATCH", path, `{"accept": true}`)
	alice.Expect(422, "POST", "/chat-sessions", `{"room": 1}`)
	for range 3 {
		alice.Expect(200, "POST", "/chat-sessions", `{}`, "Idempotency-Key: k")
	}
	alice.Expect(200, "GET", path, "")
	alice.Expect(200, "GET", path+"/", "")
	alice.Expect(200, "GET", "/chat-sessions?state=finished", "")
	alice.Expect(404, "GET", "/chat-sessions/a/b", "")
	alice.Expect(405, "DELETE", path, "")
	alice.Expect(200, "GET", "/chat-sessions", "")
	(&rig.Client{T: t, URL: s.URL, Token: "wrong"}).Expect(401, "GET", path, "")

	want := map[string]float64{
		`chatsessions_http_requests_total{method="POST",route="/chat-sessions",status="200"}`:      4,
		`chatsessions_http_requests_total{method="POST",route="/chat-sessions",status="422"}`:      1,
		`chatsessions_http_requests_total{method="PATCH",route="/chat-sessions/:id",status="200"}`: 2,
		`chatsessions_http_requests_total{method="PATCH",route="/chat-sessions/:id",status="409"}`: 1,
		`chatsessions_http_requests_total{method="GET",route="/chat-sessions/:id",status="200"}`:   2,
		`chatsessions_http_requests_total{method="GET",route="/chat-sessions/:id",status="401"}`:   1,
		`chatsessions_http_requests_total{method="GET",route="/chat-sessions",status="200"}`:       2,
		`chatsessions_http_requests_total{method="other",route="other",status="404"}`:              1,
		`chatsessions_http_requests_total{method="other",route="other",status="405"}`:              1,

		`chatsessions_http_request_duration_seconds_count{method="POST",route="/chat-sessions"}`:      5,
		`chatsessions_http_request_duration_seconds_count{method="PATCH",route="/chat-sessions/:id"}`: 3,

		`chatsessions_commands_total{outcome="done"}`:                            6,
		`chatsessions_commands_total{outcome="refused"}`:                         2,
		`chatsessions_commands_total{outcome="unavailable"}`:                     0,
		`chatsessions_commands_total{outcome="unknown"}`:                         0,
		`chatsessions_command_duration_seconds_count`:                            8,
		`chatsessions_commands_in_flight`:                                        0,
		`chatsessions_commands_limit`:                                            77,
		`chatsessions_commands_rejected_total`:                                   0,
		`chatsessions_log_writes_total`:                                          4,
		`chatsessions_log_events_total`:                                          5,
		`chatsessions_log_replays_total`:                                         2,
		`chatsessions_log_conflicts_total`:                                       0,
		`chatsessions_cache_hits_total`:                                          5,
		`chatsessions_projector_batch_size_sum`:                                  5,
		`chatsessions_read_model_trusted`:                                        1,
		`chatsessions_read_model_wait_duration_seconds_count{outcome="gave_up"}`: 0,
		`chatsessions_http_clients_gone_total`:                                   0,
	}
	// What a node knows of the log and the read model, it looks up now and then.
	want[`chatsessions_log_position`], want[`chatsessions_projected_position`] = 5, 5
	rig.Eventually(t, func() error {
		got := s.Metrics()
		for series, value := range want {
			if is, found := got[series]; !found || is != value {
				return fmt.Errorf("%s is %v, %v; want %v", series, is, found, value)
			}
		}
		return nil
	})
	got := s.Metrics()
	syncs, waited := got["chatsessions_barrier_group_size_count"], got["chatsessions_barrier_group_size_sum"]
	if syncs < 4 || waited < 4 || got["chatsessions_barrier_sync_duration_seconds_count"] != syncs || got["chatsessions_barrier_sync_duration_seconds_sum"] <= 0 {
		t.Errorf("%v syncs for %v that waited; there were 4 writes, one after the other", syncs, waited)
	}
	for _, series := range []string{"go_goroutines", "process_resident_memory_bytes", `chatsessions_read_model_wait_duration_seconds_count{outcome="reached"}`} {
		if got[series] == 0 {
			t.Errorf("%s is 0", series)
		}
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	redis := redistest.Start(t, redistest.Config{})
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0", "--redis-url", redis.URL())
	s.As("account-alice").Create(`{}`)
	_, body := s.Ask("/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "chatsessions_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestEveryMetricIsInTheOperatorsManual(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0")
	_, body := s.Ask("/metrics")
	manual, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		name, found := strings.CutPrefix(line, "# TYPE chatsessions_")
		if !found {
			continue
		}
		name, _, _ = strings.Cut(name, " ")
		if !bytes.Contains(manual, []byte("`chatsessions_"+name+"`")) {
			t.Errorf("docs/metrics.md says nothing about chatsessions_%s", name)
		}
	}
}

func TestProfilesAreForOperatorsOnly(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0")
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/mutex?debug=1", "/debug/pprof/profile?seconds=1", "/metrics", "/healthz", "/readyz"} {
		if status, body := s.Ask(path); status != 200 || body == "" {
			t.Errorf("%s: %d %s", path, status, body)
		}
		s.As("admin-root").Expect(404, "GET", path, "")
	}
	if status, _ := s.Ask("/chat-sessions"); status != 404 {
		t.Errorf("the API is on the listener for operators: %d", status)
	}
	quiet := rig.Start(t, "--dev")
	if log := quiet.Errors.String(); strings.Contains(log, "metrics") {
		t.Errorf("a listener for operators that nobody asked for:\n%s", log)
	}
}

func TestReadinessTellsWhetherLogAndReadModelServe(t *testing.T) {
	servers := rig.StartServers(t)
	flags := append(servers.Flags(), "--ops-listen", "127.0.0.1:0")
	nodes := map[string]*rig.Service{
		"complete":  rig.Start(t, flags...),
		"api":       rig.Start(t, append(flags, "--only", "api")...),
		"projector": rig.Start(t, append(flags, "--only", "projector")...),
	}
	becomes := func(status int, why string) {
		t.Helper()
		for name, s := range nodes {
			rig.Eventually(t, func() error {
				if got, body := s.Ask("/readyz"); got != status {
					return fmt.Errorf("%s, %s: %d %s, want %d", name, why, got, body, status)
				}
				return nil
			})
			if got, body := s.Ask("/healthz"); got != 200 {
				t.Errorf("%s, %s: not alive: %d %s", name, why, got, body)
			}
		}
	}
	becomes(200, "all is well")
	servers.NATS.Pause()
	becomes(503, "NATS hangs")
	if got := nodes["api"].Metrics()["chatsessions_read_model_trusted"]; got != 0 {
		t.Errorf("the read model is trusted while the log hangs: %v", got)
	}
	servers.NATS.Resume()
	becomes(200, "NATS is back")
	servers.Redis.Kill()
	becomes(503, "Redis is gone")
	servers.Redis.Restart()
	becomes(200, "Redis is back")
}

func TestAServiceThatIsNotReadySaysSo(t *testing.T) {
	servers := rig.StartServers(t)
	// An API without a projector: nothing ever comes into the read model.
	s := &rig.Service{T: t, Args: append([]string{"serve", "--listen", "127.0.0.1:0", "--only", "api", "--ops-listen", "127.0.0.1:0"}, servers.Flags()...)}
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	rig.Eventually(t, func() error {
		if !strings.Contains(s.Errors.String(), "metrics, health and profiles") {
			return fmt.Errorf("no listener: %s", s.Errors.String())
		}
		return nil
	})
	for range 3 {
		if status, body := s.Ask("/readyz"); status != 503 {
			t.Errorf("/readyz: %d %s", status, body)
		}
		if status, body := s.Ask("/healthz"); status != 200 {
			t.Errorf("/healthz: %d %s", status, body)
		}
		<-time.After(100 * time.Millisecond)
	}
}
