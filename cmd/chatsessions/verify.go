package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"chatsessions/cmd/chatsessions/replay"
	"chatsessions/domain"
	"chatsessions/eventstore"
	logaudit "chatsessions/eventstore/audit"
	"chatsessions/eventstore/blocks"
	"chatsessions/projections/audit"
	"chatsessions/projections/layout"
)

type verifyCommand struct {
	storeFlags
	LogOnly bool   `help:"Leave the read model out."`
	Output  string `enum:"text,json" default:"text" help:"text, or json: a line for each defect, and one at the end."`
}

// Help is printed behind the flags' list.
func (verifyCommand) Help() string {
	return `Reads the whole log, up to its end at the start, and reports every defect with its position in the log, its session and one of these words:

damaged: a file of a stopped embedded log is not sound; the file, the byte, and the positions are named. See docs/how-to/disaster.md. Messages in the files that are lost are also missing.

unreadable: a message that is not an event, or whose envelope and data are of different sessions or versions.

envelope: an attribute of the event is not as this service writes it, or contradicts the data.

missing: there is no message at a position, or only a part of an atomic write.

version-gap, version-repeated: the versions of a session are not 1, 2, 3, …

previous: ce-previous does not lead to the session's event before, or is 0 outside of an atomic write.

fork: two events claim to follow the same one.

changes: the event's changes do not lead from the session before to the session after it.

transition: the state machine forbids it.

time: the time of recording runs backwards within a session, stamps are out of order, or lie more than 5 minutes ahead of their recording.

immutable: createdBy has changed.

fields: a member has changed that this type of event leaves as it is.

At the same time it compares the read model with the log, both ways:

read-model: a document or an index entry is not what the log says, is missing, out of order, or should not be there. chatsessions rebuild repairs it.

parked: a session is not shown, because a message of it in the log cannot be projected; see chatsessions parked.

It writes nothing to the log or to Redis, and its memory does not grow with the log. The service may run at the same time: events after the start are not read from the log, and are no difference in the read model. While anyone writes, it reads at most 5,000 events a second, so that it does not slow writes down.

Give it the same --nats-url, --redis-url and --redis-partitions, or --data-dir, as the service. If the read model is inside a service that is not running, only the log is verified, and the service cannot start until this is done. The exit status is 0 if there is no defect, and 1 if there is one or the command failed.`
}

// Kinds of lines beside those of domain.DefectKind.
const (
	defectDamaged   domain.DefectKind = "damaged"
	defectReadModel domain.DefectKind = "read-model"
	defectParked    domain.DefectKind = "parked"
)

// A defectLine is printed for each defect.
type defectLine struct {
	Kind      domain.DefectKind `json:"kind"`
	Position  uint64            `json:"position,omitempty"`
	SessionID string            `json:"sessionId,omitempty"`
	Index     string            `json:"index,omitempty"` // of the read model
	Detail    string            `json:"detail"`
}

// A verifiedLine is printed at the end.
type verifiedLine struct {
	Position  uint64 `json:"position"` // up to which the log was read
	Events    uint64 `json:"events"`
	Sessions  uint64 `json:"sessions"`
	ReadModel bool   `json:"readModel"` // whether it was compared
	Defects   uint64 `json:"defects"`
}

// Run verifies the log and the read model.
func (c verifyCommand) Run(ctx context.Context, s streams) error {
	signal.Ignore(syscall.SIGPIPE) // see prepareToRead
	giveWay()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // with 100, it takes a tenth longer
	}
	stores, withModel, err := c.open(ctx, s)
	if err != nil {
		return err
	}
	defer stores.Close()
	v := &verifier{text: c.Output == "text", out: s.out, bar: newProgress(s.err), pace: logaudit.NewPacer(stores.log)}
	defer v.bar.finish()
	for _, damage := range stores.damages {
		d := defectLine{Kind: defectDamaged, Detail: damage.Error()}
		if place := (*blocks.Damage)(nil); errors.As(damage, &place) {
			d.Position = place.From
		}
		if err := v.report(d); err != nil {
			return err
		}
	}
	if withModel {
		err = v.logAndModel(ctx, stores, c.RedisPartitions)
	} else {
		err = v.log(ctx, stores.log, nil)
	}
	v.bar.finish()
	if err != nil {
		return c.explain(err)
	}
	if err := v.end(c.LogOnly); err != nil {
		return err
	}
	switch v.done.Defects {
	case 0:
		return nil
	case 1:
		return errors.New("1 defect was found")
	}
	return fmt.Errorf("%d defects were found", v.done.Defects)
}

// open opens the log, and the read model if there is one.
func (c verifyCommand) open(ctx context.Context, s streams) (stores *stores, withModel bool, err error) {
	if !c.LogOnly {
		stores, err = c.openFromOutside(ctx, s)
		if !errors.Is(err, errNoReadModel) {
			return stores, true, err
		}
	}
	stores, err = c.openLogFromOutside(ctx, s)
	return stores, false, err
}

// A verifier prints defects and counts them.
type verifier struct {
	text bool
	out  io.Writer
	bar  *progress
	pace *logaudit.Pacer

	mu   sync.Mutex // log and read model are verified at the same time
	done verifiedLine
}

// log verifies the log, and passes every session on.
func (v *verifier) log(ctx context.Context, log *eventstore.Log, sessions func(context.Context, []domain.Entry) error) error {
	done, err := logaudit.Verify(ctx, log, logaudit.VerifyOptions{
		Sessions: sessions, Pace: v.pace.Wait,
		Defect: func(d domain.Defect) error {
			return v.report(defectLine{Kind: d.Kind, Position: d.Position, SessionID: d.SessionID, Detail: d.Detail})
		},
		Progress: func(position, end uint64) { v.bar.show("verifying the log", "events", position, end) },
	})
	v.done.Position, v.done.Events, v.done.Sessions = done.End, done.Events, done.Sessions
	return err
}

// verifyStages are the stages of an audit, for the progress bar.
var verifyStages = map[audit.Stage]string{
	audit.Counting: "counting the read model's keys",
	audit.Checking: "checking suspects",
}

// logAndModel verifies the log, and compares the read model with each of its sessions.
func (v *verifier) logAndModel(ctx context.Context, stores *stores, partitions int) error {
	opts := audit.Options{
		Partitions: partitions, Pace: v.pace.Wait,
		Difference: func(d audit.Difference) error {
			return v.report(defectLine{Kind: defectReadModel, Position: d.Position, SessionID: d.SessionID, Index: d.Index, Detail: d.Detail})
		},
		Parked: func(p layout.Parked) error {
			return v.report(defectLine{Kind: defectParked, Position: p.Position, SessionID: p.SessionID, Detail: p.Reason})
		},
		Progress: func(stage audit.Stage, done, total uint64) {
			v.bar.show(verifyStages[stage], "keys", done, total)
		},
	}
	_, err := audit.Run(ctx, stores.redis, stores.log, opts, func(ctx context.Context, compare func(context.Context, []domain.Entry) error) error {
		return v.log(ctx, stores.log, compare)
	})
	v.done.ReadModel = err == nil
	return err
}

// report prints a defect.
func (v *verifier) report(d defectLine) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done.Defects++
	if !v.text {
		return json.NewEncoder(v.out).Encode(d)
	}
	var where []string
	if d.Position > 0 {
		where = append(where, fmt.Sprintf("position %d", d.Position))
	}
	if d.SessionID != "" {
		where = append(where, "session "+d.SessionID)
	}
	where = append(where, string(d.Kind))
	if d.Index != "" {
		where = append(where, "index "+d.Index)
	}
	_, err := fmt.Fprintln(v.out, replay.Printable(strings.Join(where, ", ")+": "+d.Detail))
	return err
}

// end prints the totals.
func (v *verifier) end(logOnly bool) error {
	if !v.text {
		return json.NewEncoder(v.out).Encode(v.done)
	}
	model := "the read model was compared with it"
	switch {
	case logOnly:
		model = "the read model was left out"
	case !v.done.ReadModel:
		model = "there is no read model, because the service is not running"
	}
	_, err := fmt.Fprintf(v.out, "%d events of %d sessions, up to position %d of the log; %s. Defects: %d.\n",
		v.done.Events, v.done.Sessions, v.done.Position, model, v.done.Defects)
	return err
}
