package operation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/projections/redistest"
)

func TestASecondProcessOnTheDataDirectoryIsRefusedAndTheFirstGoesOn(t *testing.T) {
	s := rig.Start(t, "--dev")
	dir := s.Flag("--data-dir")
	path := s.As("account-alice").Create(`{}`)
	reach := s.Connection()

	status, stdout, stderr := rig.Command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", dir)
	if status != rig.ExitFailed || stdout != "" || !strings.Contains(stderr, dir) || !strings.Contains(stderr, "another process") || !strings.Contains(stderr, "--data-dir") {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	s.As("account-alice").Expect(200, "PATCH", path, `{"start": true}`)
	if s.Connection() != reach {
		t.Error("the refused process changed the connection file")
	}
}

func TestAPortThatIsTakenIsToldAndTheDataDirectoryStaysFree(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	status, stdout, stderr := rig.Command(t, nil, "serve", "--dev", "--listen", taken.Addr().String(), "--data-dir", dir)
	if status != rig.ExitFailed || stdout != "" || !strings.Contains(stderr, taken.Addr().String()) || !strings.Contains(stderr, "in use") {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	rig.Start(t, "--dev", "--data-dir", dir).As("account-alice").Create(`{}`)
}

func TestServersThatCannotBeReachedAreToldWithoutTheirPasswords(t *testing.T) {
	redis := redistest.Start(t, redistest.Config{Password: "right"})
	for _, c := range []struct {
		server, url string
		want        int // exit status
	}{
		{"nats", "nats://us:topsecret@127.0.0.1:1", rig.ExitFailed},
		{"redis", "redis://:topsecret@" + redis.Addr(), rig.ExitFailed},
		{"nats", "nats://us:topsecret@:::", rig.ExitFailed},
		{"redis", "redis://us:topsecret@127.0.0.1:port", rig.ExitUsage},
	} {
		status, stdout, stderr := rig.Command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--"+c.server+"-url", c.url)
		if status != c.want || stdout != "" || strings.Contains(stderr, "topsecret") || !strings.Contains(strings.ToLower(stderr), c.server) {
			t.Errorf("%s: exit status %d, want %d: %q, %q", c.url, status, c.want, stdout, stderr)
		}
	}
}

func TestADrainUnderLoadAnswersWhatItHasTakenOn(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		for round := range 3 {
			t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) { drainUnderLoad(t, s, round) })
		}
	})
}

// drainUnderLoad stops a service with many writers at work. A request without an
// answer has to be one that was never begun.
func drainUnderLoad(t *testing.T, s *rig.Service, round int) {
	const writers = 48
	var mu sync.Mutex
	answered, refused := map[string]rig.Answer{}, map[string]error{}
	var enough atomic.Int64
	begun := make(chan struct{})
	var running sync.WaitGroup
	for w := range writers {
		c := s.As("account-alice")
		running.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("drain-%d-%d-%d", round, w, n)
				a, err := c.Do("POST", "/chat-sessions", `{"createdAt": 1, "startedAt": 2}`, "X-Request-Id: "+id)
				mu.Lock()
				if err != nil {
					refused[id] = err
				} else {
					answered[id] = a
				}
				mu.Unlock()
				if err != nil {
					return
				}
				if enough.Add(1) == 4*writers {
					close(begun)
				}
			}
		})
	}
	<-begun
	if status := s.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	running.Wait()
	s.Start()

	written := map[string]bool{}
	for _, e := range s.Log() {
		written[e.Header["ce-correlationid"][0]] = true
	}
	unavailable := 0
	for id, a := range answered {
		switch {
		case a.Status == 200 && written[id]:
		case a.Status == 503 && (!written[id] || bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":true`))):
			unavailable++ // a slow disk; that is another matter
		default:
			t.Errorf("%s: %d %s; in the log: %v", id, a.Status, a.Body, written[id])
		}
	}
	for id, err := range refused {
		if written[id] {
			t.Errorf("%s was carried out and not answered: %v", id, err)
		}
	}
	t.Logf("%d answered, %d of them with a 503; %d refused", len(answered), unavailable, len(refused))
}

func TestAConnectionWithoutAWholeRequestDoesNotHoldTheDrainUp(t *testing.T) {
	s := rig.Start(t, "--dev")
	// Browsers and load balancers open connections in advance; others are slow.
	for _, sent := range []string{"", "GET /chat-sessions HTTP/1.1\r\nHost: slow"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
	}
	s.As("account-alice").Create(`{}`) // the ones before have been accepted by now
	if status := s.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestTheReadyLineComesWhenEverythingIsInTheReadModel(t *testing.T) {
	const sessions = 2000
	check := func(t *testing.T, s *rig.Service, empty func()) {
		rig.AtOnce(t, 40, func(i int) error {
			for range sessions / 40 {
				a, err := s.As("service-crm").Do("POST", "/chat-sessions", `{"room": "r"}`)
				if err != nil || a.Status != 200 {
					return a.Instead(err)
				}
			}
			return nil
		})
		s.Stop()
		empty()
		s.Start()
		a := s.As("service-crm").Expect(200, "GET", "/chat-sessions?$limit=1000&$select[]=id", "", "Prefer: count=exact")
		if total, n := a.Header.Get("X-Total-Count"), len(a.List(t)); total != fmt.Sprint(sessions) || n != 1000 {
			t.Errorf("the first list has %d of %s sessions", n, total)
		}
	}
	t.Run("embedded", func(t *testing.T) { check(t, rig.Start(t, "--dev"), func() {}) })
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) { check(t, s, redis.Flush) })
}

func TestAnAPIWithoutAProjectorIsNotReadyAndCanBeStopped(t *testing.T) {
	servers := rig.StartServers(t)
	cmd := exec.Command(rig.Binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--only", "api"}, servers.Flags()...)...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, as a rule
	lines := bufio.NewScanner(log)
	for lines.Scan() && !strings.Contains(lines.Text(), "is a projector running?") {
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil || stdout.Len() > 0 {
		t.Errorf("%v, printed %q", err, stdout.String())
	}
}

func TestAHangupDoesNotEndAServiceThatIsStarting(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the service takes it for a NATS server; it says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var log servertest.Output
	cmd := exec.Command(rig.Binary, "serve", "--dev", "--listen", "127.0.0.1:0", "--nats-url", "nats://"+silent.Addr().String())
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, as a rule
	connected, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	connected.Close()
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != rig.ExitFailed || !strings.Contains(log.String(), silent.Addr().String()) {
		t.Errorf("%v, %s", cmd.ProcessState, log.String())
	}
}

func TestTheLogIsJSONLineByLineWhereThatIsAskedFor(t *testing.T) {
	redis := redistest.Start(t, redistest.Config{})
	s := rig.Start(t, "--dev", "--log-format", "json", "--redis-url", redis.URL())
	redis.Kill() // there is something to log now
	s.As("account-alice").Expect(503, "GET", "/chat-sessions", "")
	s.Stop()
	for line := range strings.Lines(s.Errors.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q", line)
		}
	}
}

func TestTheConnectionFileLetsOthersInWhileTheServiceRuns(t *testing.T) {
	s := rig.Start(t, "--dev")
	file := filepath.Join(s.Flag("--data-dir"), rig.ConnectionFile)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("its mode is %s", info.Mode())
	}
	reach := s.Connection()
	checkNATSNeedsItsPassword(t, reach.NATSURL)
	checkRedisNeedsItsPassword(t, reach.RedisURL)
	s.Stop()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("after the stop it is still there: %v", err)
	}

	// What is not embedded is not in it, and after a crash it is written anew.
	redis := redistest.Start(t, redistest.Config{})
	beside := rig.Start(t, "--dev", "--redis-url", redis.URL())
	before := beside.Connection()
	if before.RedisURL != "" || before.NATSURL == "" {
		t.Errorf("%+v", before)
	}
	beside.Kill()
	beside.Start()
	if after := beside.Connection(); after.NATSURL == before.NATSURL {
		t.Error("the crashed process' connection file is still there")
	}
}

func checkNATSNeedsItsPassword(t *testing.T, with string) {
	t.Helper()
	nc, err := nats.Connect(with)
	if err != nil {
		t.Errorf("NATS with the URL of the connection file: %v", err)
		return
	}
	nc.Close()
	if nc, err = nats.Connect(withoutPassword(t, with)); err == nil {
		nc.Close()
		t.Error("NATS lets anybody in")
	}
}

func checkRedisNeedsItsPassword(t *testing.T, with string) {
	t.Helper()
	ping := func(at string) error {
		options, err := redis.ParseURL(at)
		if err != nil {
			t.Fatal(err)
		}
		options.DisableIdentity = true
		options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
		client := redis.NewClient(options)
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
		defer cancel()
		return client.Ping(ctx).Err()
	}
	if err := ping(with); err != nil {
		t.Errorf("Redis with the URL of the connection file: %v", err)
	}
	if err := ping(withoutPassword(t, with)); err == nil {
		t.Error("Redis lets anybody in")
	}
}

func withoutPassword(t *testing.T, at string) string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	if host, _, _ := strings.Cut(u.Host, ":"); host != "127.0.0.1" {
		t.Errorf("%s is not on loopback", u.Host)
	}
	u.User = nil
	return u.String()
}
