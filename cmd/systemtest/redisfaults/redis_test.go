package redisfaults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/projections/redistest"
)

// Whatever becomes of Redis: writes go on, sessions are read from the log, lists are
// refused or right, and everything heals by itself.
func TestUnderAFaultOfRedisWritesGoOnAndEveryAnswerIsTrue(t *testing.T) {
	for _, fault := range []struct {
		name   string
		inject func(t *testing.T, r *faultRig)
	}{
		{"killed, and back empty", killRedis},
		{"flushed", flushRedis},
		{"failed over to an older replica", failOver},
		{"failed over, one node hears late", failOverLate},
		{"read-only", makeReadOnly},
		{"out of memory", runOutOfMemory},
		{"slow", delayAnswers},
		{"gone, connections refused", refuseConnections},
		{"gone, connections hang", hangConnections},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel() // they do little but wait
			r := startFaultRig(t)
			fault.inject(t, r)
			r.conclude(fault.name)
			if n := r.load.during.getsRefused.Load(); n > 0 {
				t.Errorf("%d GETs by id were refused, though the log could be reached", n)
			}
		})
	}
}

func killRedis(_ *testing.T, r *faultRig) {
	r.times(2, func(int) { r.fault(r.redis.Kill, 3*time.Second, r.redis.Restart) })
	r.readFromTheLog()
}

func flushRedis(t *testing.T, r *faultRig) {
	r.times(8, func(int) { r.fault(r.redis.Flush, 0, func() {}) })
	if found := logged(r.projectors, "there is no read model: building it"); found < r.done {
		t.Errorf("flushed %d times, and the projectors built the read model %d times", r.done, found)
	}
}

// projectorsLater is how long after the API nodes the projectors find the new server:
// until then it is as old as it was.
const projectorsLater = 500 * time.Millisecond

func failOver(t *testing.T, r *faultRig) {
	replaceRedis(t, r, 6, func(by *redistest.Server) {
		address := by.Addr()
		r.redisLinks[2:].lead(&address)
		r.goOn(projectorsLater)
		r.redisLinks[:2].lead(&address)
	})
}

// failOverLate is failOver when one node hears of everything a while after the others.
func failOverLate(t *testing.T, r *faultRig) {
	late := r.redisLinks[3:]
	slowly := func(server *redistest.Server) {
		slow := startLink(t, server.Addr())
		slow.pace.Store(&pace{delay: 150 * time.Millisecond})
		address := slow.listener.Addr().String()
		late.lead(&address)
	}
	slowly(r.redis)
	last := replaceRedis(t, r, 4, func(by *redistest.Server) {
		address := by.Addr()
		r.redisLinks[2:3].lead(&address)
		slowly(by)
		r.goOn(projectorsLater)
		r.redisLinks[:2].lead(&address)
	})
	address := last.Addr()
	late.lead(&address) // there is much to compare
}

// replaceRedis has a replica fall behind for a while and puts it in the server's
// place, again and again in turns. It returns the server that is the last.
func replaceRedis(t *testing.T, r *faultRig, times int, replace func(by *redistest.Server)) *redistest.Server {
	primary, replica := r.redis, redistest.Start(t, redistest.Config{})
	for _, server := range []*redistest.Server{primary, replica} {
		redisCommand(t, server, "CONFIG", "SET", "repl-diskless-sync-delay", "0") // a copy is made at once
	}
	behind := []time.Duration{0, time.Second, 100 * time.Millisecond, 3 * time.Second}
	r.times(times, func(i int) {
		follow(t, replica, primary)
		redisCommand(t, replica, "REPLICAOF", "NO", "ONE")
		r.goOn(behind[i%len(behind)])
		r.fault(func() { replace(replica) }, 0, func() {})
		primary, replica = replica, primary
	})
	if found := logged(r.projectors, "msg=projecting"); found < r.done {
		t.Errorf("replaced %d times, and the projectors began anew %d times", r.done, found)
	}
	return primary
}

// follow makes one server a replica of another, and returns when it has a copy.
func follow(t *testing.T, replica, primary *redistest.Server) {
	t.Helper()
	host, port, _ := strings.Cut(primary.Addr(), ":")
	redisCommand(t, replica, "REPLICAOF", host, port)
	rig.Eventually(t, func() error {
		if info := redisCommand(t, replica, "INFO", "replication"); !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("no replica yet: %s", info)
		}
		return nil
	})
}

// makeReadOnly has the server refuse writes in three ways, the last reads too.
func makeReadOnly(t *testing.T, r *faultRig) {
	dead := servertest.Port(t)
	configure := func(setting, value string) func() {
		return func() { redisCommand(t, r.redis, "CONFIG", "SET", setting, value) }
	}
	replica := func() { redisCommand(t, r.redis, "REPLICAOF", "127.0.0.1", dead) }
	primary := func() { redisCommand(t, r.redis, "REPLICAOF", "NO", "ONE") }
	const stays = 3 * time.Second
	r.times(1, func(int) {
		r.fault(replica, stays, primary)
		refusedBy(t, r.redis, "READONLY")
		r.fault(configure("min-replicas-to-write", "1"), stays, configure("min-replicas-to-write", "0"))
		refusedBy(t, r.redis, "NOREPLICAS")
		configure("replica-serve-stale-data", "no")()
		r.fault(replica, stays, primary)
		refusedBy(t, r.redis, "MASTERDOWN")
		configure("replica-serve-stale-data", "yes")()
	})
	r.readFromTheLog()
}

// runOutOfMemory takes the memory away at once, and has it run out.
func runOutOfMemory(t *testing.T, r *faultRig) {
	limit := func(bytes int) func() {
		return func() { redisCommand(t, r.redis, "CONFIG", "SET", "maxmemory", fmt.Sprint(bytes)) }
	}
	r.times(1, func(int) {
		r.fault(limit(1), 3*time.Second, limit(0))
		refusedBy(t, r.redis, "OOM")
		_, used, _ := strings.Cut(redisCommand(t, r.redis, "INFO", "memory"), "used_memory:")
		var bytes int
		if _, err := fmt.Sscan(used, &bytes); err != nil {
			t.Fatal(err)
		}
		redisCommand(t, r.redis, "CONFIG", "RESETSTAT")
		r.fault(func() {
			limit(bytes + 64<<10)()
			rig.Eventually(t, func() error {
				if stats := redisCommand(t, r.redis, "INFO", "errorstats"); !strings.Contains(stats, "errorstat_OOM:") {
					return fmt.Errorf("there is memory left: %s", stats)
				}
				return nil
			})
		}, 3*time.Second, limit(0))
	})
	r.readFromTheLog()
}

func delayAnswers(t *testing.T, r *faultRig) {
	slow := startLink(t, r.redis.Addr())
	address := slow.listener.Addr().String()
	r.redisLinks.lead(&address)
	r.heals()
	r.times(1, func(int) {
		for _, p := range []pace{
			{delay: 5 * time.Millisecond},
			{delay: 100 * time.Millisecond},
			{jitter: 300 * time.Millisecond},
			{bytesPerSecond: 32 << 10},
			{delay: time.Second},
			{delay: time.Second, jitter: 3 * time.Second}, // more than the patience for an answer, now and then
		} {
			r.fault(func() { slow.pace.Store(&p) }, 2*time.Second, func() { slow.pace.Store(&pace{}) })
		}
	})
}

func refuseConnections(_ *testing.T, r *faultRig) {
	address := r.redis.Addr()
	r.times(1, func(int) {
		r.fault(func() { r.redisLinks.lead(nil) }, *faultsGone, func() { r.redisLinks.lead(&address) })
	})
	r.readFromTheLog()
}

// hangConnections takes connections and whatever is sent, and passes it on in the end.
func hangConnections(_ *testing.T, r *faultRig) {
	r.times(1, func(int) {
		var flow []func()
		r.fault(func() {
			for _, l := range r.redisLinks {
				flow = append(flow, l.stall())
			}
		}, *faultsGone, func() {
			for _, again := range flow {
				again()
			}
		})
	})
	r.readFromTheLog()
}
