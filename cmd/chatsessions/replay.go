package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"chatsessions/domain"
	"chatsessions/eventstore/audit"
)

type replayCommand struct {
	logFlags
	Since         string   `placeholder:"TIME" help:"Only what was recorded at that time or later: RFC 3339 (2026-11-22T12:00:00Z) or epoch milliseconds."`
	Until         string   `placeholder:"TIME" help:"Only what was recorded at that time or earlier."`
	Type          []string `placeholder:"TYPE" help:"Only events of this type, accepted or chat-session.accepted for example; can be given several times."`
	Account       string   `placeholder:"UID" help:"Only what this account asked for, and what happened to sessions that it could see afterwards (as creator or participant)."`
	Session       []string `placeholder:"ID" help:"Only the events of this session; can be given several times."`
	After         *uint64  `placeholder:"POSITION" help:"Only what comes after this position of the log."`
	UntilPosition *uint64  `placeholder:"POSITION" help:"Only what comes up to this position."`

	Output string `enum:"table,ndjson,json,csv" default:"table" help:"table, ndjson (a CloudEvent on each line), json (an array, as of history) or csv."`
	File   string `placeholder:"FILE" help:"Where it is written, readable by its owner only; FILE appears when it is whole. Without it, to standard output."`
	Force  bool   `help:"Replace FILE where there is one."`

	ToSubject string  `placeholder:"SUBJECT" help:"Publish the events to this NATS subject instead, as they are in the log."`
	Rate      float64 `default:"1000" placeholder:"N" help:"Events a second to publish at most (${default}); 0 is as fast as it goes."`

	given map[string]int // how often each flag is on the command line
}

// Help says more than the flags do.
func (replayCommand) Help() string {
	return `The events of the log in its order, up to its end as it is at the start. Only what is on disk is shown. Without filters it is the whole log; of several filters all have to hold.

--since and --until are about the time of recording, the event's own time. It comes from the clock of the node that wrote, so it may go back between sessions. The log is searched for these times and not read from its beginning: an event is found as long as no clock was off by more than 10 minutes. With --after and --until-position (--after 0 for the beginning) nothing is searched, and everything between them is looked at.

A message that cannot be read is told of in every output and on standard error, whatever the filters but --session say, and makes the exit status 1.

--to-subject publishes each event with the data and the headers that it has in the log, and says in Chat-Sessions-Position and Chat-Sessions-Subject where that is. Never to the log itself: a subject that its stream keeps is refused, and so is one of the server ($…, _…). If a stream keeps the subject, it acknowledges every event; if none does, the server confirms that it took them, and who does not listen misses them; nobody can listen to an embedded service that does not run, so that is refused. What was not confirmed is told with the position from which to go on.

In csv a text that a spreadsheet would take for a formula has a ' in front; ndjson and json have every text as it is.

` + readsTheLog
}

// AfterApply notes which flags are on the command line.
func (c *replayCommand) AfterApply(parsed *kong.Context) error {
	c.given = flagsOn(parsed)
	return nil
}

// filter reads the flags, and finds those that make no sense.
func (c replayCommand) filter() (eventFilter, error) {
	f := eventFilter{account: c.Account, after: valueOr(c.After, 0), upTo: valueOr(c.UntilPosition, noEnd)}
	if err := c.check(); err != nil {
		return f, err
	}
	var err error
	if f.since, err = parseTime("--since", c.Since); err != nil {
		return f, err
	}
	if f.until, err = parseTime("--until", c.Until); err != nil {
		return f, err
	}
	if f.types, err = parseTypes(c.Type); err != nil {
		return f, err
	}
	for _, text := range c.Session {
		id, err := parseSessionID(text)
		if err != nil {
			return f, err
		}
		if !slices.Contains(f.sessions, id) {
			f.sessions = append(f.sessions, id)
		}
	}
	switch {
	case !f.until.IsZero() && f.until.Before(f.since):
		return f, fmt.Errorf("--until %s is before --since %s", c.Until, c.Since)
	case f.upTo < f.after:
		return f, fmt.Errorf("--until-position %d is before --after %d", f.upTo, f.after)
	case c.Rate < 0 || c.Rate != c.Rate:
		return f, fmt.Errorf("--rate %v: want a number of events a second, or 0", c.Rate)
	case c.ToSubject != "" && c.File != "":
		return f, errors.New("--to-subject and --file: give one of them")
	case c.ToSubject != "" && c.given["output"] > 0:
		return f, errors.New("--to-subject and --output: events are published as they are in the log; give one of them")
	case c.ToSubject == "" && c.given["rate"] > 0:
		return f, errors.New("--rate is for --to-subject")
	case c.File == "-":
		return f, errors.New("--file -: without --file it goes to standard output")
	case c.Force && c.File == "":
		return f, errors.New("--force is for --file")
	}
	return f, nil
}

// Run replays the log.
func (c replayCommand) Run(ctx context.Context, s streams) error {
	filter, err := c.filter()
	if err != nil {
		return usageError{err}
	}
	keepOnWithoutReader()
	tuneMemory(newLogger(s))
	out := s.out
	var file *newFile
	if c.File != "" { // before anything is read
		if file, err = createFile(kong.ExpandPath(c.File), c.Force); err != nil {
			return fmt.Errorf("--file: %w", err)
		}
		defer file.discard()
		out = file
	}
	stores, err := c.openLogFromOutside(ctx, newLogger(s))
	if err != nil {
		return err
	}
	defer stores.Close()
	r := &replay{log: stores.log, filter: filter, searchSince: c.After == nil, searchUntil: c.UntilPosition == nil, defects: defects{out: s.err}}
	if c.File != "" || c.ToSubject != "" || !isTerminal(s.out) {
		r.bar = newProgress(s.err)
		defer r.bar.finish()
	}
	if c.ToSubject != "" {
		return c.republish(ctx, s, r, stores.embedded != nil)
	}
	events := &writerSink{eventWriter: newEventWriter(c.Output, out, false), last: filter.after}
	if err := r.run(ctx, events); err != nil {
		return c.brokenOff(events, err)
	}
	err = events.end()
	if err == nil && file != nil {
		err = file.keep()
	}
	if err != nil {
		return fmt.Errorf("the replay was broken off: %w", err)
	}
	return r.defects.err()
}

// brokenOff says of a replay to a writer what there is of it.
func (c replayCommand) brokenOff(events *writerSink, err error) error {
	broken := fmt.Errorf("the replay was broken off: %w", err)
	switch {
	case c.File != "": // a part of it would be taken for all
		return fmt.Errorf("%w; %s was not written", broken, c.File)
	case events.failed:
		return broken
	case events.wrote && events.end() != nil:
		return broken
	}
	return fmt.Errorf("%w; go on with --after %d", broken, events.last)
}

// republish publishes the events; alone says that the server is in this process, where
// nobody else can reach it.
func (c replayCommand) republish(ctx context.Context, s streams, r *replay, alone bool) error {
	publisher, err := audit.Republish(ctx, r.log, c.ToSubject)
	var unfit *audit.SubjectError
	if errors.As(err, &unfit) {
		return usageError{fmt.Errorf("--to-subject: %w", err)}
	}
	if err != nil {
		return err
	}
	if alone && publisher.Stream() == "" {
		return fmt.Errorf("--to-subject: nobody can listen to %s: the service in %s does not run, and no stream keeps that subject; start the service first", c.ToSubject, c.DataDir)
	}
	out := newPublishSink(publisher, c.Rate)
	err = r.run(ctx, out)
	if r.bar != nil {
		r.bar.finish()
	}
	by := "the server"
	if publisher.Stream() != "" {
		by = "stream " + publisher.Stream()
	}
	fmt.Fprintf(s.out, "%d events were published to %s and confirmed by %s", out.confirmed, c.ToSubject, by)
	if out.confirmed > 0 {
		fmt.Fprintf(s.out, ": the first from position %d, the last from position %d", out.first, out.last)
	}
	fmt.Fprintln(s.out, ".")
	if err != nil {
		return fmt.Errorf("the replay was broken off: %w; go on with --after %d", err, out.resume(r))
	}
	return r.defects.err()
}

// isTerminal says whether a person sees what is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) //nolint:gosec // a small number
}

func valueOr(v *uint64, otherwise uint64) uint64 {
	if v == nil {
		return otherwise
	}
	return *v
}

// eventTypePrefix is what the types of all events begin with.
const eventTypePrefix = "chat-session."

// parseTypes reads types of events, with or without the prefix.
func parseTypes(texts []string) ([]domain.EventType, error) {
	known := domain.EventTypes()
	var types []domain.EventType
	for _, text := range texts {
		typ := domain.EventType(eventTypePrefix + strings.TrimPrefix(text, eventTypePrefix))
		if !slices.Contains(known, typ) {
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = strings.TrimPrefix(string(k), eventTypePrefix)
			}
			return nil, fmt.Errorf("--type %s: there is no such type of events; there are %s", text, strings.Join(names, ", "))
		}
		types = append(types, typ)
	}
	return types, nil
}
