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
}

// figures are the results of a measurement, one for each round, by name.
type figures map[string][]float64

func (f figures) add(name string, value float64) { f[name] = append(f[name], value) }

// median of the rounds.
func (f figures) median(name string) float64 { return median(f[name]) }

// median returns the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	sorted, half := slices.Sorted(slices.Values(values)), len(values)/2
	if len(sorted)%2 == 0 {
		return (sorted[half-1] + sorted[half]) / 2
	}
	return sorted[half]
}

// ratio makes a row of two figures. The median is of ratios, because the machine changes.
func (f figures) ratio(measured string, connections int, unit, service, baseline, target string) row {
	var rounds []float64
	for i := range f[service] {
		rounds = append(rounds, f[service][i]/f[baseline][i])
	}
	return row{measured, connections, f.median(service), f.median(baseline), unit, median(rounds), target, rounds}
}

// single makes a row of one figure.
func (f figures) single(measured string, connections int, unit, name string) row {
	return row{Measured: measured, Connections: connections, Service: f.median(name), Unit: unit}
}

// aims sets the target of the row's ratio, or of its figure.
func (r row) aims(target string) row {
	r.Target = target
	return r
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
