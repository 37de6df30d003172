package loopback_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"chatsessions/deploy/loopback"
)

// asMany, in the environment, turns the test into a process that reserves this many ports,
// prints them, and holds them until its input ends.
const asMany = "LOOPBACK_TEST_PORTS"

func TestNoPortIsGivenOutTwice(t *testing.T) {
	if n, err := strconv.Atoi(os.Getenv(asMany)); err == nil {
		for range n {
			fmt.Println("port", port(t))
		}
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		return
	}
	// Enough to draw reserved ports: about 90 of 22,768.
	const processes, each = 4, 500
	seen := map[string]int{}
	for process := range processes {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", asMany, each))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}()
		lines := bufio.NewScanner(out)
		for n := 0; n < each && lines.Scan(); n++ {
			line := lines.Text()
			if !strings.HasPrefix(line, "port ") {
				t.Fatalf("process %d printed %q", process, line)
			}
			if other, found := seen[line]; found {
				t.Errorf("%s: process %d got it and %d holds it", line, process, other)
			}
			seen[line] = process
		}
	}
	if len(seen) != processes*each {
		t.Errorf("%d ports, want %d", len(seen), processes*each)
	}
}

func TestAPortIsFree(t *testing.T) {
	for range 100 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port(t)))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
}

func port(t *testing.T) int {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
