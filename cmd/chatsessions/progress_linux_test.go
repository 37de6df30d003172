package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onTerminal calls a function with a terminal, and returns what the function wrote to it.
func onTerminal(t *testing.T, use func(terminal *os.File)) string {
	t.Helper()
	display, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer display.Close()
	fd := int(display.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 120}); err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		all, err := io.ReadAll(display)
		if err != nil && !errors.Is(err, unix.EIO) { // the terminal was closed
			all = append(all, err.Error()...)
		}
		shown <- string(all)
	}()
	use(terminal)
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	return <-shown
}

func TestOnATerminalProgressIsABar(t *testing.T) {
	shown := onTerminal(t, func(terminal *os.File) {
		p := newProgress(terminal)
		p.show("reading the log", "events", 0, 1000)
		<-time.After(150 * time.Millisecond) // the bar is drawn every 100 ms at most
		p.show("reading the log", "events", 500, 1000)
		p.show("reading the log", "events", 1000, 1000)
		p.show("comparing indexes", "indexes", 7, 0)
		p.finish()
		p.finish()
	})
	lines := strings.Split(strings.TrimSuffix(shown, "\r\n"), "\r\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want one for each stage: %q", len(lines), lines)
	}
	for i, want := range [][]string{
		{`reading the log +50% \|█+ *\| \(500/1000, \d+ events/s\) \[.*:.*\]`, `reading the log 100% \|█+\| \(1000/1000`},
		{`comparing indexes \(7/-`},
	} {
		for _, part := range want {
			if !regexp.MustCompile(part).MatchString(lines[i]) {
				t.Errorf("line %d is %q, and lacks %s", i, lines[i], part)
			}
		}
	}
}
