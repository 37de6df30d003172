package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"chatsessions/domain"
	"chatsessions/projections/layout"
	"chatsessions/projections/projector"
)

type parkedCommand struct {
	storeFlags
	ID     string `arg:"" optional:"" help:"One session; without it, all that are parked."`
	Retry  bool   `help:"Read the session's newest event from the log again, and show the session if that works now."`
	Output string `enum:"text,json" default:"text" help:"text, or json: a line for each session."`
}

// Help is printed behind the flags' list.
func (parkedCommand) Help() string {
	return `A session is parked when a message of it in the log cannot be projected: it is no event, or an event of a later version of the service. The session is then in no list, and a GET of it is answered from the log or with a 503; everything else works as usual. The service counts parked sessions in the metric chatsessions_parked_sessions.

A later event of the session that can be projected brings it back. --retry tries again without one, for example after an upgrade. The exit status is 1 if a session could not be brought back.`
}

// A parkedLine is printed for each parked session.
type parkedLine struct {
	layout.Parked
	Retried string `json:"retried,omitempty"` // the outcome
}

// Run lists parked sessions, or brings them back.
func (c parkedCommand) Run(ctx context.Context, s streams) error {
	stores, err := c.openFromOutside(ctx, s)
	if errors.Is(err, errNoReadModel) {
		return errors.New("the service is not running, and without it there is no read model; start it and try again")
	}
	if err != nil {
		return err
	}
	defer stores.Close()
	if err := errors.Join(stores.damages...); err != nil {
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	encoder := json.NewEncoder(s.out)
	found, failed := 0, 0
	show := func(p layout.Parked) error {
		line := parkedLine{Parked: p}
		if c.Retry {
			line.Retried = "brought back"
			if err := projector.Retry(ctx, stores.redis, c.RedisPartitions, p, stores.log.Load); err != nil {
				if errors.Is(err, domain.ErrUnavailable) || ctx.Err() != nil {
					return err
				}
				if errors.Is(err, projector.ErrNotParked) { // a later event has brought it back
					return nil
				}
				line.Retried = err.Error()
				failed++
			}
		}
		found++
		if c.Output == "json" {
			return encoder.Encode(line)
		}
		if found == 1 {
			fmt.Fprintln(table, c.columns("SESSION", "POSITION", "WHY", "RETRIED"))
		}
		_, err := fmt.Fprintln(table, c.columns(p.SessionID, strconv.FormatUint(p.Position, 10), p.Reason, line.Retried))
		return err
	}
	if c.ID != "" {
		var one layout.Parked
		if one, err = projector.FindParked(ctx, stores.redis, c.RedisPartitions, c.ID); err == nil {
			err = show(one)
		}
	} else {
		err = projector.EachParked(ctx, stores.redis, c.RedisPartitions, show)
	}
	if flushed := table.Flush(); err == nil {
		err = flushed
	}
	switch {
	case err != nil:
		return c.explain(err)
	case failed > 0:
		return fmt.Errorf("%d of %d sessions could not be brought back", failed, found)
	case found == 0 && c.Output == "text":
		fmt.Fprintln(s.out, "No session is parked.")
	}
	return nil
}

// columns joins the columns of a line. Only a retry has the last one.
func (c parkedCommand) columns(all ...string) string {
	if !c.Retry {
		all = all[:len(all)-1]
	}
	return strings.Join(all, "\t")
}
