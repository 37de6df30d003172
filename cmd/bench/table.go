package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is one line of the table.
type row struct {
	Measured    string    `json:"measured"`
	Connections int       `json:"connections,omitempty"`
	Service     float64   `json:"service"`
	Baseline    float64   `json:"baseline,omitempty"`
	Unit        string    `json:"unit"`
	Ratio       float64   `json:"ratio,omitempty"`
	Target      string    `json:"target,omitempty"`
	Rounds      []float64 `json:"rounds,omitempty"` // the ratio of each round, of which Ratio is the median

	service, baseline string // the names of its figures; without a baseline, there is no ratio
}

// ratio describes a row of two figures.
func ratio(measured string, connections int, unit, service, baseline, target string) row {
	return row{Measured: measured, Connections: connections, Unit: unit, Target: target, service: service, baseline: baseline}
}

// single describes a row of one figure.
func single(measured string, connections int, unit, name string) row {
	return ratio(measured, connections, unit, name, "", "")
}

// figures are the results of a measurement, one for each round, by name.
type figures map[string][]float64

func (f figures) add(name string, value float64) { f[name] = append(f[name], value) }

// median returns the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	sorted, half := slices.Sorted(slices.Values(values)), len(values)/2
	if len(sorted)%2 == 0 {
		return (sorted[half-1] + sorted[half]) / 2
	}
	return sorted[half]
}

// add adds rows to the table. The median is of ratios, because the machine changes.
func (b *bench) add(f figures, rows ...row) {
	for _, r := range rows {
		r.Service = median(f[r.service])
		if r.baseline != "" {
			for i, value := range f[r.service] {
				r.Rounds = append(r.Rounds, value/f[r.baseline][i])
			}
			r.Baseline, r.Ratio = median(f[r.baseline]), median(r.Rounds)
		}
		b.rows = append(b.rows, r)
	}
}

// measure runs every round, reports the figures of the first row each time, and adds the rows.
func (b *bench) measure(what string, f figures, run func(round int) error, rows ...row) error {
	for round := range b.Rounds {
		if err := run(round); err != nil {
			return err
		}
		first := rows[0]
		progress("%s, round %d of %d: %s: %.0f ÷ %.0f %s", what, round+1, b.Rounds,
			first.Measured, f[first.service][round], f[first.baseline][round], first.Unit)
	}
	b.add(f, rows...)
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func print(rows []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measured\tconnections\tservice\tbaseline\tunit\tratio\ttarget\trounds")
	for _, r := range rows {
		connections, ratio, baseline := "", "", ""
		if r.Connections > 0 {
			connections = strconv.Itoa(r.Connections)
		}
		if r.Ratio > 0 {
			ratio, baseline = fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.0f", r.Baseline)
		}
		var rounds []string
		for _, round := range r.Rounds {
			rounds = append(rounds, fmt.Sprintf("%.2f", round))
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t%s\n", r.Measured, connections, r.Service, baseline, r.Unit, ratio, r.Target, strings.Join(rounds, " "))
	}
	_ = w.Flush()
}

// writeJSON writes the rows to a file, or prints them if the path is "".
func writeJSON(path string, rows []row) error {
	content, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	content = append(content, '\n')
	if path == "" {
		_, err = os.Stdout.Write(content)
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
