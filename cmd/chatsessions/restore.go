package main

import (
	"context"
	"errors"
	"fmt"

	"chatsessions/eventstore"
	"chatsessions/eventstore/backup"
)

type restoreCommand struct {
	logFlags
	File     string `arg:"" type:"existingfile" help:"The backup."`
	NoVerify bool   `help:"Do not verify the log after it was restored."`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

// Help is printed behind the flags' list.
func (restoreCommand) Help() string {
	return `Restores a backup to an empty place: to NATS servers that have no log, or to a data directory that holds none. Stop all nodes of the service first, and start them afterwards. Nothing is written before the whole backup has passed its check.

With --nats-url, --nats-replicas says how many servers keep the log: three in a cluster and one without, unless given. So a backup moves a log from one server to three and back, and between the embedded log and servers.

The restored log has a new identity, because the original may have gone on: read models in Redis are built again when the service starts, and readers of the feed start over. Afterwards, the log is verified.

The exit status is 0 if the log was restored and has no defect.`
}

// Run restores a backup.
func (c restoreCommand) Run(ctx context.Context, s streams) error {
	prepareToRead(s)
	bar := newProgress(s.err)
	defer bar.finish()
	archive, err := backup.Open(c.File)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer archive.Close()
	if err := archive.Check(ctx, func(done, all int64) { bar.bytes("checking the backup", done, all) }); err != nil {
		return fmt.Errorf("restore: %w; nothing was written", err)
	}
	where, err := c.restore(ctx, s, archive, func(done, all int64) { bar.bytes("restoring the log", done, all) })
	if errors.Is(err, backup.ErrNotEmpty) {
		err = fmt.Errorf("%w: a backup is restored to an empty place only", err)
	}
	bar.finish()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := printManifest(s.out, c.Output, "Restored", where, archive.Manifest); err != nil || c.NoVerify {
		return err
	}
	verify := verifyCommand{LogOnly: true, Output: c.Output}
	verify.logFlags = c.logFlags
	return verify.Run(ctx, s)
}

// restore restores the backup, and returns the place.
func (c restoreCommand) restore(ctx context.Context, s streams, archive *backup.Archive, progress func(done, all int64)) (where string, err error) {
	if c.NATS.URL == "" {
		return c.DataDir, archive.RestoreTo(ctx, c.logDir(), progress)
	}
	nc, err := c.NATS.connect(ctx, newLogger(s))
	if err != nil {
		return "", err
	}
	defer nc.Close()
	return "stream " + eventstore.StreamName, archive.Restore(ctx, nc, c.NATS.Replicas, progress)
}
