package chaos

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A view is a session as an answer or an event shows it. Of one session, each
// content has one view, so that two are compared by their addresses.
type view struct {
	ID           string   `json:"id"`
	CreatedAt    int64    `json:"createdAt"`
	CreatedBy    string   `json:"createdBy"`
	Room         string   `json:"room"`
	StartedAt    int64    `json:"startedAt"`
	StartedBy    string   `json:"startedBy"`
	AcceptedAt   int64    `json:"acceptedAt"`
	AcceptedBy   string   `json:"acceptedBy"`
	RejectedAt   int64    `json:"rejectedAt"`
	RejectedBy   string   `json:"rejectedBy"`
	RejectReason string   `json:"rejectReason"`
	FinishedAt   int64    `json:"finishedAt"`
	FinishedBy   string   `json:"finishedBy"`
	FinishReason string   `json:"finishReason"`
	Participants []string `json:"participants"`
	State        string   `json:"state"`
	Version      uint64   `json:"version"`
	UpdatedAt    int64    `json:"updatedAt"`
	json         string   // as it was sent
}

// A class says what the client knows of a request.
type class int

const (
	answered  class = iota // carried out, or shown
	refused                // by the rules: 304 and 4xx
	notDone                // 503, or 504: and it was not written
	perhaps                // 503: it may have been written
	noAnswer               // the connection broke, or nothing came in time
	undefined              // an answer that the contract does not have
)

// A chaosAttempt is one request and what came of it.
type chaosAttempt struct {
	request     string // its X-Request-Id
	node        int
	call, back  int64 // nanoseconds since the round began; back is forever without an answer
	class       class
	status      int
	view        *view  // the session that was answered, if one was
	version     uint64 // the ETag
	state       string // that a 409 told
	position    uint64
	explanation string // of undefined
}

// forever is later than anything.
const forever = math.MaxInt64

// A span of time, in nanoseconds since the round began.
type span struct{ from, to int64 }

// An operation is what a client wants, in as many attempts as it takes.
type operation struct {
	client   string // account
	method   string // POST, PATCH, GET, or LIST
	body     string
	key      string
	change   change
	ifMatch  uint64 // 0 for none
	not      uint64 // If-None-Match, 0 for none
	in       string // the state that a list filters by, "" for any
	attempts []chaosAttempt
}

// last is the attempt that resolved the operation, as far as anything did.
func (o *operation) last() *chaosAttempt { return &o.attempts[len(o.attempts)-1] }

func (o *operation) writes() bool { return o.method == "POST" || o.method == "PATCH" }

// A life is everything that was asked and answered about one session. Its tag, a
// participant that no other session has, is known before the session's id is.
type life struct {
	tag        string
	mu         sync.Mutex
	operations []*operation
	views      map[string]*view
}

// view returns the one view of a content.
func (l *life) view(content []byte) (*view, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, known := l.views[string(content)]; known {
		return v, nil
	}
	v := &view{json: string(content)}
	if err := json.Unmarshal(content, v); err != nil {
		return nil, fmt.Errorf("%s: %w", content, err)
	}
	if !slices.Contains(v.Participants, l.tag) {
		return nil, fmt.Errorf("asked for the session of %s, got %s", l.tag, content)
	}
	l.views[string(content)] = v
	return v, nil
}

func (l *life) add(o *operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.operations = append(l.operations, o)
}

// String tells the whole life in the order of the calls, for whoever has to find out.
func (l *life) String() string {
	type line struct {
		call int64
		text string
	}
	var lines []line
	for _, o := range l.operations {
		for i := range o.attempts {
			lines = append(lines, line{o.attempts[i].call, o.attempts[i].describe(o)})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return int(a.call - b.call) })
	var b strings.Builder
	fmt.Fprintf(&b, "the session of %s:\n", l.tag)
	for _, line := range lines {
		fmt.Fprintln(&b, line.text)
	}
	return b.String()
}

func (a *chaosAttempt) describe(o *operation) string {
	until := "-"
	if a.back != forever {
		until = fmt.Sprintf("%.4fs", time.Duration(a.back).Seconds())
	}
	text := fmt.Sprintf("  %.4fs to %s  node %d  %s %s", time.Duration(a.call).Seconds(), until, a.node+1, o.method, o.body)
	if o.ifMatch > 0 {
		text += fmt.Sprintf(" if version %d", o.ifMatch)
	}
	if o.key != "" {
		text += " key " + o.key
	}
	if o.in != "" {
		text += " in state " + o.in
	}
	text += fmt.Sprintf("  %s -> %d", a.request, a.status)
	switch {
	case a.view != nil:
		text += fmt.Sprintf(" version %d, %s, room %q, position %d", a.view.Version, a.view.State, a.view.Room, a.position)
	case a.state != "":
		text += " in state " + a.state
	case a.class == perhaps:
		text += " may have been written"
	}
	return text + " " + a.explanation
}

// A history is what was asked and answered in one round.
type history struct {
	round string
	began time.Time
	tally answerTally
	// unsynced is when no sync could succeed.
	unsynced []span

	mu        sync.Mutex
	lives     map[string]*life
	abandoned time.Time // when a request was last given up
}

func newHistory(round string, began time.Time) *history {
	return &history{round: round, began: began, lives: map[string]*life{}, abandoned: began}
}

// now is the time of this round, in nanoseconds.
func (h *history) now() int64 { return int64(time.Since(h.began)) }

// life begins the record of a session that is to be.
func (h *history) life(tag string) *life {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &life{tag: tag, views: map[string]*view{}}
	h.lives[tag] = l
	return l
}

func (h *history) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.abandoned = time.Now()
}

func (h *history) lastAbandoned() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.abandoned
}

// An answerTally counts answers by class while they come in.
type answerTally struct {
	classes [undefined + 1]atomic.Int64
	again   atomic.Int64 // repetitions with a key
}

func (y *answerTally) String() string {
	var n int64
	for i := range y.classes {
		n += y.classes[i].Load()
	}
	return fmt.Sprintf("%d requests: %d answered, %d refused, %d not carried out (503), %d perhaps (503), %d without an answer; %d repeated with their key",
		n, y.classes[answered].Load(), y.classes[refused].Load(), y.classes[notDone].Load(), y.classes[perhaps].Load(), y.classes[noAnswer].Load(), y.again.Load())
}

// unavailable is how many requests were answered 503.
func (y *answerTally) unavailable() int64 {
	return y.classes[notDone].Load() + y.classes[perhaps].Load()
}

func (h *history) addTo(t *totals) {
	for c, name := range []string{"answered", "refused by the rules (304, 4xx)", "503, not carried out", "503, perhaps written", "no answer"} {
		n := int(h.tally.classes[c].Load())
		t.add("requests", n)
		t.add("- "+name, n)
	}
	t.add("requests repeated with their key", int(h.tally.again.Load()))
}
