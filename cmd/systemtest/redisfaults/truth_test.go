package redisfaults

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"chatsessions/cmd/systemtest/rig"
)

// A truth is what the answers have shown so far, and with it what any later answer
// has to show: a session is never older than an answer that was there before the
// question was sent, and no list lacks it.
//
// The sessions are written by one client each, and every write makes one event.
type truth struct {
	mu       sync.Mutex
	era      int               // grows when the log is put back to an older copy
	sessions map[string]*known // by id
	written  map[string]string // the session of each write that was answered, by X-Request-Id
}

// A known is what was shown of a session.
type known struct {
	floor     int            // the newest version that was shown; 0 for none
	createdAt int64          // which orders it, with the id
	team      string         // its participant
	shown     map[int]string // the session at each version
	// lost is what was shown of it that an older copy of the log does not have.
	lost map[int]string
}

// A shownSession is what the checks need of one.
type shownSession struct {
	ID           string
	CreatedAt    int64
	Version      int
	State        string
	Participants []string
	text         string // as it was sent
}

// A demand is what has to be shown, as of when it was sent.
type demand struct {
	era    int
	floors map[string]int // by id
	state  string         // of all that are listed, "" for any
	limit  int            // of the list
}

// An untruth is an answer that is not right.
type untruth struct {
	kind untruthKind
	text string
}

type untruthKind string

const (
	foundLost  untruthKind = "lost"  // a write that was answered is not in the log
	foundStale untruthKind = "stale" // an older state, a false 404, a list that lacks a session
	foundWrong untruthKind = "wrong" // anything else
)

func (f *untruth) Error() string { return string(f.kind) + ": " + f.text }

func found(kind untruthKind, format string, args ...any) error {
	return &untruth{kind, fmt.Sprintf(format, args...)}
}

func newTruth() *truth {
	return &truth{sessions: map[string]*known{}, written: map[string]string{}}
}

// about is the demand for one session, which may be one that nobody knows.
func (t *truth) about(id string) demand {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := demand{era: t.era, floors: map[string]int{}}
	if k := t.sessions[id]; k != nil && k.floor > 0 {
		q.floors[id] = k.floor
	}
	return q
}

// ofTeam is the demand for all sessions with a participant; "" for all that are.
func (t *truth) ofTeam(team string, limit int) demand {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := demand{era: t.era, floors: map[string]int{}, limit: limit}
	for id, k := range t.sessions {
		if k.floor > 0 && (team == "" || k.team == team) {
			q.floors[id] = k.floor
		}
	}
	return q
}

// ofState is the demand for one session in a list of those in its state.
func (t *truth) ofState(id, state string, limit int) demand {
	q := t.about(id)
	q.state, q.limit = state, limit
	return q
}

// any is one of the sessions that were shown, "" for none.
func (t *truth) any() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.sessions { // in no order
		return id
	}
	return ""
}

// wrote judges the answer to a write that was answered with a 200.
func (t *truth) wrote(q demand, request string, a rig.Answer) (shownSession, error) {
	s, err := parseShown(a.Body)
	if err != nil {
		return s, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written[request] = s.ID
	if s.Version <= q.floors[s.ID] && q.era == t.era {
		return s, found(foundWrong, "a write was answered with version %d, and version %d was there before: %s", s.Version, q.floors[s.ID], s.text)
	}
	return s, t.show(s, a)
}

// read judges the answer to a GET by id: the truth, or a 503.
func (t *truth) read(q demand, id string, a rig.Answer) error {
	if isRefusal(a) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.era != t.era {
		return nil // sent to one log and answered by another: either is right
	}
	floor := q.floors[id]
	switch {
	case a.Status == 404 && floor > 0:
		return found(foundStale, "%s is a 404, and version %d of it was there before", id, floor)
	case a.Status == 404:
		return nil
	case a.Status != 200:
		return found(foundWrong, "%s: %d %s", id, a.Status, a.Body)
	}
	s, err := parseShown(a.Body)
	switch source := a.Header.Get("Chat-Sessions-Source"); {
	case err != nil:
		return err
	case s.ID != id:
		return found(foundWrong, "%s was asked for, and answered was %s", id, s.text)
	case source != "" && source != "log":
		return found(foundWrong, "%s comes from the %q", id, source)
	case s.Version < floor:
		return found(foundStale, "version %d was there before, and a GET shows %s, from %q", floor, s.text, source)
	}
	return t.show(s, a)
}

// list judges the answer to a list: the truth, newest first, or a 503.
func (t *truth) list(q demand, a rig.Answer) error {
	if isRefusal(a) {
		return nil
	}
	if a.Status != 200 {
		return found(foundWrong, "a list: %d %s", a.Status, a.Body)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(a.Body, &items); err != nil {
		return found(foundWrong, "a list: %v: %s", err, a.Body)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.era != t.era {
		return nil
	}
	listed := map[string]bool{}
	var last shownSession
	for i, item := range items {
		s, err := parseShown(item)
		switch {
		case err != nil:
			return err
		case i > 0 && !newer(last.CreatedAt, last.ID, s.CreatedAt, s.ID):
			return found(foundWrong, "a list has %s before %s", last.text, s.text)
		case s.Version < q.floors[s.ID]:
			return found(foundStale, "version %d was there before, and a list shows %s", q.floors[s.ID], s.text)
		case q.state != "" && s.State != q.state:
			return found(foundWrong, "a list of those that are %s has %s", q.state, s.text)
		}
		if err := t.show(s, rig.Answer{}); err != nil {
			return err
		}
		listed[s.ID], last = true, s
	}
	for id, floor := range q.floors {
		full := len(items) >= q.limit // then what is older need not be in it
		if k := t.sessions[id]; !listed[id] && (!full || newer(k.createdAt, id, last.CreatedAt, last.ID)) {
			return found(foundStale, "a list of %d lacks %s, of which version %d was there before", len(items), id, floor)
		}
	}
	return nil
}

// show notes what an answer has shown of a session.
func (t *truth) show(s shownSession, a rig.Answer) error {
	if a.Header != nil && a.Header.Get("ETag") != strconv.Quote(strconv.Itoa(s.Version)) {
		return found(foundWrong, "the ETag %s goes with %s", a.Header.Get("ETag"), s.text)
	}
	k := t.sessions[s.ID]
	if k == nil {
		k = &known{shown: map[int]string{}, createdAt: s.CreatedAt}
		if len(s.Participants) > 0 {
			k.team = s.Participants[0]
		}
		t.sessions[s.ID] = k
	}
	if k.lost[s.Version] == s.text {
		return found(foundStale, "shown is what the log has lost: %s", s.text)
	}
	if before, is := k.shown[s.Version]; is && before != s.text {
		return found(foundWrong, "shown is %s, and was %s", s.text, before)
	}
	k.shown[s.Version] = s.text
	k.floor = max(k.floor, s.Version)
	return nil
}

// restored tells of a log that was put back to an older copy, which has these
// events. It returns how many answered writes that copy does not have.
func (t *truth) restored(events []rig.Event) (undone int) {
	chains, requests := chainsOf(events)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.era++
	for id, k := range t.sessions {
		k.lost = map[int]string{}
		for version, text := range k.shown {
			if version > len(chains[id]) {
				k.lost[version] = text
				delete(k.shown, version)
			}
		}
		k.floor = len(chains[id])
	}
	for request := range t.written {
		if requests[request] == 0 {
			undone++
			delete(t.written, request)
		}
	}
	return undone
}

// lost is the sessions that the newest restore took away, and those of which it took
// some events.
func (t *truth) lost() (whole, partly []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, k := range t.sessions {
		switch {
		case len(k.lost) == 0:
		case k.lost[1] != "":
			whole = append(whole, id)
		default:
			partly = append(partly, id)
		}
	}
	return whole, partly
}

// compare compares everything that was shown with the log.
func (t *truth) compare(events []rig.Event) (findings []error) {
	chains, requests := chainsOf(events)
	t.mu.Lock()
	defer t.mu.Unlock()
	for request, id := range t.written {
		if requests[request] == 0 {
			findings = append(findings, found(foundLost, "the log does not have the write %s to %s, which was answered", request, id))
		}
	}
	for request, n := range requests {
		if n > 1 {
			findings = append(findings, found(foundWrong, "the log has %d events of %s", n, request))
		}
	}
	for id, k := range t.sessions {
		for _, version := range slices.Sorted(maps.Keys(k.shown)) {
			switch chain := chains[id]; {
			case version > len(chain):
				findings = append(findings, found(foundLost, "the log has %d events of %s, and shown was %s", len(chain), id, k.shown[version]))
			case chain[version-1] != k.shown[version]:
				findings = append(findings, found(foundWrong, "the log has %s, and shown was %s", chain[version-1], k.shown[version]))
			}
		}
	}
	return findings
}

// chainsOf is the session after each of its events, by its id, and how many events
// each request has.
func chainsOf(events []rig.Event) (chains map[string][]string, requests map[string]int) {
	chains, requests = map[string][]string{}, map[string]int{}
	for _, e := range events {
		id := strings.TrimPrefix(e.Subject, "chat-sessions.")
		var data struct{ Session json.RawMessage }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			data.Session = e.Data
		}
		chains[id] = append(chains[id], string(data.Session))
		requests[e.Header["ce-correlationid"][0]]++
	}
	return chains, requests
}

// isRefusal says whether the answer is that there is none now.
func isRefusal(a rig.Answer) bool { return a.Status == 503 && a.Header.Get("Retry-After") != "" }

func parseShown(text []byte) (shownSession, error) {
	s := shownSession{text: string(text)}
	if err := json.Unmarshal(text, &s); err != nil || s.ID == "" || s.Version == 0 {
		return s, found(foundWrong, "%s is no session: %v", text, err)
	}
	return s, nil
}

// newer says whether a comes before b in a list.
func newer(aCreated int64, aID string, bCreated int64, bID string) bool {
	return aCreated > bCreated || aCreated == bCreated && aID > bID
}
