//go:build powercut

package powercut

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// A write is a request of the load, and what was answered to it.
type write struct {
	id       string // of the request, which its events carry
	events   int    // that it leads to
	answered bool   // with a 200
	absent   bool   // the answer said that nothing was written
	position uint64
	body     []byte // the session as answered
}

// A diary has the writes to a data directory, in the order in which they were
// sent.
type diary struct {
	mu       sync.Mutex
	writes   []write
	sent     int // to this and to earlier disks
	answered int
	changes  atomic.Int64 // made up for the load so far
}

func (d *diary) send(events int) (place int, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	place = len(d.writes)
	d.sent++
	id = "powercut-" + strconv.Itoa(d.sent)
	d.writes = append(d.writes, write{id: id, events: events})
	return place, id
}

// receive notes an answer that has come in as a whole.
func (d *diary) receive(place int, a rig.Answer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := &d.writes[place]
	if a.Status == http.StatusServiceUnavailable { // a slow disk; that is another matter
		w.absent = bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":false`))
		return nil
	}
	position, err := strconv.ParseUint(a.Header.Get("Chat-Sessions-Position"), 10, 64)
	if a.Status != http.StatusOK || err != nil {
		return a.Instead(err)
	}
	d.answered++
	w.answered, w.position, w.body = true, position, a.Body
	return nil
}

// now is what the diary says at this moment.
func (d *diary) now() []write {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.writes)
}

// goOnFrom makes the diary that of another disk, which has these writes.
func (d *diary) goOnFrom(writes []write) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes = writes
}

func (d *diary) answers() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answered
}

// A load is many writers at work on a service, all in their own sessions and now and
// then in one of another's.
type load struct {
	t       *testing.T
	diary   *diary
	several bool                   // events in each write
	large   bool                   // sessions, so that block files fill up soon
	shared  atomic.Pointer[string] // the path of the session that was created last

	refused atomic.Int64 // with a 503
	speedUp func()       // ends what slows the service down, if anything does
	stopped atomic.Bool
	running sync.WaitGroup
}

const loadWriters = 16

func startLoad(t *testing.T, s *rig.Service, d *diary, several, large bool) *load {
	l := &load{t: t, diary: d, several: several, large: large}
	c := s.As("service-crm")
	for range loadWriters {
		l.running.Go(func() {
			for !l.stopped.Load() {
				l.tell(c)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// stop returns when all that was sent is answered.
func (l *load) stop() {
	l.stopped.Store(true)
	l.running.Wait()
	if l.speedUp != nil {
		l.speedUp()
	}
}

// tell takes one session through its life, and changes another.
func (l *load) tell(c *rig.Client) {
	own := "/chat-sessions"
	method := http.MethodPost
	for _, r := range l.story() {
		a, ok := l.request(c, method, own, r)
		if !ok {
			return
		}
		if method == http.MethodPost {
			method, own = http.MethodPatch, a.Header.Get("Location")
			l.shared.Store(&own)
		}
	}
	if path := l.shared.Load(); path != nil {
		l.request(c, http.MethodPatch, *path, l.change())
	}
}

// A loadRequest is a body and how many events it leads to.
type loadRequest struct {
	body   string
	events int
}

// story is the life of a session: what it is created with, and the changes.
func (l *load) story() []loadRequest {
	members := `"room": "a room"`
	if l.large { // about 12 KB; an event has it twice or once
		var participants []string
		for n := range 100 {
			participants = append(participants, fmt.Sprintf(`"%0120d"`, n))
		}
		members += `, "participants": [` + strings.Join(participants, ", ") + `]`
	}
	if !l.several {
		return []loadRequest{
			{`{` + members + `}`, 1}, {`{"start": true}`, 1}, {`{"room": "another"}`, 1}, {`{"accept": true}`, 1}, {`{"finish": "bye"}`, 1},
		}
	}
	if l.diary.answers()%2 == 0 {
		return []loadRequest{
			{`{` + members + `, "createdAt": 1, "startedAt": 2, "acceptedAt": 1000000000, "finishedAt": 1000000001}`, 4},
		}
	}
	return []loadRequest{
		{`{` + members + `, "createdAt": 1, "startedAt": 2}`, 2},
		{`{"startedAt": 1, "room": "another", "accept": true, "finish": "bye"}`, 4},
	}
}

// change is one that any session of the load can be given at any time.
func (l *load) change() loadRequest {
	n := l.diary.changes.Add(1) + 2 // no two are alike, and none is before createdAt
	if !l.several {
		return loadRequest{fmt.Sprintf(`{"room": "room %d"}`, n), 1}
	}
	return loadRequest{fmt.Sprintf(`{"room": "room %d", "startedAt": %d}`, n, n), 2} // a correction and an update
}

func (l *load) request(c *rig.Client, method, path string, r loadRequest) (rig.Answer, bool) {
	if l.stopped.Load() {
		return rig.Answer{}, false
	}
	place, id := l.diary.send(r.events)
	a, err := c.Do(method, path, r.body, "X-Request-Id: "+id)
	if err == nil {
		err = l.diary.receive(place, a)
	}
	if err != nil {
		l.t.Errorf("%s %s %.100s: %v", method, path, r.body, err)
		l.stopped.Store(true)
	}
	if a.Status == http.StatusServiceUnavailable {
		l.refused.Add(1)
	}
	return a, err == nil && a.Status == http.StatusOK
}

// until waits for something that the load brings about.
func (l *load) until(what string, come func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(4 * rig.Patience); !come(); { // a disk may be slow
		if time.Now().After(deadline) || l.stopped.Load() {
			l.t.Fatalf("the load has not led to %s", what)
		}
		<-time.After(200 * time.Microsecond)
	}
}
