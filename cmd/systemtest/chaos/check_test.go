package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"chatsessions/cmd/systemtest/rig"
)

// check compares what was answered with what is in the log, and the log with what
// the nodes show.
func check(r *round, s *system) {
	events := s.nodes[0].SettledLog()
	s.nodes[0].Verify()
	l := newLedger(events)
	l.unsynced = r.history.unsynced
	l.ask(r.history.lives)
	for _, life := range r.history.lives {
		if err := l.checkLife(life); err != nil {
			r.journal.violation(fmt.Errorf("%w\n%s%s", err, life, l.history(life)))
		}
	}
	if err := l.checkOrigin(); err != nil {
		r.journal.violation(err)
	}
	for _, n := range s.nodes {
		rig.CheckReadModel(r.t, n.Service, events)
	}
	l.counts["read models equal to the log"] = len(s.nodes)
	for _, name := range ledgerCounts {
		r.totals.add(name, l.counts[name])
	}
}

// ledgerCounts are the counts of the checks, as they are printed.
var ledgerCounts = []string{
	"events in the log", "writes that were answered", "- of them lost",
	"requests refused or not carried out", "- of them in the log",
	"writes without a definite answer", "- of them written", "- of them not written",
	"answers that were repeated", "reads checked", "lists checked",
	"sessions linearizable", "sessions not linearizable", "sessions that took porcupine too long",
	"read models equal to the log",
}

// A ledger is the log, by the requests that wrote it.
type ledger struct {
	events  []rig.Event
	written map[string][]rig.Event // by X-Request-Id
	asked   map[string]bool        // the ids of all writes
	counts  map[string]int
	// unsynced is when nothing could be made durable.
	unsynced []span
}

func newLedger(events []rig.Event) *ledger {
	l := &ledger{events: events, written: map[string][]rig.Event{}, asked: map[string]bool{healedID: true}, counts: map[string]int{}}
	for _, e := range events {
		id := e.Header["ce-correlationid"][0]
		l.written[id] = append(l.written[id], e)
	}
	l.counts["events in the log"] = len(events)
	return l
}

// ask notes what was asked for.
func (l *ledger) ask(lives map[string]*life) {
	for _, life := range lives {
		for _, o := range life.operations {
			for i := range o.attempts {
				if o.writes() {
					l.asked[o.attempts[i].request] = true
				}
			}
		}
	}
}

// checkOrigin looks for events that nobody asked for.
func (l *ledger) checkOrigin() error {
	for _, e := range l.events {
		if id := e.Header["ce-correlationid"][0]; !l.asked[id] {
			return fmt.Errorf("event %d is of request %s, which was no write", e.Sequence, id)
		}
	}
	return nil
}

// linearizedWithin bounds the search for an order of one session's operations.
const linearizedWithin = 30 * time.Second

// checkLife checks all that was answered about one session.
func (l *ledger) checkLife(life *life) error {
	var operations []porcupine.Operation
	for _, o := range life.operations {
		found, err := l.resolve(life, o)
		if err != nil {
			return err
		}
		operations = append(operations, found...)
	}
	switch porcupine.CheckOperationsTimeout(sessionModel, operations, linearizedWithin) {
	case porcupine.Ok:
		l.counts["sessions linearizable"]++
		return nil
	case porcupine.Unknown:
		l.counts["sessions that took porcupine too long"]++
		return fmt.Errorf("unknown: porcupine has not decided on %d operations within %s", len(operations), linearizedWithin)
	}
	l.counts["sessions not linearizable"]++
	return fmt.Errorf("no order of the requests explains the answers")
}

// resolve determines the outcome of an operation and returns what the model has to
// explain: nothing if the operation had no effect and no client saw a result.
func (l *ledger) resolve(life *life, o *operation) ([]porcupine.Operation, error) {
	if len(o.attempts) == 0 {
		return nil, nil
	}
	if !o.writes() {
		a := o.last()
		if a.class == undefined {
			return nil, fmt.Errorf("%s: %s", a.request, a.explanation)
		}
		if a.class != answered && a.class != refused {
			return nil, nil
		}
		if o.method == "LIST" {
			l.counts["lists checked"]++
		} else {
			l.counts["reads checked"]++
		}
		return []porcupine.Operation{l.observed(o, a, a.call, a.back)}, nil
	}
	writer, err := l.checkAttempts(o)
	if err != nil {
		return nil, err
	}
	first := o.firstDefinite()
	switch {
	case first == nil && writer == nil:
		l.counts["writes without a definite answer"]++
		l.counts["- of them not written"]++
		return nil, nil
	case first == nil:
		l.counts["writes without a definite answer"]++
		l.counts["- of them written"]++
		return l.unanswered(life, o, writer)
	case writer == nil:
		return []porcupine.Operation{l.observed(o, first, first.call, first.back)}, nil
	}
	// It was written by the request that the log names, not before that was sent; the
	// answer may be another's.
	return []porcupine.Operation{l.observed(o, first, writer.call, first.back)}, nil
}

// firstDefinite is the first attempt that was answered with what became of the
// operation, nil for none.
func (o *operation) firstDefinite() *chaosAttempt {
	for i := range o.attempts {
		if a := &o.attempts[i]; a.class == answered || a.class == refused {
			return a
		}
	}
	return nil
}

// checkAttempts compares every attempt with the log, and returns the one that has
// written, nil for none.
func (l *ledger) checkAttempts(o *operation) (writer *chaosAttempt, err error) {
	var acknowledged *chaosAttempt // the first that was answered with 200
	for i := range o.attempts {
		a := &o.attempts[i]
		events := l.written[a.request]
		if n := len(events); n > 0 {
			if writer != nil {
				return nil, fmt.Errorf("%s and %s have both been written", writer.request, a.request)
			}
			writer = a
			if n != o.events() || events[n-1].Sequence-events[0].Sequence != uint64(n-1) || events[0].Subject != events[n-1].Subject {
				return nil, fmt.Errorf("%s: %d events, from %d to %d; it leads to %d", a.request, n, events[0].Sequence, events[n-1].Sequence, o.events())
			}
		}
		switch a.class {
		case undefined:
			return nil, fmt.Errorf("%s: %s", a.request, a.explanation)
		case refused, notDone:
			l.counts["requests refused or not carried out"]++
			if len(events) > 0 {
				l.counts["- of them in the log"]++
				return nil, fmt.Errorf("%s was answered %d, and is in the log at %d", a.request, a.status, events[0].Sequence)
			}
			if a.class == refused && (acknowledged != nil || writer != nil) {
				return nil, fmt.Errorf("%s repeats a request that was written, and was answered %d", a.request, a.status)
			}
		case answered:
			if acknowledged == nil {
				acknowledged = a
			} else if l.counts["answers that were repeated"]++; a.view != acknowledged.view || a.position != acknowledged.position {
				return nil, fmt.Errorf("%s was answered otherwise than %s", a.request, acknowledged.request)
			}
		}
	}
	return writer, l.checkAnswered(o, acknowledged, writer)
}

// checkAnswered looks for an answered write in the log.
func (l *ledger) checkAnswered(o *operation, acknowledged, writer *chaosAttempt) error {
	if acknowledged == nil || o.events() == 0 {
		return nil
	}
	l.counts["writes that were answered"]++
	if writer == nil {
		l.counts["- of them lost"]++
		return fmt.Errorf("LOST: %s was answered with position %d, and is not in the log", acknowledged.request, acknowledged.position)
	}
	for _, s := range l.unsynced {
		if acknowledged == writer && acknowledged.call >= s.from && acknowledged.back <= s.to {
			return fmt.Errorf("%s was answered with position %d while no sync succeeded", acknowledged.request, acknowledged.position)
		}
	}
	events := l.written[writer.request]
	last := events[len(events)-1]
	if last.Sequence != acknowledged.position || last.Session["id"] != acknowledged.view.ID || last.Session["version"] != float64(acknowledged.view.Version) {
		return fmt.Errorf("%s was answered with position %d and %s; %s is in the log at %d: %s",
			acknowledged.request, acknowledged.position, acknowledged.view.json, writer.request, last.Sequence, last.Data)
	}
	return nil
}

// observed is an operation of the model with what its client was told.
func (l *ledger) observed(o *operation, a *chaosAttempt, call, back int64) porcupine.Operation {
	return porcupine.Operation{Input: o, Call: call, Return: back,
		Output: result{status: a.status, view: a.view, version: a.version, state: a.state}}
}

// unanswered is a write that is in the log, and whose client does not know.
func (l *ledger) unanswered(life *life, o *operation, writer *chaosAttempt) ([]porcupine.Operation, error) {
	events := l.written[writer.request]
	var data struct{ Session json.RawMessage }
	if err := json.Unmarshal(events[len(events)-1].Data, &data); err != nil {
		return nil, err
	}
	v, err := life.view(data.Session)
	if err != nil {
		return nil, err
	}
	return []porcupine.Operation{{Input: o, Call: writer.call, Return: forever, Output: result{status: http.StatusOK, view: v}}}, nil
}

// history is what the log has of a session, for whoever has to find out.
func (l *ledger) history(life *life) string {
	var b strings.Builder
	for _, e := range l.events {
		if strings.Contains(string(e.Data), strconv.Quote(life.tag)) {
			fmt.Fprintf(&b, "  log %d: %s by %s: version %v, %v, room %v\n", e.Sequence, e.Header["ce-type"][0],
				e.Header["ce-correlationid"][0], e.Session["version"], e.Session["state"], e.Session["room"])
		}
	}
	return b.String()
}
