package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"chatsessions/projections/audit"
	"chatsessions/projections/projector"
)

type rebuildCommand struct {
	storeFlags
	CompareOnly bool       `help:"Only compare: report every difference between the read model and the log, and leave the read model as it is."`
	Output      string     `enum:"text,json" default:"text" help:"text, or json: a line for each difference, and one at the end."`
	LogLevel    slog.Level `default:"warn" help:"debug, info, warn or error."`
}

// Help is printed behind the flags' list.
func (rebuildCommand) Help() string {
	return `Compares the read model with the log and reports each difference. Then it builds a new read model from the log, in separate keys of the same Redis, while the old one keeps answering, switches to it in one step, and removes the old one. Redis needs room for both. The comparison is over before the new read model is built; chatsessions verify checks what was built.

It can be interrupted at any time (Ctrl-C, kill) and changes nothing then, except for some keys that the next rebuild removes. A rebuild that starts beside another one waits some seconds and gives up.

Give it the same --nats-url, --redis-url and --redis-partitions, or --data-dir, as the service. The exit status is 0 if the new read model answers, whatever the differences were; with --compare-only, it is 1 if there were any.`
}

// Run rebuilds the read model.
func (c rebuildCommand) Run(ctx context.Context, s streams) error {
	logger := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: c.LogLevel}))
	stores, err := c.openFromOutside(ctx, s)
	if errors.Is(err, errNoReadModel) {
		if c.Output == "json" {
			return json.NewEncoder(s.out).Encode(projector.Rebuilt{})
		}
		fmt.Fprintln(s.out, "There is nothing to rebuild: the service is not running, and it builds its read model when it starts.")
		return nil
	}
	if err != nil {
		return err
	}
	defer stores.Close()
	if err := errors.Join(stores.damages...); err != nil {
		return err
	}
	bar := newProgress(s.err)
	defer bar.finish()
	text := c.Output == "text"
	done, err := projector.Rebuild(ctx, stores.redis, stores.log, projector.RebuildOptions{
		Logger: logger, Partitions: c.RedisPartitions, Private: stores.private, CheckEviction: !stores.private, CompareOnly: c.CompareOnly,
		Progress: func(stage projector.Stage, done, total uint64) {
			shown := rebuildStages[stage]
			bar.show(shown.title, shown.unit, done, total)
		},
		Difference: func(d audit.Difference) {
			if text {
				fmt.Fprintf(s.out, "%s: %s\n", where(d), d.Detail)
			} else {
				_ = json.NewEncoder(s.out).Encode(d)
			}
		},
	})
	bar.finish()
	if err != nil {
		return fmt.Errorf("the rebuild was broken off, and did no harm: %w", c.explain(err))
	}
	if err := c.report(s, done); err != nil {
		return err
	}
	if c.CompareOnly && done.Differences > 0 {
		return errors.New("the read model is not what the log says; chatsessions rebuild repairs it")
	}
	return nil
}

// rebuildStages are the stages and units of the progress bar.
var rebuildStages = map[projector.Stage]struct{ title, unit string }{
	projector.Comparing:  {"comparing", "events"},
	projector.Filling:    {"reading the log", "events"},
	projector.TakingOver: {"taking over", "partitions"},
	projector.Removing:   {"removing the old one", "keys"},
}

// where describes the place of a difference.
func where(d audit.Difference) string {
	switch {
	case d.SessionID == "" && d.Index == "":
		return "read model"
	case d.SessionID == "":
		return "index " + d.Index
	case d.Index == "":
		return "session " + d.SessionID + ", document"
	}
	return "session " + d.SessionID + ", index " + d.Index
}

func (c rebuildCommand) report(s streams, done projector.Rebuilt) error {
	if c.Output == "json" {
		return json.NewEncoder(s.out).Encode(done)
	}
	compared, result := fmt.Sprintf("the old one had %d differences to the log", done.Differences), "it answers now"
	switch {
	case c.CompareOnly && !done.Compared:
		_, err := fmt.Fprintf(s.out, "There is no read model to compare with the log. %d keys were removed.\n", done.Removed)
		return err
	case c.CompareOnly:
		compared, result = fmt.Sprintf("%d differences to the log", done.Differences), "it stays as it is"
	case !done.Compared:
		compared = "there was no old one to compare with"
	}
	_, err := fmt.Fprintf(s.out, "A read model of %d sessions, up to position %d of the log: %s; %s. %d keys were removed.\n",
		done.Sessions, done.Position, compared, result, done.Removed)
	return err
}
