package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"chatsessions/eventstore/embedded"
)

type salvageCommand struct {
	DataDir string `default:"./chatsessions-data" placeholder:"DIR" type:"path" help:"Data directory with the damaged log (${default})."`
	To      string `required:"" placeholder:"NEW" type:"path" help:"New data directory. It must not exist yet."`
	Output  string `enum:"text,json" default:"text" help:"text, or json: a line for each damage, and one at the end."`
}

// Help is printed behind the flags' list.
func (salvageCommand) Help() string {
	return `Copies every event of a damaged embedded log that passes its check to a new data directory, and reports what is lost. The original is not changed: keep it. The service must be stopped.

Prefer a backup where there is a good one: a salvaged log is whole but for what is lost, and verify reports the missing positions forever. Lost positions are not given out again.

The exit status is 0 if nothing is lost, and 1 if something is or the command failed.`
}

// A salvagedLine is printed at the end.
type salvagedLine struct {
	Events      uint64 `json:"events"`
	First       uint64 `json:"first"`
	Last        uint64 `json:"last"`
	Lost        uint64 `json:"lost"` // positions
	NewIdentity bool   `json:"newIdentity"`
}

// Run salvages a log.
func (c salvageCommand) Run(ctx context.Context, s streams) error {
	prepareToRead(s)
	from := logFlags{DataDir: c.DataDir}
	if err := from.checkLogDir("--nats-url"); err != nil {
		return err
	}
	bar := newProgress(s.err)
	defer bar.finish()
	damaged := func(err error) {
		if c.Output == "json" {
			_ = json.NewEncoder(s.out).Encode(map[string]string{"damage": err.Error()})
			return
		}
		fmt.Fprintln(s.out, err)
	}
	to := logFlags{DataDir: c.To}
	found, err := embedded.Salvage(ctx, from.logDir(), to.logDir(), damaged, func(done, all int64) { bar.bytes("copying what is sound", done, all) })
	bar.finish()
	if err != nil {
		return fmt.Errorf("salvage: %w", from.explainStopped(err))
	}
	line := salvagedLine{Events: found.Records, First: found.First, Last: found.Last, NewIdentity: found.NewIdentity}
	for _, r := range found.Lost {
		line.Lost += r.To - r.From + 1
	}
	if c.Output == "json" {
		err = json.NewEncoder(s.out).Encode(line)
	} else {
		for _, r := range found.Lost {
			fmt.Fprintf(s.out, "Lost: %s.\n", r)
		}
		_, err = fmt.Fprintf(s.out, "Copied %d events, positions %d to %d, to %s.\n", line.Events, line.First, line.Last, c.To)
	}
	switch {
	case err != nil:
		return err
	case line.Lost == 1:
		return errors.New("1 position is lost")
	case line.Lost > 0:
		return fmt.Errorf("%d positions are lost", line.Lost)
	}
	return nil
}
