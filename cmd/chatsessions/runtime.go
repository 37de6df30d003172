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

// The garbage collector lets the heap grow to five times what is in use, instead of twice,
// so that it runs less often (docs/performance.md has the gain). Above memoryShare of the
// memory of the container or machine, it runs as often as necessary to stay below.
const (
	collectAt   = 400 // percent, as GOGC
	memoryShare = 0.6
)

// tuneProcessors is for a process with an embedded log. It lets two more threads run Go
// code than there are processors: one thread is nearly always writing to the log's file,
// one is syncing it, and the runtime reserves a processor for each of them. A CPU quota of
// the container and the environment variable GOMAXPROCS have precedence.
func tuneProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) == runtime.NumCPU() {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}

// tuneMemory sets the memory limit, and returns a function that sets collectAt, to be called
// when requests are served. Before that, a read model may have to be built: the embedded
// log then keeps every block that it reads for ten seconds, which can be gigabytes, and
// collectAt would multiply them. The environment variables GOGC and GOMEMLIMIT have
// precedence.
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

// checkOpenFiles warns if the readers of the feed could use up the open files of the
// process. It could then not even accept a connection.
func checkOpenFiles(readers int, logger *slog.Logger) {
	const others = 4096 // connections of clients, NATS and Redis, files of the log
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && uint64(readers)+others > limit.Cur {
		logger.Warn("the readers of the feed could use up the process's open files; raise the limit (ulimit -n, LimitNOFILE), or lower --max-readers",
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
