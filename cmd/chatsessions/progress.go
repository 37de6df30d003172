package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// A progress shows how far a long job is: on a terminal as a bar with rate and remaining
// time, elsewhere as a line every progressEvery.
type progress struct {
	out   io.Writer
	bar   *progressbar.ProgressBar // nil without a terminal
	stage string
	unit  string
	began time.Time
	shown time.Time
	first uint64 // how much was done when the stage began
}

const progressEvery = 5 * time.Second

func newProgress(out io.Writer) *progress { return &progress{out: out} }

// show shows how much of a stage is done. A total of 0 means that it is not known.
func (p *progress) show(stage, unit string, done, total uint64) {
	if stage != p.stage {
		p.finish()
		p.stage, p.unit, p.began, p.shown, p.first = stage, unit, time.Now(), time.Now(), done
		if isTerminal(p.out) {
			p.bar = p.newBar(int64(total)) //nolint:gosec // a count
		}
	}
	if p.bar != nil {
		_ = p.bar.Set64(int64(done)) //nolint:gosec // a count; a closed terminal is no error
		return
	}
	if time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	rate := float64(done-p.first) / time.Since(p.began).Seconds()
	if total == 0 {
		fmt.Fprintf(p.out, "%s: %d %s, %.0f a second\n", stage, done, unit, rate)
		return
	}
	left := "unknown"
	if rate > 0 {
		left = time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second).String()
	}
	fmt.Fprintf(p.out, "%s: %d of %d %s (%d %%), %.0f a second, %s left\n", stage, done, total, unit, 100*done/total, rate, left)
}

// bytes shows how many bytes of a stage are done.
func (p *progress) bytes(stage string, done, total int64) {
	p.show(stage, "bytes", uint64(done), uint64(total)) //nolint:gosec // sizes
}

func (p *progress) newBar(total int64) *progressbar.ProgressBar {
	if total == 0 {
		total = -1 // a spinner
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(p.stage),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(p.unit),
		progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(p.out) }))
}

// finish ends the current stage.
func (p *progress) finish() {
	if p.bar != nil && !p.bar.IsFinished() {
		_ = p.bar.Exit() // ends the line, as its completion does
	}
	p.bar = nil
}
