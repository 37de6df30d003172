package rebuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/projections/redistest"
)

func TestARebuildWhileTheServiceRuns(t *testing.T) {
	t.Parallel()
	for _, setup := range []struct {
		name  string
		start func(t *testing.T) (s *rig.Service, flags []string)
	}{
		{"everything embedded", func(t *testing.T) (*rig.Service, []string) {
			s := rig.Start(t, "--dev")
			return s, []string{"--data-dir", s.Flag("--data-dir")}
		}},
		{"log embedded", func(t *testing.T) (*rig.Service, []string) {
			redis := redistest.Start(t, redistest.Config{})
			s := rig.Start(t, "--dev", "--redis-url", redis.URL())
			return s, []string{"--data-dir", s.Flag("--data-dir"), "--redis-url", redis.URL()}
		}},
		{"two nodes", func(t *testing.T) (*rig.Service, []string) {
			servers := rig.StartServers(t)
			rig.Start(t, servers.Flags()...)
			return rig.Start(t, servers.Flags()...), servers.Stores()
		}},
		{"API and projector apart", func(t *testing.T) (*rig.Service, []string) {
			servers := rig.StartServers(t)
			rig.Start(t, append(servers.Flags(), "--only", "projector")...)
			return rig.Start(t, append(servers.Flags(), "--only", "api")...), servers.Stores()
		}},
	} {
		t.Run(setup.name, func(t *testing.T) {
			t.Parallel()
			s, flags := setup.start(t)
			before := rig.Fill(t, s, 6)
			rdb := openRedis(s)
			generation := answeringGeneration(t, rdb)

			compared := rebuild(t, rig.ExitDone, append(flags, "--compare-only")...)
			compared.expect(t, fmt.Sprintf(`^A read model of 6 sessions, up to position %d of the log: 0 differences to the log; it stays as it is\. \d+ keys were removed\.$`, s.NewestPosition()))
			if got := answeringGeneration(t, rdb); got != generation {
				t.Errorf("generation %s answers after --compare-only, and %s did before", got, generation)
			}
			checkOneGeneration(t, rdb)

			rebuilt := rebuild(t, rig.ExitDone, flags...)
			rebuilt.expect(t, fmt.Sprintf(`^A read model of 6 sessions, up to position %d of the log: the old one had 0 differences to the log; it answers now\. \d+ keys were removed\.$`, s.NewestPosition()))
			if answeringGeneration(t, rdb) == generation {
				t.Errorf("generation %s answers still", generation)
			}
			checkOneGeneration(t, rdb)
			before.Check(s)

			printed := rebuild(t, rig.ExitDone, append(flags, "--output", "json")...)
			if want := (rebuiltLine{Position: s.NewestPosition(), Sessions: 6, Compared: true}); printed.summary(t) != want {
				t.Errorf("%s tells %+v, want %+v", printed.stdout, printed.summary(t), want)
			}
			// It goes on.
			path := s.As("account-alice").Create(`{"room": "later"}`)
			s.As("account-alice").Expect(200, "PATCH", path, `{"start": true}`)
			rig.CheckReadModel(t, s, s.Log())
			rebuild(t, rig.ExitDone, append(flags, "--compare-only")...).expect(t, `^A read model of 7 sessions, .*: 0 differences `)
		})
	}
}

func TestARebuildWithoutAServiceTakesOverByItself(t *testing.T) {
	t.Parallel()
	for _, setup := range []struct {
		name  string
		flags func(t *testing.T) []string // of the service, beside --dev
	}{
		{"log embedded", func(t *testing.T) []string {
			return []string{"--data-dir", t.TempDir(), "--redis-url", redistest.Start(t, redistest.Config{}).URL()}
		}},
		{"nats and redis", func(t *testing.T) []string { return rig.StartServers(t).Stores() }},
	} {
		for _, end := range []struct {
			name string
			end  func(*rig.Service)
		}{
			{"stopped", func(s *rig.Service) { s.Stop() }},
			{"killed", (*rig.Service).Kill}, // which leaves its connection file behind
		} {
			t.Run(setup.name+", "+end.name, func(t *testing.T) {
				t.Parallel()
				flags := setup.flags(t)
				s := rig.Start(t, append(flags, "--dev")...)
				before := rig.Fill(t, s, 6)
				last := s.NewestPosition()
				rdb := openRedis(s)
				end.end(s)
				generation := answeringGeneration(t, rdb)

				rebuild(t, rig.ExitDone, flags...).expect(t, fmt.Sprintf(`^A read model of 6 sessions, up to position %d of the log: the old one had 0 differences to the log; it answers now\.`, last))
				rebuilt := answeringGeneration(t, rdb)
				if rebuilt == generation {
					t.Errorf("generation %s answers still", generation)
				}
				checkOneGeneration(t, rdb)

				// And where there is no read model at all.
				if err := rdb.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				rebuild(t, rig.ExitDone, flags...).expect(t, fmt.Sprintf(`^A read model of 6 sessions, up to position %d of the log: there was no old one to compare with; it answers now\.`, last))
				rebuilt = answeringGeneration(t, rdb)
				s.Start()
				before.Check(s)
				if got := answeringGeneration(t, rdb); got != rebuilt {
					t.Errorf("the service did not go on with generation %s, it made %s", rebuilt, got)
				}
			})
		}
	}
}

func TestWithoutAServiceAnEmbeddedReadModelNeedsNoRebuild(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	before := rig.Fill(t, s, 6)
	flags := []string{"--data-dir", s.Flag("--data-dir")}
	for _, end := range []func(){func() { s.Stop() }, s.Kill} {
		end()
		rebuild(t, rig.ExitDone, flags...).expect(t, `^There is nothing to rebuild: the service is not running, and it builds its read model when it starts\.$`)
		if printed := rebuild(t, rig.ExitDone, append(flags, "--output", "json")...); printed.summary(t) != (rebuiltLine{}) {
			t.Errorf("told %s of a rebuild that did not happen", printed.stdout)
		}
		s.Start()
		before.Check(s)
	}
}

func TestARebuildThatWouldHitTheWrongOneSaysWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	other := rig.StartServers(t)
	servers := rig.StartServers(t)
	node := rig.Start(t, servers.Flags()...)
	embedded := rig.Start(t, "--dev")
	redis := redistest.Start(t, redistest.Config{})
	logOnly := rig.Start(t, "--dev", "--redis-url", redis.URL())
	stopped := rig.Start(t, "--dev", "--redis-url", other.Redis.URL())
	stopped.Stop()
	services := map[*rig.Service]rig.Content{node: rig.Fill(t, node, 6), embedded: rig.Fill(t, embedded, 6), logOnly: rig.Fill(t, logOnly, 6)}
	missing := filepath.Join(t.TempDir(), "missing")

	for _, c := range []struct {
		name  string
		flags []string
		says  []string
	}{
		{"no data directory", []string{"--data-dir", missing}, []string{missing, "--data-dir", "--nats-url"}},
		{"the default one is not here", nil, []string{"chatsessions-data", "--data-dir", "--nats-url"}},
		{"Redis without the log", []string{"--redis-url", servers.Redis.URL()}, []string{"chatsessions-data", "--data-dir", "--nats-url"}},
		{"Redis and no data directory", []string{"--data-dir", missing, "--redis-url", servers.Redis.URL()}, []string{missing, "--data-dir", "--nats-url"}},
		{"NATS without Redis", []string{"--nats-url", servers.NATS.URL()}, []string{"--redis-url"}},
		{"data directory without Redis", []string{"--data-dir", logOnly.Flag("--data-dir")}, []string{"--redis-url"}},
		{"a Redis that the service does not use", []string{"--data-dir", embedded.Flag("--data-dir"), "--redis-url", redis.URL()}, []string{"--redis-url"}},
		{"a NATS that has no log", []string{"--nats-url", other.NATS.URL(), "--redis-url", servers.Redis.URL()}, []string{"--nats-url"}},
		{"the log of somebody else", []string{"--data-dir", stopped.Flag("--data-dir"), "--redis-url", redis.URL()}, []string{"another log"}},
		{"too many partitions", append(servers.Stores(), "--redis-partitions", "2"), []string{"--redis-partitions 2", "--redis-partitions 1"}},
		{"too many partitions, embedded", []string{"--data-dir", embedded.Flag("--data-dir"), "--redis-partitions", "2"}, []string{"--redis-partitions 2", "--redis-partitions 1"}},
		{"NATS is gone", []string{"--nats-url", "nats://127.0.0.1:1", "--redis-url", servers.Redis.URL()}, []string{"127.0.0.1:1"}},
		{"Redis is gone", []string{"--nats-url", servers.NATS.URL(), "--redis-url", "redis://127.0.0.1:1"}, []string{"127.0.0.1:1"}},
	} {
		for _, mode := range []string{"", "--compare-only"} {
			printed := rebuild(t, rig.ExitFailed, slices.DeleteFunc(append(slices.Clip(c.flags), mode), func(f string) bool { return f == "" })...)
			if printed.stdout != "" || strings.Count(printed.stderr, "\n") != 1 {
				t.Errorf("%s: %q and %q, want one line on stderr", c.name, printed.stdout, printed.stderr)
			}
			for _, want := range c.says {
				if !strings.Contains(printed.stderr, want) {
					t.Errorf("%s: %q does not say %s", c.name, printed.stderr, want)
				}
			}
		}
	}

	// No harm was done: nothing was made that was not there, and nobody was disturbed.
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was made: %v", missing, err)
	}
	for s, before := range services {
		checkOneGeneration(t, openRedis(s))
		before.Check(s)
		if log := s.Errors.String(); strings.Contains(log, "rebuilding") || strings.Contains(log, "taken over") {
			t.Errorf("the read model of a service was replaced:\n%s", log)
		}
	}
	if _, err := rig.ReadLog(t.Context(), rig.ConnectNATS(t, other.NATS.URL())); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("a log was made where there was none: %v", err)
	}
}

func TestDifferencesThatARebuildFindsAreToldAndMended(t *testing.T) {
	t.Parallel()
	for _, setup := range []struct {
		name  string
		start func(t *testing.T) (s *rig.Service, flags []string)
	}{
		{"everything embedded", func(t *testing.T) (*rig.Service, []string) {
			s := rig.Start(t, "--dev")
			return s, []string{"--data-dir", s.Flag("--data-dir")}
		}},
		{"nats and redis", func(t *testing.T) (*rig.Service, []string) {
			servers := rig.StartServers(t)
			return rig.Start(t, servers.Flags()...), servers.Stores()
		}},
	} {
		t.Run(setup.name, func(t *testing.T) {
			t.Parallel()
			s, flags := setup.start(t)
			before := rig.Fill(t, s, 12)
			rdb := openRedis(s)
			last := s.NewestPosition()
			want := plantDifferences(t, rdb, before)

			compared := rebuild(t, rig.ExitFailed, append(flags, "--compare-only")...)
			lines := compared.lines()
			if !slices.Equal(inOrder(lines[:len(lines)-1]), inOrder(want)) {
				t.Errorf("told:\n%s\nwant:\n%s", compared.stdout, strings.Join(want, "\n"))
			}
			summary := fmt.Sprintf("A read model of 12 sessions, up to position %d of the log: %d differences to the ", last, len(want))
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, summary+"log; it stays as it is.") {
				t.Errorf("told %q, want %q", last, summary)
			}
			if !strings.Contains(compared.stderr, "chatsessions rebuild repairs it") {
				t.Errorf("stderr is %q", compared.stderr)
			}

			// In JSON, the same.
			printed := rebuild(t, rig.ExitFailed, append(flags, "--compare-only", "--output", "json")...)
			var asText []string
			for _, line := range printed.lines()[:len(printed.lines())-1] {
				var d struct {
					SessionID, Index, Detail string
					Position                 uint64
				}
				if err := json.Unmarshal([]byte(line), &d); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				where := "document"
				if d.Index != "" {
					where = "index " + d.Index
				}
				asText = append(asText, fmt.Sprintf("session %s, %s: %s", d.SessionID, where, d.Detail))
			}
			if !slices.Equal(inOrder(asText), inOrder(want)) {
				t.Errorf("told:\n%s", printed.stdout)
			}
			if got := printed.summary(t).Differences; got != uint64(len(want)) {
				t.Errorf("%d differences in %s", got, printed.stdout)
			}

			rebuilt := rebuild(t, rig.ExitDone, flags...)
			answersNow := fmt.Sprintf("A read model of 12 sessions, up to position %d of the log: the old one had %d differences to the log; it answers now.", last, len(want))
			if lines := rebuilt.lines(); !slices.Equal(inOrder(lines[:len(lines)-1]), inOrder(want)) || !strings.HasPrefix(lines[len(lines)-1], answersNow) {
				t.Errorf("told:\n%s", rebuilt.stdout)
			}
			before.Check(s)
			checkOneGeneration(t, rdb)
			rebuild(t, rig.ExitDone, append(flags, "--compare-only")...).expect(t, `^A read model of 12 sessions, .*: 0 differences `)
		})
	}
}

// plantDifferences damages the read model in every way, and returns what a comparison
// has to say about it.
func plantDifferences(t *testing.T, rdb *redis.Client, was rig.Content) (lines []string) {
	t.Helper()
	ctx := t.Context()
	begin := "cs2:{0}:" + answeringGeneration(t, rdb) + ":"
	paths := was.Paths()
	differs := func(id, format string, args ...any) {
		lines = append(lines, "session "+id+", "+fmt.Sprintf(format, args...))
	}
	planted := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id := func(i int) string { return strings.TrimPrefix(paths[i], "/chat-sessions/") }
	document := func(id string) string {
		text, err := rdb.Get(ctx, begin+"doc:"+id).Result()
		planted(err)
		return text
	}
	member := func(text string) string {
		_, rest, _ := strings.Cut(text, "\n")
		return rest[:24]
	}
	member4 := member(document(id(4)))

	_, room, _ := strings.Cut(document(id(0)), `"room":"`)
	room, _, _ = strings.Cut(room, `"`)
	planted(rdb.Set(ctx, begin+"doc:"+id(0), strings.Replace(document(id(0)), `"room":"`, `"room":"not `, 1), 0).Err())
	differs(id(0), "document: the document differs: room is \"not %s\", and in the log \"%s\"", room, room)

	planted(rdb.ZRem(ctx, begin+"by:all", member(document(id(1)))).Err())
	differs(id(1), "index all: the index lacks the session")

	planted(rdb.Del(ctx, begin+"doc:"+id(2)).Err())
	differs(id(2), "document: the session is missing")

	planted(rdb.Set(ctx, begin+"doc:"+id(3), "garbage", 0).Err())
	differs(id(3), "document: the document cannot be read: a document of 7 bytes is not in the layout cs2")

	planted(rdb.ZAdd(ctx, begin+"by:room:elsewhere", redis.Z{Member: member4}).Err())
	differs(id(4), "index room:elsewhere: the index has the session, which does not belong there")

	old := document(id(5)) // of its first event
	at := strings.LastIndexByte(old, ' ')
	planted(rdb.Set(ctx, begin+"doc:"+id(5), old[:at]+" 1", 0).Err())
	differs(id(5), "document: the document is of position 1")

	// A session that the log does not have, as a copy of another one: with its index
	// entries, and without any.
	for i, ghost := range []string{"01a203c8-0000-7000-8000-000000000001", "01a203c8-0000-7000-8000-000000000002"} {
		text := document(id(6))
		named := make([]byte, 16)
		_, err := fmt.Sscanf(strings.ReplaceAll(ghost, "-", ""), "%x", &named)
		planted(err)
		ghostMember := member(text)[:8] + string(named)
		text = strings.ReplaceAll(strings.Replace(text, member(text), ghostMember, 1), id(6), ghost)
		planted(rdb.Set(ctx, begin+"doc:"+ghost, text, 0).Err())
		differs(ghost, "document: the session is not in the log")
		if i == 0 {
			planted(rdb.ZAdd(ctx, begin+"by:all", redis.Z{Member: ghostMember}).Err())
			differs(ghost, "index all: the index has the session, which does not belong there")
		}
	}
	return lines
}

func TestARebuildBesideAnotherOneGivesUp(t *testing.T) {
	t.Parallel()
	servers := rig.StartServers(t)
	s := rig.Start(t, servers.Flags()...)
	before := rig.Fill(t, s, 6)
	rdb := openRedis(s)
	generation := answeringGeneration(t, rdb)
	another := redis.Z{Score: float64(time.Now().Add(time.Hour).UnixMilli()), Member: "another one"}
	if err := rdb.ZAdd(t.Context(), rebuildLock, another).Err(); err != nil {
		t.Fatal(err)
	}
	printed := rebuild(t, rig.ExitFailed, servers.Stores()...)
	if printed.stdout != "" || !strings.Contains(printed.stderr, "another rebuild of this read model is at work") {
		t.Errorf("%q, %q", printed.stdout, printed.stderr)
	}
	if got := answeringGeneration(t, rdb); got != generation {
		t.Errorf("generation %s answers, and %s did before", got, generation)
	}
	before.Check(s)
	// Two at once: one waits for the other.
	if err := rdb.Del(t.Context(), rebuildLock).Err(); err != nil {
		t.Fatal(err)
	}
	one, other := startRebuild(t, servers.Stores()...), startRebuild(t, servers.Stores()...)
	for _, run := range []rebuildRun{one.wait(), other.wait()} {
		if run.status != rig.ExitDone {
			t.Errorf("exit status %d, %q", run.status, run.stderr)
		}
	}
	checkOneGeneration(t, rdb)
	before.Check(s)
}

func TestARebuildThatIsInterruptedLeavesNothingToWaitFor(t *testing.T) {
	t.Parallel()
	servers := rig.StartServers(t)
	s := rig.Start(t, servers.Flags()...)
	before := rig.Fill(t, s, 12)
	rdb := openRedis(s)
	interrupted := 0
	for range 4 {
		p := startRebuild(t, servers.Stores()...)
		rig.Eventually(t, func() error { return p.begun(t, rdb) })
		p.signal(syscall.SIGINT)
		run := p.wait()
		if run.status == rig.ExitFailed && run.stdout == "" && strings.Contains(run.stderr, "did no harm") {
			interrupted++
		} else if run.status != rig.ExitDone { // it was through already
			t.Errorf("exit status %d, %q, %q", run.status, run.stdout, run.stderr)
		}
		if left, err := rdb.Exists(t.Context(), rebuildLock).Result(); err != nil || left != 0 {
			t.Errorf("the lock is still there: %v", err)
		}
		before.Check(s)
	}
	t.Logf("%d of 4 were interrupted in time", interrupted)
	rebuild(t, rig.ExitDone, servers.Stores()...)
	checkOneGeneration(t, rdb)
	before.Check(s)
}

// rebuildLock is the key by which a rebuild keeps others from beginning.
const rebuildLock = "cs2:{0}:rebuilding"

// A rebuildProcess is `chatsessions rebuild`, as it runs.
type rebuildProcess struct {
	cmd            *exec.Cmd
	stdout, stderr servertest.Output
	exited         chan struct{}
}

func startRebuild(t *testing.T, flags ...string) *rebuildProcess {
	t.Helper()
	p := &rebuildProcess{cmd: exec.Command(rig.Binary, append([]string{"rebuild"}, flags...)...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = t.TempDir(), &p.stdout, &p.stderr
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() { p.signal(syscall.SIGKILL); <-p.exited })
	return p
}

// begun returns nil when the rebuild has begun its work, or is through with it.
func (p *rebuildProcess) begun(t *testing.T, rdb *redis.Client) error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	if n, err := rdb.Exists(t.Context(), rebuildLock).Result(); err != nil || n == 0 {
		return errors.Join(err, errors.New("the rebuild has not begun"))
	}
	return nil
}

func (p *rebuildProcess) signal(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal) // it may have ended already
}

func (p *rebuildProcess) wait() rebuildRun {
	<-p.exited
	return rebuildRun{p.cmd.ProcessState.ExitCode(), p.stdout.String(), p.stderr.String()}
}

// A rebuildRun is what came of `chatsessions rebuild`.
type rebuildRun struct {
	status         int
	stdout, stderr string
}

// rebuild runs `chatsessions rebuild`, which has to end with the status.
func rebuild(t *testing.T, status int, flags ...string) rebuildRun {
	t.Helper()
	var run rebuildRun
	run.status, run.stdout, run.stderr = rig.Command(t, nil, append([]string{"rebuild"}, flags...)...)
	if strings.Contains(run.stderr, "DATA RACE") || strings.Contains(run.stderr, "panic") {
		t.Errorf("a data race or a panic:\n%s", run.stderr)
	}
	if run.status != status {
		t.Fatalf("rebuild %q: exit status %d, want %d: %q, %q", flags, run.status, status, run.stdout, run.stderr)
	}
	return run
}

// progressLine is what a rebuild that takes longer than five seconds says now and then.
var progressLine = regexp.MustCompile(`(?m)^(reading|comparing|taking over|removing)\b[^:]*: \d+ .*\n`)

// expect fails the test unless the only line on stdout is like this, and there is
// nothing on stderr but progress.
func (r rebuildRun) expect(t *testing.T, line string) {
	t.Helper()
	if !regexp.MustCompile(line).MatchString(strings.TrimSuffix(r.stdout, "\n")) || strings.Count(r.stdout, "\n") != 1 || progressLine.ReplaceAllString(r.stderr, "") != "" {
		t.Errorf("told %q and %q, want %s", r.stdout, r.stderr, line)
	}
}

func (r rebuildRun) lines() []string { return strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n") }

// A rebuiltLine is what --output json says at the end, but for the number of keys.
type rebuiltLine struct {
	Position, Sessions uint64
	Compared           bool
	Differences        uint64
}

func (r rebuildRun) summary(t *testing.T) (printed rebuiltLine) {
	t.Helper()
	lines := r.lines()
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &printed); err != nil {
		t.Fatalf("%q: %v", r.stdout, err)
	}
	return printed
}

// openRedis connects to the Redis of the service's read model, wherever that is.
func openRedis(s *rig.Service) *redis.Client {
	s.T.Helper()
	url := s.Flag("--redis-url")
	if url == "" {
		url = s.Connection().RedisURL
	}
	return dialRedis(s.T, url)
}

func dialRedis(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

// answeringGeneration is the generation of the read model that answers, which has one
// partition.
func answeringGeneration(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	text, err := rdb.Get(t.Context(), "cs2:{0}:checkpoint").Result()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(text)
	if len(fields) < 4 {
		t.Fatalf("the checkpoint is %q", text)
	}
	return fields[2]
}

// checkOneGeneration fails the test where Redis holds anything of a read model but the
// generation that answers.
func checkOneGeneration(t *testing.T, rdb *redis.Client) {
	t.Helper()
	generation := answeringGeneration(t, rdb)
	known, err := rdb.SMembers(t.Context(), "cs2:{0}:generations").Result()
	if err != nil || !slices.Equal(known, []string{generation}) {
		t.Errorf("the generations are %q, %v; %s answers", known, err, generation)
	}
	left := slices.DeleteFunc(keysOf(t, rdb, "cs2*"), func(key string) bool {
		rest, _ := strings.CutPrefix(key, "cs2:{0}:")
		return rest == "checkpoint" || rest == "generations" || strings.HasPrefix(rest, generation+":")
	})
	if len(left) > 0 {
		t.Errorf("%d keys were left behind: %.20q", len(left), left)
	}
}

func keysOf(t *testing.T, rdb *redis.Client, pattern string) (keys []string) {
	t.Helper()
	all := rdb.Scan(t.Context(), 0, pattern, 1000).Iterator()
	for all.Next(t.Context()) {
		keys = append(keys, all.Val())
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return keys
}

func inOrder(lines []string) []string {
	lines = slices.Clone(lines)
	slices.Sort(lines)
	return lines
}

func TestARebuildShowsItsProgressOnATerminal(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	rig.Fill(t, s, 6)
	shown, err := exec.Command("script", "-qec", rig.Binary+" rebuild --data-dir "+s.Flag("--data-dir"), "/dev/null").CombinedOutput()
	if err != nil || !strings.Contains(string(shown), "it answers now") {
		t.Errorf("%v: %q", err, shown)
	}
	for _, stage := range []string{"reading the log", "comparing", "taking over", "removing the old one"} {
		if !strings.Contains(string(shown), stage) {
			t.Errorf("%q lacks %s", shown, stage)
		}
	}
}
