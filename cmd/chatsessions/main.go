package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/alecthomas/kong"

	"chatsessions/cmd/chatsessions/stopsignal"
)

// The exit statuses of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// commandLine is the whole command line. Each command has its own file.
type commandLine struct {
	Serve   serveCommand   `cmd:"" help:"Run the service: API and projector in one process."`
	Token   tokenCommand   `cmd:"" help:"Make an API token, and the line for the tokens file that makes it valid."`
	History historyCommand `cmd:"" help:"Show the events of one session."`
	Replay  replayCommand  `cmd:"" help:"Replay the log, filtered, to the terminal, to a file, or to another subject."`
	Rebuild rebuildCommand `cmd:"" help:"Compare the read model with the log, build a new one beside it, and switch to the new one."`
	Parked  parkedCommand  `cmd:"" help:"List the sessions that cannot be shown, or bring them back."`
	Verify  verifyCommand  `cmd:"" help:"Read the whole log and report every defect of it and of the read model."`
	Backup  backupCommand  `cmd:"" help:"Save the log to a file, from a running service or a stopped one."`
	Restore restoreCommand `cmd:"" help:"Restore a backup to an empty place."`
	Salvage salvageCommand `cmd:"" help:"Copy what is sound of a damaged embedded log."`
	Version versionCommand `cmd:"" help:"Print version, commit and Go version."`
}

// usageError is a wrong use of the command line that a command finds when it runs.
type usageError struct{ error }

// streams are where a command writes.
type streams struct{ out, err io.Writer }

func main() {
	os.Exit(run(stopsignal.Context(), os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// run runs a command line until it is done or ctx ends, and returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	exited := -1 // set by --help
	parser, err := kong.New(&commandLine{},
		kong.Name("chatsessions"),
		kong.Description("Runs the life of chat and telemedicine sessions. Every flag can also be given as an environment variable, which its description names."),
		kong.Writers(s.out, s.err),
		kong.Exit(func(status int) { exited = status }),
		kong.DefaultEnvars("CHATSESSIONS"),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
	)
	if err != nil {
		panic(err) // commandLine is wrong, not the arguments
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		fmt.Fprintf(s.err, "chatsessions: %v\nTry chatsessions --help, or chatsessions COMMAND --help.\n", err)
		return exitUsage
	}
	err = command.Run()
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(s.err, "chatsessions: %v\n", err)
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitFailed
}

// Validate refuses a flag without a value, which is what an unset variable of a script
// leaves: a service would start a log of its own, and a replay would send the whole one.
func (commandLine) Validate(parsed *kong.Context) error {
	given := flagsOn(parsed)
	for _, part := range parsed.Path {
		if part.Flag == nil {
			continue
		}
		value, least := part.Flag.Target, 1
		if value.Kind() == reflect.Slice { // kong drops its empty values
			least = given[part.Flag.Name]
		}
		if (value.Kind() == reflect.String || value.Kind() == reflect.Slice) && value.Len() < least {
			return fmt.Errorf("--%s has no value: give it one, or leave it out", part.Flag.Name)
		}
	}
	return nil
}

// flagsOn returns how often each flag is on the command line.
func flagsOn(parsed *kong.Context) map[string]int {
	given := map[string]int{}
	for _, part := range parsed.Path {
		if part.Flag != nil {
			given[part.Flag.Name]++
		}
	}
	return given
}
