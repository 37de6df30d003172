package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"chatsessions/cmd/chatsessions/replay"
	"chatsessions/domain"
)

type historyCommand struct {
	logFlags
	ID     string `arg:"" help:"The session."`
	Output string `enum:"table,json,csv" default:"table" help:"table, json (an array) or csv."`
}

// Help is printed behind the flags' list.
func (historyCommand) Help() string {
	return `Prints the events of one session, the oldest first: each with its position in the log, when it was recorded, who requested it, and what it changed. The times among the changes say when something happened; that may be long before it was recorded.

A message on the session's subject that cannot be read is shown in its place. The exit status is then 1, as it is when the events do not follow one another.

In csv, a text that a spreadsheet would take for a formula starts with a '. In json, every text is exact.

` + readsTheLog
}

// readsTheLog is the part of the help that all commands share that need only the log.
const readsTheLog = `Give it the same --nats-url, or --data-dir, as the service. It reads only the log, and works with and without a running service, which it does not disturb. While it reads the embedded log of a stopped service, the service cannot start.`

// Run prints the history of a session.
func (c historyCommand) Run(ctx context.Context, s streams) error {
	id, err := parseSessionID(c.ID)
	if err != nil {
		return usageError{err}
	}
	prepareToRead(s)
	stores, err := c.openLogFromOutside(ctx, s)
	if err != nil {
		return err
	}
	defer stores.Close()
	out := replay.NewSessionPrinter(c.Output, s.out)
	defects := replay.Defects{Out: s.err}
	defects.Report(stores.damages)
	err = stores.log.Session(ctx, id, func(batch []domain.Entry) error {
		defects.Count(batch)
		return out.Add(batch)
	})
	if errors.Is(err, domain.ErrNotFound) {
		return replay.NoSuchSession(id)
	}
	if err = defects.Take(err); err == nil {
		err = out.End()
	}
	if err != nil {
		return fmt.Errorf("history of session %s: %w", id, err)
	}
	return defects.Err()
}

// parseSessionID reads a session's id as people write it down, in either case.
func parseSessionID(text string) (string, error) {
	id, err := uuid.Parse(text)
	if err != nil || !strings.EqualFold(id.String(), text) {
		return "", fmt.Errorf("%q is not the id of a session: it is a UUID, such as 0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6", text)
	}
	return id.String(), nil
}
