package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"chatsessions/cmd/chatsessions/replay"
	"chatsessions/eventstore/audit"
)

type replayCommand struct {
	logFlags
	Since         string   `placeholder:"TIME" help:"Only what was recorded at that time or later: RFC 3339 (2026-11-22T12:00:00Z) or epoch milliseconds."`
	Until         string   `placeholder:"TIME" help:"Only what was recorded at that time or earlier."`
	Type          []string `placeholder:"TYPE" help:"Only events of this type, for example accepted or chat-session.accepted; repeatable."`
	Account       string   `placeholder:"UID" help:"Only what this account requested, and what happened to sessions that it could see afterwards (as creator or participant)."`
	Session       []string `placeholder:"ID" help:"Only the events of this session; repeatable."`
	After         *uint64  `placeholder:"POSITION" help:"Only what comes after this position of the log."`
	UntilPosition *uint64  `placeholder:"POSITION" help:"Only what comes up to this position."`

	Output string `enum:"table,ndjson,json,csv" default:"table" help:"table, ndjson (a CloudEvent on each line), json (an array, like history) or csv."`
	File   string `placeholder:"FILE" help:"File to write, readable only by its owner; it appears when it is complete. Without it, standard output."`
	Force  bool   `help:"Replace an existing FILE."`

	ToSubject string  `placeholder:"SUBJECT" help:"Publish the events to this NATS subject instead, as they are in the log."`
	Rate      float64 `default:"1000" placeholder:"N" help:"Maximum number of events to publish in a second (${default}); 0 is no limit."`
}

// Help is printed behind the flags' list.
func (replayCommand) Help() string {
	return `Replays the events of the log in its order, up to its end at the start. Only events on disk are shown. Without filters, it replays the whole log; with several filters, all have to hold.

--since and --until compare the time of recording, the event's own time. It comes from the clock of the node that wrote, so it may run backwards between sessions. The log is searched for these times and not read from its beginning: an event is found if no clock was off by more than 10 minutes. With --after and --until-position (--after 0 for the beginning), there is no search, and everything between them is read.

A message that cannot be read is reported in every output and on standard error, whatever the filters other than --session say, and makes the exit status 1.

--to-subject publishes each event with its data and headers from the log, and adds Chat-Sessions-Position and Chat-Sessions-Subject, which say where in the log it is. It never publishes to the log itself: it refuses a subject that the log's stream keeps, and subjects of the server ($…, _…). If a stream keeps the subject, the stream acknowledges every event. If none does, the server confirms that it received them, and only connected subscribers get them. Nobody can connect to an embedded service that is stopped, so that is refused. Where something was not confirmed, the error names the position from which to continue.

In csv, a text that a spreadsheet would take for a formula starts with a '. In ndjson and json, every text is exact.

` + readsTheLog
}

// Validate finds flags that do not go together.
func (c replayCommand) Validate(parsed *kong.Context) error {
	given := flagsOn(parsed)
	switch {
	case c.Rate < 0 || c.Rate != c.Rate:
		return fmt.Errorf("--rate %v: want a number of events a second, or 0", c.Rate)
	case c.ToSubject != "" && c.File != "":
		return errors.New("--to-subject and --file: give one of them")
	case c.ToSubject != "" && given["output"] > 0:
		return errors.New("--to-subject and --output: events are published as they are in the log; give one of them")
	case c.ToSubject == "" && given["rate"] > 0:
		return errors.New("--rate is for --to-subject")
	case c.File == "-":
		return errors.New("--file -: without --file, it goes to standard output")
	case c.Force && c.File == "":
		return errors.New("--force is for --file")
	}
	return c.logFlags.Validate()
}

// filter reads the flags that select events.
func (c replayCommand) filter() (f replay.Filter, err error) {
	f = replay.Filter{Account: c.Account, UpTo: replay.NoEnd}
	if c.After != nil {
		f.After = *c.After
	}
	if c.UntilPosition != nil {
		f.UpTo = *c.UntilPosition
	}
	if f.Since, err = replay.ParseTime(c.Since); err != nil {
		return f, fmt.Errorf("--since %w", err)
	}
	if f.Until, err = replay.ParseTime(c.Until); err != nil {
		return f, fmt.Errorf("--until %w", err)
	}
	if f.Types, err = replay.ParseTypes(c.Type); err != nil {
		return f, fmt.Errorf("--type %w", err)
	}
	for _, text := range c.Session {
		id, err := parseSessionID(text)
		if err != nil {
			return f, fmt.Errorf("--session %w", err)
		}
		if !slices.Contains(f.Sessions, id) {
			f.Sessions = append(f.Sessions, id)
		}
	}
	switch {
	case !f.Until.IsZero() && f.Until.Before(f.Since):
		return f, fmt.Errorf("--until %s is before --since %s", c.Until, c.Since)
	case f.UpTo < f.After:
		return f, fmt.Errorf("--until-position %d is before --after %d", f.UpTo, f.After)
	}
	return f, nil
}

// Run replays the log.
func (c replayCommand) Run(ctx context.Context, s streams) error {
	filter, err := c.filter()
	if err != nil {
		return usageError{err}
	}
	prepareToRead(s)
	out, keep := s.out, func() error { return nil }
	if c.File != "" { // before anything is read
		file, err := replay.CreateFile(kong.ExpandPath(c.File), c.Force)
		if err != nil {
			return fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = file.Cleanup() }()
		out, keep = file, file.CloseAtomicallyReplace
	}
	stores, err := c.openLogFromOutside(ctx, s)
	if err != nil {
		return err
	}
	defer stores.Close()
	r := &replay.Replay{Log: stores.log, Filter: filter, SearchSince: c.After == nil, SearchUntil: c.UntilPosition == nil, Defects: replay.Defects{Out: s.err}}
	r.Defects.Report(stores.damages)
	bar := newProgress(s.err)
	defer bar.finish()
	if c.File != "" || c.ToSubject != "" || !isTerminal(s.out) {
		r.Progress = func(done, total uint64) { bar.show("reading the log", "events", done, total) }
	}
	if c.ToSubject != "" {
		if stores.log.Conn() == nil {
			return fmt.Errorf("--to-subject: the service in %s is not running, so nobody can subscribe to %s; start it first", c.DataDir, c.ToSubject)
		}
		return c.publish(ctx, s, r, bar)
	}
	printer := replay.NewPrinter(c.Output, out, filter.After)
	if err := r.Run(ctx, printer); err != nil {
		return c.brokenOff(printer, err)
	}
	err = printer.End()
	if err == nil {
		err = keep()
	}
	if err != nil {
		return fmt.Errorf("the replay was broken off: %w", err)
	}
	return r.Defects.Err()
}

// brokenOff adds to the error of a replay what was printed before it.
func (c replayCommand) brokenOff(printer *replay.Printer, err error) error {
	err = fmt.Errorf("the replay was broken off: %w", err)
	if c.File != "" { // a part of it would be taken for all
		return fmt.Errorf("%w; %s was not written", err, c.File)
	}
	if after, ok := printer.Resume(); ok {
		return fmt.Errorf("%w; continue with --after %d", err, after)
	}
	return err
}

// publish publishes the events.
func (c replayCommand) publish(ctx context.Context, s streams, r *replay.Replay, bar *progress) error {
	publisher, err := audit.Republish(ctx, r.Log, c.ToSubject)
	var unfit *audit.SubjectError
	if errors.As(err, &unfit) {
		return usageError{fmt.Errorf("--to-subject: %w", err)}
	}
	if err != nil {
		return err
	}
	out := replay.NewPublishing(publisher, c.Rate, r.Filter.After)
	err = r.Run(ctx, out)
	bar.finish()
	fmt.Fprintln(s.out, out.Summary(c.ToSubject))
	if err != nil {
		return fmt.Errorf("the replay was broken off: %w; continue with --after %d", err, out.Resume())
	}
	return r.Defects.Err()
}

// isTerminal reports whether a person sees what is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) //nolint:gosec // a small number
}
