package redisfaults

import (
	"context"
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// The redis_faults_… files break the read model's Redis, the log beneath it and the
// projectors, with two API nodes and two projectors under load.
var (
	faultsGone  = flag.Duration("redisfaults.gone", 8*time.Second, "how long the fault tests have Redis gone")
	faultsTimes = flag.Int("redisfaults.times", 1, "how many times as often the fault tests inject each fault")
)

// A faultRig is the service in parts, each a process of its own, and what they share.
type faultRig struct {
	t          *testing.T
	nats       *natstest.Server
	store      string            // of nats, a directory
	redis      *redistest.Server // that the links lead to at first
	redisLinks redisLinks
	api        []*rig.Service
	projectors []*rig.Service
	load       *faultLoad

	done    int           // faults
	slowest time.Duration // healing
}

// redisLinks are between Redis and the processes of the service: the projectors' first,
// then the API nodes'.
type redisLinks []*link

// lead has new connections go to an address, nil for nowhere, and breaks those there are.
func (links redisLinks) lead(address *string) {
	for _, l := range links {
		l.lead(address)
	}
}

// startFaultRig starts everything, and the load.
func startFaultRig(t *testing.T) *faultRig {
	t.Helper()
	r := &faultRig{t: t, store: filepath.Join(t.TempDir(), "store"), redis: redistest.Start(t, redistest.Config{})}
	r.nats = natstest.Start(t, natstest.Config{StoreDir: r.store})
	start := func(part string) *rig.Service {
		l := startLink(t, r.redis.Addr())
		r.redisLinks = append(r.redisLinks, l)
		return rig.Start(t, "--dev", "--nats-url", r.nats.URL(), "--redis-url", l.through(t, r.redis.URL()), "--only", part)
	}
	r.projectors = []*rig.Service{start("projector"), start("projector")}
	r.api = []*rig.Service{start("api"), start("api")}
	r.load = &faultLoad{nodes: r.api, truth: newTruth()}
	t.Cleanup(r.tell)
	r.startLoad(time.Second)
	return r
}

// startLoad has the clients run, and returns when they have for a while.
func (r *faultRig) startLoad(ahead time.Duration) {
	r.load.start(r.t.Context())
	r.t.Cleanup(r.load.halt) // before the services end, whatever happens
	r.goOn(ahead)
}

// goOn lets the load run.
func (r *faultRig) goOn(d time.Duration) {
	r.t.Helper()
	if !sleep(r.t.Context(), d) {
		r.t.Fatal("the test was ended")
	}
}

// fault is one fault: it is injected, stays for a while, is repaired, and then
// everything has to heal by itself.
func (r *faultRig) fault(inject func(), stays time.Duration, repair func()) {
	r.t.Helper()
	r.load.faulty.Store(true)
	inject()
	r.goOn(stays)
	repair()
	r.heals()
	r.over()
}

// over ends a fault that has healed.
func (r *faultRig) over() {
	r.t.Helper()
	r.load.faulty.Store(false)
	r.done++
	r.goOn(300 * time.Millisecond)
}

// heals returns when both nodes take a write, list it and read it from the read model.
func (r *faultRig) heals() {
	r.t.Helper()
	over := time.Now()
	for _, node := range r.api {
		rig.Eventually(r.t, func() error { return r.load.answersAgain(node) })
	}
	r.slowest = max(r.slowest, time.Since(over))
}

// conclude ends the load, compares everything with the log, and tells what was seen.
func (r *faultRig) conclude(what string) {
	r.t.Helper()
	r.load.halt()
	for _, s := range append(slices.Clone(r.projectors), r.api...) {
		select {
		case <-s.Exited:
			r.t.Errorf("a service has ended by itself: %v", s.Cmd.ProcessState)
		default:
		}
	}
	events := r.api[0].SettledLog()
	for _, finding := range r.load.truth.compare(events) {
		r.load.report(finding)
	}
	r.api[0].Verify()
	for _, node := range r.api {
		rig.CheckReadModel(r.t, node, events)
	}
	r.t.Logf("%s: done %d times, %s, lost %d, stale %d; healed within %s; outside of it: %s", what, r.done, &r.load.during,
		r.load.count(foundLost), r.load.count(foundStale), r.slowest.Round(10*time.Millisecond), &r.load.calm)
}

// tell fails the test with what was found, also when it was given up.
func (r *faultRig) tell() {
	for i, finding := range r.load.findings {
		if i == 5 {
			r.t.Errorf("and %d more", len(r.load.findings)-i)
			break
		}
		r.t.Error(finding)
	}
}

// times runs an injection as often as it is asked for.
func (r *faultRig) times(n int, inject func(i int)) {
	for i := range n * *faultsTimes {
		inject(i)
	}
}

// redisCommand sends a command to a Redis server, past the links, and returns the answer.
func redisCommand(t *testing.T, server *redistest.Server, command ...any) string {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	defer client.Close()
	answer, err := client.Do(context.WithoutCancel(t.Context()), command...).Text()
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	return answer
}

// readFromTheLog fails the test unless that was necessary while a fault was there.
func (r *faultRig) readFromTheLog() {
	r.t.Helper()
	if r.load.during.getsFromLog.Load() == 0 {
		r.t.Error("the fault did not show: no session was read from the log")
	}
}

// refusedBy fails the test unless the server has refused commands with this error.
func refusedBy(t *testing.T, server *redistest.Server, prefix string) {
	t.Helper()
	if stats := redisCommand(t, server, "INFO", "errorstats"); !strings.Contains(stats, "errorstat_"+prefix+":") {
		t.Errorf("redis-server has refused nothing with %s:\n%s", prefix, stats)
	}
}

// logged counts the lines of the services' logs that have a text.
func logged(services []*rig.Service, text string) (n int) {
	for _, s := range services {
		n += strings.Count(s.Errors.String(), text)
	}
	return n
}
