package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

type historyCommand struct {
	logFlags
	ID     string `arg:"" help:"The session."`
	Output string `enum:"table,json,csv" default:"table" help:"table, json (an array) or csv."`
}

// Help says more than the flags do.
func (historyCommand) Help() string {
	return `The events of one session, the oldest first: where in the log each is, when it was recorded, who asked for it, and what it changed. The times among the changes say when something happened; that may be long before it was recorded.

A message on the session's subject that cannot be read is shown as such, in its place. The exit status is 1 then, and when the events do not follow one another.

In csv a text that a spreadsheet would take for a formula has a ' in front; json has every text as it is.

` + readsTheLog
}

// readsTheLog is what the commands that need the log only say of where it is.
const readsTheLog = `Give it the same --nats-url, or --data-dir, as the service has. It reads the log only: the service may run or not, and where it runs it is not disturbed. The log of an embedded service that does not run is opened meanwhile, so that neither the service nor another such command can start before this is done.`

// Run shows the history of a session.
func (c historyCommand) Run(ctx context.Context, s streams) error {
	id, err := parseSessionID(c.ID)
	if err != nil {
		return usageError{err}
	}
	if err := c.check(); err != nil {
		return usageError{err}
	}
	keepOnWithoutReader()
	tuneMemory(newLogger(s))
	stores, err := c.openLogFromOutside(ctx, newLogger(s))
	if err != nil {
		return err
	}
	defer stores.Close()
	out := newEventWriter(c.Output, s.out, true)
	found := defects{out: s.err}
	err = stores.log.Session(ctx, id, func(batch []domain.Entry) error {
		found.count(batch)
		return out.write(batch)
	})
	if errors.Is(err, domain.ErrNotFound) {
		return noSuchSession(id)
	}
	if err = found.take(err); err == nil {
		err = out.end()
	}
	if err != nil {
		return fmt.Errorf("history of session %s: %w", id, err)
	}
	return found.err()
}

// keepOnWithoutReader makes a write to a pipe that nobody reads any more (| head) an
// error, and not the end of the process: an embedded log is to be closed in good order.
func keepOnWithoutReader() { signal.Ignore(syscall.SIGPIPE) }

func newLogger(s streams) *slog.Logger {
	return slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func noSuchSession(id string) error { return fmt.Errorf("there is no session %s in this log", id) }

// parseSessionID reads a session's id as somebody may have written it down.
func parseSessionID(text string) (string, error) {
	id, err := uuid.Parse(text)
	if err != nil || !strings.EqualFold(id.String(), text) {
		return "", fmt.Errorf("%q is not the id of a session: it is a UUID, as 0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6", text)
	}
	return id.String(), nil
}

// defects tells, on standard error, what of the log cannot be read, and counts it.
type defects struct {
	out io.Writer
	n   int
}

func (d *defects) count(batch []domain.Entry) {
	for i := range batch {
		if err := batch[i].Err; err != nil {
			d.tell(err)
		}
	}
}

func (d *defects) tell(err error) {
	d.n++
	// What a message says of itself is not to drive the terminal.
	fmt.Fprintf(d.out, "chatsessions: %s\n", printable(err.Error()))
}

// take counts err if it is one of the log's content, and returns any other.
func (d *defects) take(err error) error {
	var unreadable *envelope.UnreadableError
	if errors.As(err, &unreadable) {
		d.tell(unreadable)
		return nil
	}
	return err
}

func (d *defects) err() error {
	if d.n == 0 {
		return nil
	}
	found := "a defect was found"
	if d.n > 1 {
		found = fmt.Sprintf("%d defects were found", d.n)
	}
	return fmt.Errorf("the log is not whole, %s; chatsessions verify looks for all", found)
}
