//go:build powercut

package powercut

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
)

// A program is the service as one of its builds, and how it is run.
type program struct {
	path string
	env  []string
}

// buildProgram builds the service with these tags.
func buildProgram(t *testing.T, tags string, env ...string) program {
	t.Helper()
	return program{rig.Build(t, "-tags", tags), env}
}

// on is a service on a data directory, not started yet. It is killed at the end of
// the test.
func (p program) on(t *testing.T, dir string) *rig.Service {
	s := &rig.Service{T: t, Binary: p.path, Env: p.env, Errors: &servertest.Output{}, Args: []string{
		"serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", dir,
	}}
	t.Cleanup(func() {
		if s.Exited != nil {
			s.Kill()
		}
		if p.env == nil {
			s.CheckSound()
		}
		if t.Failed() {
			t.Logf("the log of the service on %s:\n%s", dir, s.Errors.String())
		}
	})
	return s
}

// A finding is what became of the writes to a data directory in a power cut, or in
// several.
type finding struct {
	cuts                  int
	answered, found, lost int // answered writes; found with all that was answered
	whole, absent, torn   int // writes without an answer
	completed             int // that were torn until the service started
	unusable              int // power cuts after which the service did not get ready
}

func (f *finding) add(g finding) {
	f.cuts += g.cuts
	f.answered += g.answered
	f.found += g.found
	f.lost += g.lost
	f.whole += g.whole
	f.absent += g.absent
	f.torn += g.torn
	f.completed += g.completed
	f.unusable += g.unusable
}

// bad says what must not be, "" when nothing of it is there.
func (f *finding) bad() string {
	if f.lost+f.torn+f.unusable == 0 {
		return ""
	}
	return fmt.Sprintf("%d answered writes are lost, %d writes are torn, %d services do not get ready", f.lost, f.torn, f.unusable)
}

// A powercutTable is what a run says at its end: a row for each kind of data directory
// and write, and their sum.
type powercutTable struct {
	rows           *tabwriter.Writer
	text           *strings.Builder
	found, control finding
}

func newPowercutTable() *powercutTable {
	text := &strings.Builder{}
	rows := tabwriter.NewWriter(text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(rows, "data directory\tevents a write\tcuts\tanswered\tfound\tlost\tnot answered: whole\tnot there\ttorn\tcompleted\tcontrol: cuts\tanswered\tlost\ttorn\tnot ready\t")
	return &powercutTable{rows: rows, text: text}
}

func (p *powercutTable) add(scenario, events string, f, control finding) {
	p.row(scenario, events, f, control)
	p.found.add(f)
	p.control.add(control)
}

func (p *powercutTable) row(scenario, events string, f, control finding) {
	fmt.Fprintf(p.rows, "%s\t%s\t", scenario, events)
	for _, n := range []int{f.cuts, f.answered, f.found, f.lost, f.whole, f.absent, f.torn, f.completed,
		control.cuts, control.answered, control.lost, control.torn, control.unusable} {
		fmt.Fprintf(p.rows, "%d\t", n)
	}
	fmt.Fprintln(p.rows)
}

// String ends the table.
func (p *powercutTable) String() string {
	p.row("all", "", p.found, p.control)
	_ = p.rows.Flush() // to memory
	return p.text.String()
}

// lookFor starts the service and looks for the writes in its log. It returns the
// writes as they are there, and all events.
func lookFor(s *rig.Service, writes []write) (f finding, there []write, events []rig.Event, problems []string) {
	problem := func(format string, args ...any) {
		if len(problems) < 10 {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	f.cuts = 1
	if err := tryToStart(s); err != nil {
		problem("%v", err)
		f.unusable = 1
	}
	var err error
	if events, err = tryToReadLog(s); err != nil {
		problem("%v", err)
		f.unusable, events = 1, nil
	}
	f.completed = strings.Count(s.Errors.String(), "completed a write that a crash had cut")

	written := map[string][]rig.Event{}
	for _, e := range events {
		id := e.Header["ce-correlationid"][0]
		written[id] = append(written[id], e)
	}
	for _, w := range writes {
		found := written[w.id]
		if len(found) == w.events {
			last := found[len(found)-1]
			body, err := json.Marshal(last.Session)
			if err != nil {
				problem("%s: %v", w.id, err)
			}
			there = append(there, write{id: w.id, events: w.events, answered: true, position: last.Sequence, body: body})
		}
		if n := len(found); n != 0 && n != w.events {
			f.torn++
			problem("%s is there with %d of %d events", w.id, n, w.events)
		}
		switch {
		case w.answered:
			f.answered++
			if err := w.compare(found); err != nil {
				f.lost++
				problem("%s was answered: %v", w.id, err)
				continue
			}
			f.found++
		case w.absent && len(found) > 0:
			f.torn++
			problem("%s was said not to be written, and is there", w.id)
		case len(found) == 0:
			f.absent++
		case len(found) == w.events:
			f.whole++
		}
	}
	return f, there, events, problems
}

// compare checks that the events of an answered write are where and what it was
// answered.
func (w *write) compare(found []rig.Event) error {
	if len(found) != w.events {
		return fmt.Errorf("%d of its %d events are there, position %d", len(found), w.events, w.position)
	}
	last := found[len(found)-1]
	var response map[string]any
	if err := json.Unmarshal(w.body, &response); err != nil {
		return err
	}
	if last.Sequence != w.position || !reflect.DeepEqual(last.Session, response) {
		return fmt.Errorf("position %d with %s, the log has position %d with %v", w.position, w.body, last.Sequence, last.Session)
	}
	return nil
}

// tryToStart is start for a service that may be unable to. It runs on when it does
// not get ready.
func tryToStart(s *rig.Service) error {
	if err := s.Begin(); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() { ready <- s.AwaitReady() }()
	select {
	case err := <-ready:
		return err
	case <-time.After(rig.Patience):
		return fmt.Errorf("not ready after %s", rig.Patience)
	}
}

// tryToReadLog is log for a service that may be unable to.
func tryToReadLog(s *rig.Service) ([]rig.Event, error) {
	var c rig.Connection
	content, err := os.ReadFile(filepath.Join(s.Flag("--data-dir"), rig.ConnectionFile))
	if err == nil {
		err = json.Unmarshal(content, &c)
	}
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(c.NATSURL)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	return rig.ReadLog(s.T.Context(), nc)
}

// checkVerifies checks that all that came back is a log as it has to be, that the
// read model equals it, and that the service takes new writes where it ends.
func checkVerifies(t *testing.T, s *rig.Service, events []rig.Event) {
	t.Helper()
	for i, e := range events {
		if e.Sequence != uint64(i)+1 {
			t.Errorf("the event behind number %d is number %d", i, e.Sequence)
			break
		}
	}
	s.Verify()
	rig.CheckReadModel(t, s, events)
	crm := s.As("service-crm")
	next := uint64(len(events))
	for _, w := range []struct {
		body   string
		events uint64
	}{{`{"room": "after the power cut"}`, 1}, {`{"createdAt": 1, "startedAt": 2, "acceptedAt": 3}`, 3}} {
		a := crm.Expect(http.StatusOK, http.MethodPost, "/chat-sessions", w.body, "X-Request-Id: after")
		next += w.events
		if got := a.Header.Get("Chat-Sessions-Position"); got != strconv.FormatUint(next, 10) {
			t.Errorf("a new write of %d events is at position %s, want %d", w.events, got, next)
		}
		read := crm.Expect(http.StatusOK, http.MethodGet, a.Header.Get("Location"), "")
		if string(read.Body) != string(a.Body) {
			t.Errorf("written was %s, read is %s", a.Body, read.Body)
		}
	}
}

// startAndCut cuts the power again while the service is starting on a disk, and
// returns what that leaves of it.
func (p program) startAndCut(d *disk, dir string, after time.Duration, losesCache bool) *disk {
	t := d.pool.t
	t.Helper()
	s := p.on(t, filepath.Join(d.dir, dir))
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	<-time.After(after)
	left := d.cut(losesCache)
	s.Kill()
	return left
}
