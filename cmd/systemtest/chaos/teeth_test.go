package chaos

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
)

// The checks of the chaos test have to find what is wrong: each of these histories
// is right but for one thing.
func TestTheChecksOfTheChaosTestFindWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(h *sample)
		found string // "" for nothing
	}{
		{"nothing is wrong", func(*sample) {}, ""},
		{"an answered write is not in the log", func(h *sample) { h.log = h.log[:1] }, "LOST"},
		{"a refused write is in the log", func(h *sample) { h.start.attempts[0].class = refused; h.start.attempts[0].status = 412 }, "is in the log"},
		{"a write that was said not to be written is in the log", func(h *sample) { h.start.attempts[0].class = notDone }, "is in the log"},
		{"a keyed write is in the log twice", func(h *sample) {
			again := h.start.attempts[0]
			again.request = "start again"
			h.start.attempts = append(h.start.attempts, again)
			h.write(again.request, h.v2)
		}, "both"},
		{"a keyed write is answered differently", func(h *sample) {
			again := h.start.attempts[0]
			again.request, again.view = "start again", h.v1
			h.start.attempts = append(h.start.attempts, again)
		}, "otherwise"},
		{"a keyed write is refused after it was written", func(h *sample) {
			h.start.attempts[0].class = noAnswer
			h.start.attempts = append(h.start.attempts, chaosAttempt{request: "start again", class: refused, status: 409, state: "started"})
		}, "repeats"},
		{"half of a write is in the log", func(h *sample) { h.start.change.directives = []string{"start", "accept"} }, "leads to 2"},
		{"a read shows an older state than an answered write", func(h *sample) { h.read.attempts[0].view = h.v1 }, "no order"},
		{"a session is missing after it was created", func(h *sample) {
			h.read.attempts[0] = chaosAttempt{call: 50, back: 60, class: refused, status: 404}
		}, "no order"},
		{"a write has another effect than it asked for", func(h *sample) { h.v2.Room = "elsewhere" }, "no order"},
		{"a read during the write may show either", func(h *sample) {
			h.read.attempts[0] = chaosAttempt{call: 25, back: 60, class: answered, status: 200, view: h.v1}
		}, ""},
		{"a write without an answer may be there", func(h *sample) {
			h.start.attempts[0] = chaosAttempt{request: "start", call: 20, back: forever, class: noAnswer}
		}, ""},
		{"or not", func(h *sample) {
			h.start.attempts[0] = chaosAttempt{request: "start", call: 20, back: forever, class: noAnswer}
			h.log, h.read.attempts[0].view = h.log[:1], h.v1
		}, ""},
		{"a write is answered while no sync succeeds", func(h *sample) { h.unsynced = []span{{15, 35}} }, "no sync"},
		{"an event that nobody asked for", func(h *sample) { h.write("stranger", h.v2) }, "no write"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newSample(t)
			test.spoil(h)
			l := newLedger(h.log)
			l.unsynced = h.unsynced
			l.ask(map[string]*life{"tag": h.life})
			err := l.checkLife(h.life)
			if err == nil {
				err = l.checkOrigin()
			}
			if test.found == "" && err != nil || test.found != "" && (err == nil || !strings.Contains(err.Error(), test.found)) {
				t.Errorf("found %v, want %q\n%s", err, test.found, h.life)
			}
		})
	}
}

// A sample is a session that was created, started and read, one after the other.
type sample struct {
	t                   *testing.T
	life                *life
	v1, v2              *view
	create, start, read *operation
	log                 []rig.Event
	unsynced            []span
}

func newSample(t *testing.T) *sample {
	h := &sample{t: t, life: newHistory("", time.Now()).life("tag")}
	h.v1 = h.view(`{"id":"s","createdAt":1,"createdBy":"me","participants":["tag"],"state":"created","version":1,"updatedAt":1}`)
	h.v2 = h.view(`{"id":"s","createdAt":1,"createdBy":"me","startedAt":2,"startedBy":"me","participants":["tag"],"state":"started","version":2,"updatedAt":2}`)
	h.create = &operation{client: "me", method: "POST", attempts: []chaosAttempt{{request: "create", call: 0, back: 10, status: 200, view: h.v1, position: 1, version: 1}}}
	h.start = &operation{client: "me", method: "PATCH", key: "k", change: change{directives: []string{"start"}},
		attempts: []chaosAttempt{{request: "start", call: 20, back: 30, status: 200, view: h.v2, position: 2, version: 2}}}
	h.read = &operation{client: "you", method: "GET", attempts: []chaosAttempt{{call: 40, back: 50, status: 200, view: h.v2, version: 2}}}
	for _, o := range []*operation{h.create, h.start, h.read} {
		h.life.add(o)
	}
	h.write("create", h.v1)
	h.write("start", h.v2)
	return h
}

func (h *sample) view(content string) *view {
	v, err := h.life.view([]byte(content))
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// write puts an event into the log.
func (h *sample) write(request string, v *view) {
	e := rig.Event{Subject: "chat-sessions.s", Sequence: uint64(len(h.log) + 1), Header: nats.Header{"ce-correlationid": {request}}}
	e.Data = fmt.Appendf(nil, `{"changes":{},"session":%s}`, v.json)
	if err := json.Unmarshal([]byte(v.json), &e.Session); err != nil {
		h.t.Fatal(err)
	}
	h.log = append(h.log, e)
}
