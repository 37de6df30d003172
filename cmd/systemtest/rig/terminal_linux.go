package rig

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// OnTerminal calls a function with a terminal, and returns what the function wrote to it.
func OnTerminal(t *testing.T, use func(terminal *os.File)) string {
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
