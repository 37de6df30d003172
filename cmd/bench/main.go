package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type options struct {
	Measure     []string      `enum:"writes,durability,cluster,size,start,reads,lag,feed,memory,rebuild,lists,audit" default:"writes,durability,cluster,size,start,reads,lag,feed,memory,rebuild,lists,audit" help:"What to measure, of: ${enum} (all of them)."`
	Against     string        `type:"existingfile" placeholder:"FILE" help:"Compare this chatsessions binary with the one built here, and measure nothing else."`
	Duration    time.Duration `default:"5s" help:"How long each load lasts (${default})."`
	Rounds      int           `default:"3" help:"How often the two sides of a ratio alternate; the median counts (${default})."`
	Connections []int         `default:"1,64,256,1024" help:"Connections of the writes, and messages in flight of their baseline (${default})."`
	Sessions    int           `default:"1000000" help:"Sessions in the large logs (${default})."`
	LogSize     int           `default:"2" help:"Size in GB of the log with which a service starts (${default})."`
	Readers     int           `default:"10000" help:"Idle readers of the feed (${default}). Each is an open file here and one in the service."`
	Payload     int           `default:"900" help:"Bytes of a baseline's message; about as many as an event of the service with its headers (${default})."`
	Dir         string        `type:"path" help:"Directory for the logs, on the disk to measure; not in memory. Default: the directory for temporary files."`
	JSON        string        `name:"json" type:"path" placeholder:"FILE" help:"Write the figures as JSON to this file. Default: print them below the table."`
	Profile     string        `type:"path" placeholder:"DIR" help:"Write CPU, allocation, and mutex profiles of the service to this directory, one set for each load, for go tool pprof. Profiling slows the service down."`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == baselineCommand {
		exit(serveBaseline(os.Args[2:]))
	}
	var o options
	kong.Parse(&o, kong.Name("bench"), kong.Description("Measure the service beside raw baselines and print a table of ratios. Run it in the project's directory, on an otherwise idle machine."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := o.run(ctx)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A bench is one run of this program.
type bench struct {
	options
	binary   string // of the service
	unsynced string // of the service whose syncs can be turned off
	nats     string // of nats-server
	dirs     int    // number of directories in use
	large    *large // shared by several measurements; nil until one needs it
	rows     []row
	cleanups []func() error // of the current measurement
	lasting  []func() error // of the large service
}

func (o options) run(ctx context.Context) (err error) {
	if o.Rounds < 1 || len(o.Connections) == 0 || slices.Min(o.Connections) < 1 || o.Duration <= 0 {
		return errors.New("rounds, connections, and duration must be positive")
	}
	if o.Dir, err = os.MkdirTemp(o.Dir, "chatsessions-bench"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(o.Dir) }()
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o755); err != nil {
			return err
		}
	}
	tuneRuntime()
	b := &bench{
		options: o, binary: filepath.Join(o.Dir, "chatsessions"),
		unsynced: filepath.Join(o.Dir, "chatsessions-faults"), nats: filepath.Join(o.Dir, "nats-server"),
	}
	measurements := []struct {
		name string
		run  func(context.Context) error
	}{
		{"writes", b.writes}, {"durability", b.durability}, {"cluster", b.cluster}, {"size", b.size},
		{"start", b.start},
		{"reads", b.reads}, {"lag", b.lag}, {"feed", b.feed},
		{"memory", b.memory}, {"rebuild", b.rebuild}, {"lists", b.lists}, {"audit", b.audit}, // the last two add sessions
		{"compare", b.compare},
	}
	if o.Against != "" {
		b.Measure = []string{"compare"}
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end(b.lasting)) }()
	for _, m := range measurements {
		if !slices.Contains(b.Measure, m.name) {
			continue
		}
		if err := errors.Join(m.run(ctx), end(b.cleanups)); err != nil {
			print(b.rows) // of the measurements before
			return fmt.Errorf("%s: %w", m.name, err)
		}
		b.cleanups = nil
	}
	print(b.rows)
	return writeJSON(o.JSON, b.rows)
}

// build builds the programs that are measured.
func (b *bench) build(ctx context.Context) error {
	progress("building the service and the servers around it")
	builds := [][]string{{"-o", b.binary, "./cmd/chatsessions"}}
	if b.Against == "" {
		builds = append(builds, []string{"-tags", "faults", "-o", b.unsynced, "./cmd/chatsessions"},
			[]string{"-o", b.nats, "github.com/nats-io/nats-server/v2"})
	}
	for _, build := range builds {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, build...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return nil
}

// tuneRuntime sets up this process like the service: it runs baselines.
func tuneRuntime() {
	debug.SetGCPercent(400)
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
}

// cleanup registers a function that runs when the current measurement ends.
func (b *bench) cleanup(f func() error) { b.cleanups = append(b.cleanups, f) }

// end runs cleanups, the newest first.
func end(cleanups []func() error) (err error) {
	for _, f := range slices.Backward(cleanups) {
		err = errors.Join(err, f())
	}
	return err
}

// dir returns an unused directory.
func (b *bench) dir(name string) string {
	b.dirs++
	return filepath.Join(b.Dir, fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), b.dirs))
}

// patience bounds everything that reads a whole log, and every creation of sessions.
const patience = 30 * time.Minute

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
