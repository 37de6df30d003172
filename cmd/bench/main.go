// Command bench measures the service over real HTTP beside raw baselines, in one
// run on one machine, and reports ratios: absolute figures say more about the
// machine than about the service.
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
	Measure     []string      `enum:"writes,durability,cluster,size,reads,lag,stale,feed,memory,rebuild,lists,audit" default:"writes,durability,cluster,size,reads,lag,stale,feed,memory,rebuild,lists,audit" help:"What to measure, of: ${enum} (all of them)."`
	Duration    time.Duration `default:"5s" help:"How long each load lasts (${default})."`
	Rounds      int           `default:"3" help:"How often service and baseline alternate; the median counts (${default})."`
	Connections []int         `default:"1,64,256,1024" help:"Connections of the writes, and messages in flight of their baseline (${default})."`
	Sessions    int           `default:"1000000" help:"Sessions in the large logs (${default}); answers looked at for stale, up to 100,000."`
	Readers     int           `default:"10000" help:"Idle readers of the feed (${default}). Each is an open file here and one in the service."`
	Payload     int           `default:"900" help:"Bytes of a baseline's message; an event of the service has about as many with its headers (${default})."`
	Dir         string        `type:"path" help:"Where logs lie while it runs, on the disk that is to be measured; not in memory. Default: where temporary files go."`
	Against     string        `type:"existingfile" placeholder:"FILE" help:"Another chatsessions binary. Compares it with the one built here, alternating, and measures nothing else."`
	JSON        string        `name:"json" type:"path" placeholder:"FILE" help:"Where the figures go as JSON. Default: below the table."`
	Profile     string        `type:"path" placeholder:"DIR" help:"Where CPU, allocation and mutex profiles of the service go, for go tool pprof; one set for each load. Profiling makes the service slower."`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == baselineCommand {
		if err := serveBaseline(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	kong.Parse(&o, kong.Name("bench"), kong.Description("Measures the service beside raw baselines and prints a table of ratios. Run it in the project's directory, on a machine that does nothing else."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type measurement struct {
	name string
	run  func(context.Context) error
}

// A bench is one run of this program.
type bench struct {
	options
	binary string // of the service
	unsafe string // of the service that can be told not to sync
	nats   string // of nats-server
	dirs   int    // how many directories were given out
	large  *large // what several measurements share; nil until one needs it
	rows   []row
}

func (o options) run(ctx context.Context) (err error) {
	if o.Rounds < 1 || len(o.Connections) == 0 || slices.Min(o.Connections) < 1 || o.Duration <= 0 {
		return errors.New("rounds, connections and duration have to be positive")
	}
	dir, err := os.MkdirTemp(o.Dir, "chatsessions-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o.Dir = dir
	tuneRuntime()
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o755); err != nil {
			return err
		}
	}
	b := &bench{
		options: o, binary: filepath.Join(o.Dir, "chatsessions"),
		unsafe: filepath.Join(o.Dir, "chatsessions-faults"), nats: filepath.Join(o.Dir, "nats-server"),
	}
	builds := [][]string{{"-o", b.binary, "./cmd/chatsessions"}}
	if o.Against == "" {
		builds = append(builds, []string{"-tags", "faults", "-o", b.unsafe, "./cmd/chatsessions"}, []string{"-o", b.nats, "github.com/nats-io/nats-server/v2"})
	}
	progress("building the service and what it is measured with")
	for _, build := range builds {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, build...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	defer func() { err = errors.Join(err, b.large.stop()) }()
	measurements := []measurement{
		{"writes", b.writes}, {"durability", b.durability}, {"cluster", b.cluster}, {"size", b.size},
		{"reads", b.reads}, {"lag", b.lag}, {"stale", b.stale}, {"feed", b.feed},
		{"memory", b.memory}, {"rebuild", b.rebuild}, {"lists", b.lists}, {"audit", b.audit}, // in this order: the last two add sessions
	}
	if o.Against != "" {
		o.Measure, measurements = []string{"compare"}, []measurement{{"compare", b.compare}}
	}
	for _, measurement := range measurements {
		if !slices.Contains(o.Measure, measurement.name) {
			continue
		}
		if err := measurement.run(ctx); err != nil {
			print(b.rows) // what was measured until then
			return fmt.Errorf("%s: %w", measurement.name, err)
		}
	}
	print(b.rows)
	return writeJSON(o.JSON, b.rows)
}

// tuneRuntime sets this process up as the service does with itself: the raw loop
// runs in it, and so do the baselines of reads.
func tuneRuntime() {
	debug.SetGCPercent(400)
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
}

// dir returns a directory that was not used before.
func (b *bench) dir(name string) string {
	b.dirs++
	return filepath.Join(b.Dir, fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), b.dirs))
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// report prints, every few seconds, how far something long is: so many of a total,
// as done tells. The function that it returns ends that.
func report(ctx context.Context, doing, what string, total int, done func() (int, error)) func() {
	const every = 5 * time.Second
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		started := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			n, err := done()
			if err != nil || n == 0 {
				continue // it has not begun
			}
			rate := float64(n) / time.Since(started).Seconds()
			left := time.Duration(float64(total-n) / rate * float64(time.Second))
			progress("%s: %d of %d %s, %.0f a second, %s left", doing, n, total, what, rate, left.Round(time.Second))
		}
	}()
	return func() {
		stop()
		<-ended
	}
}
