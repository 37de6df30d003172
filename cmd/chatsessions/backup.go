package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"chatsessions/eventstore/backup"
)

type backupCommand struct {
	logFlags
	File   string `arg:"" type:"path" help:"The backup. It must not exist yet."`
	Output string `enum:"text,json" default:"text" help:"text or json."`
}

// Help is printed behind the flags' list.
func (backupCommand) Help() string {
	return `Saves the whole log to a file: every event up to the end of the log, checked one by one. The service may run and be written to at the same time; events that are written meanwhile may be left out. The read model is not saved, because it is built from the log.

The file appears under its name when it is complete. Keep it on another disk. Restore it with chatsessions restore.

Give it the same --nats-url, or --data-dir, as the service. The exit status is 0 if the backup is complete and on disk.`
}

// Run saves the log.
func (c backupCommand) Run(ctx context.Context, s streams) error {
	inside, err := c.connection()
	if err != nil {
		return err
	}
	prepareToRead(s)
	bar := newProgress(s.err)
	defer bar.finish()
	var saved backup.Manifest
	if c.NATS.URL == "" && inside.NATSURL == "" {
		if err := c.checkLogDir("--nats-url"); err != nil {
			return err
		}
		saved, err = backup.SaveStored(ctx, c.logDir(), c.File, func(done, all int64) { bar.bytes("saving the log", done, all) })
		err = c.explainStopped(err)
	} else {
		var stores *stores
		if stores, err = c.openExisting(ctx, inside, s); err != nil {
			return err
		}
		defer stores.Close()
		saved, err = backup.Save(ctx, stores.log, c.File, func(done int64) { bar.bytes("saving the log", done, 0) })
	}
	bar.finish()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return printManifest(s.out, c.Output, "Saved", c.File, saved)
}

// printManifest prints what a backup holds.
func printManifest(out io.Writer, format, done, where string, m backup.Manifest) error {
	if format == "json" {
		return json.NewEncoder(out).Encode(m)
	}
	_, err := fmt.Fprintf(out, "%s %d events, positions %d to %d, of the log created at %s: %s\n", done, m.Events, m.First, m.Last, m.Created.UTC().Format("2006-01-02T15:04:05Z"), where)
	for _, lost := range m.Lost {
		fmt.Fprintf(out, "Not in this log, and lost before: %s.\n", lost)
	}
	return err
}
