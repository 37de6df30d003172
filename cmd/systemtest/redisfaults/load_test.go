package redisfaults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// The load of the fault tests: few clients with pauses, so that several tests can run
// at once and a fault is met by many different moments rather than by many requests.
const (
	faultWriters = 16
	faultReaders = 4
	faultPause   = 30 * time.Millisecond // between two steps of a client
	teamSize     = 40                    // sessions of one writer that a list has at most
)

// A faultLoad is clients that write on one node and at once read on the other.
type faultLoad struct {
	nodes []*rig.Service
	truth *truth
	// mayRefuse says that writes can be refused now, because the log is away.
	mayRefuse atomic.Bool
	// faulty says that a fault is there: what is asked from now on counts as such.
	faulty atomic.Bool

	requests atomic.Int64 // for their ids
	during   faultScore   // while a fault was there
	calm     faultScore

	mu       sync.Mutex
	findings []error
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// A faultScore counts answers.
type faultScore struct {
	writes, writesRefused          atomic.Int64
	gets, getsFromLog, getsRefused atomic.Int64 // by id
	lists, listsRefused            atomic.Int64
}

func (s *faultScore) String() string {
	return fmt.Sprintf("answered writes %d / 503 %d, GETs %d (of them %d from the log) / 503 %d, lists %d right / 503 %d",
		s.writes.Load(), s.writesRefused.Load(), s.gets.Load(), s.getsFromLog.Load(), s.getsRefused.Load(), s.lists.Load(), s.listsRefused.Load())
}

// start runs the clients until halt.
func (l *faultLoad) start(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	for i := range faultWriters {
		l.running.Go(func() {
			for n := i; sleep(ctx, faultPause); n++ {
				l.life(ctx, n%len(l.nodes), fmt.Sprintf("team-%d-%d", i, n/teamSize))
			}
		})
	}
	for range faultReaders {
		l.running.Go(func() {
			for sleep(ctx, faultPause) {
				l.readOlder()
			}
		})
	}
}

// halt returns when what was asked has been answered.
func (l *faultLoad) halt() {
	l.stop()
	l.running.Wait()
}

// life creates a session and leads it to its end. Each write is followed at once by a
// GET and two lists on another node than the one that wrote.
func (l *faultLoad) life(ctx context.Context, node int, team string) {
	writer, reader := l.nodes[node].As("account-"+team), l.nodes[(node+1)%len(l.nodes)].As("account-"+team)
	path := "/chat-sessions"
	id := ""
	changes := []string{`{"start":true}`, `{"accept":true}`, `{"room":"another"}`, `{"finish":"done"}`}
	if rand.N(2) == 0 {
		changes[1] = `{"reject":"busy"}`
	}
	method, body := "POST", fmt.Sprintf(`{"room":"r","participants":[%q]}`, team)
	for step, version := 0, 0; ; step++ {
		s, ok := l.write(writer, method, path, id, version, body)
		if !ok {
			return
		}
		id, path, version = s.ID, "/chat-sessions/"+s.ID, s.Version
		var reading sync.WaitGroup
		reading.Go(func() { l.get(reader, id) })
		reading.Go(func() { l.list(reader, "participants="+team+"&$limit=100", l.truth.ofTeam(team, 100)) })
		reading.Go(func() {
			l.list(reader, "participants="+team+"&$limit=100&state="+s.State, l.truth.ofState(id, s.State, 100))
		})
		reading.Wait()
		if step == len(changes) || !sleep(ctx, faultPause) {
			return
		}
		method, body = "PATCH", changes[step]
	}
}

// readOlder reads any session that is known, and the newest of all, on any node.
func (l *faultLoad) readOlder() {
	reader := l.nodes[rand.N(len(l.nodes))].As("service-reader")
	if id := l.truth.any(); id != "" {
		l.get(reader, id)
	}
	l.list(reader, "$limit=20", l.truth.ofTeam("", 20))
}

// write makes a write after a version of the session, 0 for none, and says whether it
// was answered.
func (l *faultLoad) write(c *rig.Client, method, path, id string, after int, body string) (shownSession, bool) {
	score := l.score()
	q := l.truth.about(id)
	if q.floors[id] < after {
		return shownSession{}, false // the log was put back to before
	}
	mayRefuse := l.mayRefuse.Load()
	request := fmt.Sprintf("load-%d", l.requests.Add(1))
	a, err := c.Do(method, path, body, "X-Request-Id: "+request)
	switch {
	case err != nil:
		l.report(found(foundWrong, "%s %s: %v", method, path, err))
		return shownSession{}, false
	case a.Status == 200:
		score.writes.Add(1)
		s, err := l.truth.wrote(q, request, a)
		l.report(err)
		return s, err == nil
	case isRefusal(a) && (mayRefuse || l.mayRefuse.Load()):
		score.writesRefused.Add(1)
	case l.truth.about(id).era != q.era: // sent to one log and refused by another
	default:
		l.report(found(foundWrong, "%s %s %s: %d %s", method, path, body, a.Status, a.Body))
	}
	return shownSession{}, false
}

// get reads a session.
func (l *faultLoad) get(c *rig.Client, id string) rig.Answer {
	score := l.score()
	q := l.truth.about(id)
	a, err := c.Do("GET", "/chat-sessions/"+id, "")
	if err != nil {
		l.report(found(foundWrong, "GET %s: %v", id, err))
		return a
	}
	if isRefusal(a) {
		score.getsRefused.Add(1)
	} else {
		score.gets.Add(1)
	}
	if a.Header.Get("Chat-Sessions-Source") == "log" {
		score.getsFromLog.Add(1)
	}
	l.report(l.truth.read(q, id, a))
	return a
}

// list reads a list, of which something is demanded.
func (l *faultLoad) list(c *rig.Client, query string, q demand) rig.Answer {
	score := l.score()
	a, err := c.Do("GET", "/chat-sessions?"+query, "")
	if err != nil {
		l.report(found(foundWrong, "list %s: %v", query, err))
		return a
	}
	if isRefusal(a) {
		score.listsRefused.Add(1)
	} else {
		score.lists.Add(1)
	}
	l.report(l.truth.list(q, a))
	return a
}

// answersAgain returns nil when a node takes a write, shows it in a list, and reads it
// from the read model.
func (l *faultLoad) answersAgain(node *rig.Service) error {
	c := node.As("account-healed")
	s, ok := l.write(c, "POST", "/chat-sessions", "", 0, `{"participants":["healed"]}`)
	if !ok {
		return errors.New("a write is not answered")
	}
	if a := l.list(c, "$limit=5", l.truth.ofTeam("healed", 5)); a.Status != 200 {
		return a.Instead(nil)
	}
	if a := l.get(c, s.ID); a.Status != 200 || a.Header.Get("Chat-Sessions-Source") != "" {
		return a.Instead(nil)
	}
	return nil
}

func (l *faultLoad) score() *faultScore {
	if l.faulty.Load() {
		return &l.during
	}
	return &l.calm
}

// report keeps a finding.
func (l *faultLoad) report(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.findings = append(l.findings, fmt.Errorf("%s %w", time.Now().Format("15:04:05.000"), err))
}

// count is how many findings there are of a kind.
func (l *faultLoad) count(kind untruthKind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.findings {
		var f *untruth
		if errors.As(err, &f) && f.kind == kind {
			n++
		}
	}
	return n
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
