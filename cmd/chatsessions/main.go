// Command chatsessions runs the life of chat and telemedicine sessions: an HTTP
// API over an event log in NATS JetStream and a read model in Redis.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit statuses of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// commandLine is the whole command line. Each command has a file of its own.
type commandLine struct {
	Serve   serveCommand   `cmd:"" help:"Run the service: API and projector in one process."`
	Token   tokenCommand   `cmd:"" help:"Make an API token, and the line for the tokens file that makes it valid."`
	History historyCommand `cmd:"" help:"Show the events of one session."`
	Replay  replayCommand  `cmd:"" help:"Replay the log, filtered: to the terminal, to a file, or on to another subject."`
	Rebuild rebuildCommand `cmd:"" help:"Make the read model anew beside the old one, compare, and let it take over."`
	Parked  parkedCommand  `cmd:"" help:"List the sessions that cannot be shown, or bring them back."`
	Verify  verifyCommand  `cmd:"" help:"Read the whole log and name every defect of it, and of the read model."`
	Version versionCommand `cmd:"" help:"Print version, commit and Go version."`
}

// AfterApply refuses a flag that is given without a value, by a variable of a script that
// is not set. As if it were not given, a service would begin a log of its own, and a replay
// send the whole one.
func (commandLine) AfterApply(parsed *kong.Context) error {
	given := flagsOn(parsed)
	for _, part := range parsed.Path {
		if part.Flag == nil {
			continue
		}
		value, least := part.Flag.Target, 1
		if value.Kind() == reflect.Slice { // which leaves out what is empty
			least = given[part.Flag.Name]
		}
		if (value.Kind() == reflect.String || value.Kind() == reflect.Slice) && value.Len() < least {
			return fmt.Errorf("--%s has no value: give it one, or leave it out", part.Flag.Name)
		}
	}
	return nil
}

// flagsOn is how often each flag is on the command line.
func flagsOn(parsed *kong.Context) map[string]int {
	given := map[string]int{}
	for _, part := range parsed.Path {
		if part.Flag != nil {
			given[part.Flag.Name]++
		}
	}
	return given
}

// usageError is a wrong use of the command line that only a command can see.
type usageError struct{ error }

// streams are where a command writes.
type streams struct{ out, err io.Writer }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr})
	stop()
	os.Exit(status)
}

// run is main with its surroundings as arguments; it ends early when ctx does.
func run(ctx context.Context, args []string, s streams) int {
	var line commandLine
	exited := -1
	parser, err := kong.New(&line,
		kong.Name("chatsessions"),
		kong.Description("Runs the life of chat and telemedicine sessions. Every flag can be given as an environment variable too, named behind its description."),
		kong.Writers(s.out, s.err),
		kong.Exit(func(status int) { exited = status }), // --help
		kong.DefaultEnvars("CHATSESSIONS"),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
	)
	if err != nil {
		panic(err) // the struct above is wrong, not the arguments
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	switch {
	case exited >= 0:
		return exited
	case err != nil:
		fmt.Fprintf(s.err, "chatsessions: %v\nTry chatsessions --help, or chatsessions COMMAND --help.\n", err)
		return exitUsage
	}
	err = parsed.Run()
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(s.err, "chatsessions: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(s.err, "chatsessions: %v\n", err)
	return exitFailed
}
