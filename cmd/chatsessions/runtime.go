package main

import (
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The heap may grow to five times what is in use (docs/performance.md has the gain), up to
// memoryShare of the memory of the container or machine.
const (
	collectAt   = 400 // percent, as GOGC
	memoryShare = 0.6
)

// tuneProcessors is for a process with an embedded log. One thread is nearly always writing
// the log's file and one is syncing it, so it lets two more threads run Go code than there
// are processors. GOMAXPROCS and a CPU quota of the container have precedence.
func tuneProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == runtime.NumCPU() {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}

// tuneMemory sets the memory limit, and returns a function that sets collectAt. Call that once
// requests are served: during a build, the embedded log keeps blocks for ten seconds,
// gigabytes that collectAt would multiply. GOGC and GOMEMLIMIT have precedence.
func tuneMemory(logger *slog.Logger) (caughtUp func()) {
	limit, err := memlimit.Set(
		memlimit.WithRatio(memoryShare),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	)
	if err != nil {
		logger.Warn("the amount of memory is not known; the garbage collector keeps its defaults", "error", err)
		return func() {}
	}
	logger.Debug("soft limit of memory", "bytes", limit)
	return func() {
		if os.Getenv("GOGC") == "" && limit < math.MaxInt64 { // without a limit, the heap would grow without bounds
			debug.SetGCPercent(collectAt)
		}
	}
}

// checkOpenFiles warns if the readers of the feed could use up the process's open files.
func checkOpenFiles(readers int, logger *slog.Logger) {
	const others = 4096 // connections of clients, NATS and Redis, files of the log
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && uint64(readers)+others > limit.Cur {
		logger.Warn("the readers of the feed could use up the process's open files; raise the limit (ulimit -n, LimitNOFILE), or lower --max-readers",
			"limit", limit.Cur, "max readers", readers)
	}
}

// prepareToRead sets the process up for a command that reads the log. A closed pipe (| head)
// must not end the process before an embedded log is closed in good order.
func prepareToRead(s streams) {
	signal.Ignore(syscall.SIGPIPE)
	tuneMemory(newLogger(s))
}

func newLogger(s streams) *slog.Logger {
	return slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
