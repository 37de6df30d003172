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

// The garbage collector may let the heap grow to five times what is in use, instead
// of twice, so that it runs less often (docs/performance.md has what that is worth),
// until it has memoryShare of what the container or the machine has; from there on
// it runs as often as it takes to stay below.
const (
	collectAt   = 400 // per cent, as GOGC
	memoryShare = 0.6
)

// tuneProcessors, where no quota of a container holds the process back, lets two more
// threads run Go code than there are processors, where the log is embedded: one is
// nearly always in a write to the log's file, one in a sync, and while they are, the
// runtime holds a processor back for them. The environment variable GOMAXPROCS has
// precedence.
func tuneProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == runtime.NumCPU() {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}

// tuneMemory sets how the garbage collector trades memory for processor time, for when
// requests are served; caughtUp is to be called then. Until that, while a read model may
// have to be built, the embedded log keeps every block that it reads for ten seconds: as
// many gigabytes, times collectAt. The environment variables GOGC and GOMEMLIMIT have
// precedence.
func tuneMemory(logger *slog.Logger) (caughtUp func()) {
	limit, err := memlimit.Set(
		memlimit.WithRatio(memoryShare),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	)
	if err != nil {
		logger.Warn("how much memory there is cannot be found out; the garbage collector stays as it is", "error", err)
		return func() {}
	}
	logger.Debug("soft limit of memory", "bytes", limit)
	return func() {
		if os.Getenv("GOGC") == "" && limit < math.MaxInt64 { // without a limit the heap would grow beyond all bounds
			debug.SetGCPercent(collectAt)
		}
	}
}

// checkOpenFiles warns where the process may not have as many open files as its readers
// of the feed and everything else need: then it would not even accept a connection.
func checkOpenFiles(readers int, logger *slog.Logger) {
	const others = 4096 // connections of clients, NATS and Redis, files of the log
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && uint64(readers)+others > limit.Cur {
		logger.Warn("so many readers of the feed could use up the open files that the process may have; raise the limit (ulimit -n, LimitNOFILE), or lower --max-readers",
			"limit", limit.Cur, "max readers", readers)
	}
}

// prepareToRead sets the process up for a command that reads the log. A write to a closed
// pipe (| head) becomes an error and does not end the process: an embedded log has to be
// closed in good order.
func prepareToRead(s streams) {
	signal.Ignore(syscall.SIGPIPE)
	tuneMemory(newLogger(s))
}

func newLogger(s streams) *slog.Logger {
	return slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
