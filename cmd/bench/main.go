// Command bench measures the service over real HTTP beside raw baselines, in one
// run on one machine, and reports ratios: absolute figures say more about the
// machine than about the service.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
)

type options struct {
	Duration    time.Duration `default:"5s" help:"How long each measurement takes."`
	Rounds      int           `default:"3" help:"How often service and baseline alternate; the median counts."`
	Connections []int         `default:"1,64,256,1024" help:"Connections, and messages in flight of the baseline."`
	Payload     int           `default:"900" help:"Bytes of a baseline's message; an event of the service has about as many with its headers."`
	Dir         string        `type:"path" help:"Where the logs lie while it runs; on the disk that is to be measured. Default: a temporary directory."`
	JSON        string        `name:"json" type:"path" placeholder:"FILE" help:"Where the figures go as JSON too."`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("bench"), kong.Description("Measures the service beside raw baselines and prints a table of ratios."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A row is one line of the table.
type row struct {
	Measured    string  `json:"measured"`
	Connections int     `json:"connections"`
	Service     float64 `json:"service"`
	Baseline    float64 `json:"baseline"`
	Unit        string  `json:"unit"`
	Ratio       float64 `json:"ratio"`
}

func (o options) run(ctx context.Context) error {
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "chatsessions-bench")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		o.Dir = dir
	}
	binary := filepath.Join(o.Dir, "chatsessions")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/chatsessions")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	raw, err := startRawLog(filepath.Join(o.Dir, "raw"))
	if err != nil {
		return err
	}
	defer raw.stop()
	s, err := startService(binary, filepath.Join(o.Dir, "service"))
	if err != nil {
		return err
	}
	defer func() { _ = s.stop() }()

	var rows []row
	for _, n := range o.Connections {
		measured, err := o.writes(ctx, s, raw, n)
		if err != nil {
			return err
		}
		rows = append(rows, measured...)
	}
	print(rows)
	if o.JSON == "" {
		return nil
	}
	content, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.JSON, append(content, '\n'), 0o644)
}

// writes measures PATCHes and raw publishes in turn.
func (o options) writes(ctx context.Context, s *service, raw *rawLog, connections int) ([]row, error) {
	var patches, publishes, patchP50, publishP50, patchP99, cpu []float64
	progress := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	for round := range o.Rounds {
		baseline, err := raw.publish(connections, o.Payload, o.Duration)
		if err != nil {
			return nil, fmt.Errorf("baseline: %w", err)
		}
		// More sessions than can be started in the time: their number is what the
		// creation of some tells, and half as many again.
		_, probe, err := s.create(ctx, 2000)
		if err != nil {
			return nil, fmt.Errorf("creating sessions: %w", err)
		}
		paths, _, err := s.create(ctx, int(1.5*probe.perSecond()*o.Duration.Seconds()))
		if err != nil {
			return nil, fmt.Errorf("creating sessions: %w", err)
		}
		before, err := s.cpu()
		if err != nil {
			return nil, err
		}
		patched, err := s.start(ctx, paths, connections, o.Duration)
		if err != nil {
			return nil, fmt.Errorf("PATCH: %w", err)
		}
		after, err := s.cpu()
		if err != nil {
			return nil, err
		}
		cpu = append(cpu, micros(after-before)/float64(patched.count))
		progress("%4d connections, round %d of %d: %.0f PATCH/s, %.0f publishes/s", connections, round+1, o.Rounds, patched.perSecond(), baseline.perSecond())
		patches, publishes = append(patches, patched.perSecond()), append(publishes, baseline.perSecond())
		patchP50 = append(patchP50, micros(patched.percentile(0.5)))
		publishP50 = append(publishP50, micros(baseline.percentile(0.5)))
		patchP99 = append(patchP99, micros(patched.percentile(0.99)))
	}
	rows := []row{
		compare("PATCH ÷ single publish, fsync on", connections, "1/s", patches, publishes),
		compare("PATCH p50 ÷ publish p50", connections, "µs", patchP50, publishP50),
		{"PATCH p99", connections, median(patchP99), 0, "µs", 0},
		{"processor time per PATCH, service", connections, median(cpu), 0, "µs", 0},
	}
	return rows, nil
}

func compare(measured string, connections int, unit string, service, baseline []float64) row {
	s, b := median(service), median(baseline)
	return row{measured, connections, s, b, unit, s / b}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func print(rows []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measured\tconnections\tservice\tbaseline\tunit\tratio")
	for _, r := range rows {
		ratio, baseline := "", ""
		if r.Ratio > 0 {
			ratio, baseline = fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.0f", r.Baseline)
		}
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%s\t%s\t%s\n", r.Measured, r.Connections, r.Service, baseline, r.Unit, ratio)
	}
	_ = w.Flush()
}
