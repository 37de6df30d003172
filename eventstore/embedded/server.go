package eventstore

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrInUse is returned by StartEmbedded when another process, or another server
// in this one, uses the store directory.
var ErrInUse = errors.New("the store directory is in use by another process")

// EmbeddedOptions say how to run the server inside the process.
type EmbeddedOptions struct {
	// StoreDir holds the log. It is created where it is missing.
	StoreDir string
	// User and Password are what every client has to give, ours included.
	User, Password string
	Logger         *slog.Logger
	// Sync, where it is set, is called for everything that is made durable.
	Sync SyncFunc
	// Synced, where it is set, is told of each sync of the log: how many waited for
	// it and how long it took. It is called between two syncs and must be quick.
	Synced func(group int, took time.Duration)

	// layout is checkLayout, or a test's.
	layout func(ctx context.Context, dir string) error
}

// Embedded is a NATS server inside the process, with JetStream and one store
// directory. It listens on loopback, on a port that the system chooses, so that
// other processes of this machine can reach the log while it runs.
//
// The server acknowledges a message when it is written, and does not sync it. A
// Log with Options.Embedded answers for it when it has passed a barrier that
// syncs once for everybody who waits. Subscribers that are no Logs may see an
// event some milliseconds before it is on disk.
type Embedded struct {
	server  *server.Server
	options EmbeddedOptions
	logger  *slog.Logger
	lock    *os.File
	failure *failure
	syncs   bool // the server syncs every message itself

	barrier atomic.Pointer[barrier] // set when the log is open, never if the server syncs
	mu      sync.Mutex              // held while the log is opened
	settled bool                    // it was opened

	left     []leftIntent // behind by writes that were given up
	shutdown sync.Once
}

// A leftIntent is the intent of a write that was in the log when the one who waited
// for it gave up. It has to stay until that is on disk.
type leftIntent struct {
	position uint64
	path     string
}

// StartEmbedded starts a server on the store directory and returns when it
// serves, which is after it has read what is there. It returns ErrInUse when the
// directory is taken.
//
// The barrier relies on how the server writes its files. If that is not as
// expected, the server is made to sync every message by itself, which is slow, and
// a warning says so.
func StartEmbedded(ctx context.Context, o EmbeddedOptions) (*Embedded, error) {
	if o.User == "" || o.Password == "" {
		return nil, errors.New("the embedded NATS server needs a user and a password")
	}
	if o.Sync == nil {
		o.Sync = func(_ string, sync func() error) error { return sync() }
	}
	if o.layout == nil {
		o.layout = checkLayout
	}
	lock, err := lockDir(o.StoreDir)
	if err != nil {
		return nil, err
	}
	e := &Embedded{options: o, logger: orDiscard(o.Logger), lock: lock, failure: newFailure()}
	if err := e.start(ctx); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return e, nil
}

func (e *Embedded) start(ctx context.Context) error {
	o := &e.options
	if err := beginRun(o.StoreDir, o.Sync); err != nil {
		return fmt.Errorf("store directory: %w", err)
	}
	if differs := o.layout(ctx, filepath.Join(o.StoreDir, layoutDir)); differs != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("embedded NATS server: %w", differs)
		}
		e.logger.Warn("the embedded NATS server does not write its files as expected: every event is synced on its own, which is slow", "difference", differs)
		e.syncs = true
	}
	var err error
	e.server, err = runServer(ctx, &server.Options{
		ServerName:                 "chatsessions-embedded",
		Host:                       "127.0.0.1",
		Port:                       server.RANDOM_PORT,
		CustomClientAuthentication: credentials{o.User, o.Password},
		StoreDir:                   o.StoreDir,
		SyncAlways:                 e.syncs,
	}, &serverLog{logger: e.logger, failure: e.failure})
	return err
}

// runServer starts a server with JetStream and returns when it serves.
func runServer(ctx context.Context, o *server.Options, log *serverLog) (*server.Server, error) {
	o.JetStream, o.NoSigs, o.DisableJetStreamBanner = true, true, true
	srv, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	srv.SetLoggerV2(log, false, false, false)
	go srv.Start() // returns when the server is up; ends with stopServer
	for !srv.ReadyForConnections(50 * time.Millisecond) {
		if failure := log.fatal.Load(); failure != nil {
			stopServer(srv)
			return nil, fmt.Errorf("embedded NATS server: %s", *failure)
		}
		if err := ctx.Err(); err != nil {
			stopServer(srv)
			return nil, fmt.Errorf("embedded NATS server did not get ready: %w", err)
		}
	}
	return srv, nil
}

func stopServer(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// settle makes the log durable as it was found, or created, and completes what a
// crash has torn; from then on the barrier keeps it durable. A Log calls it before
// it serves anything, the first one does it.
func (e *Embedded) settle(ctx context.Context, l *Log, stream *jetstream.StreamInfo) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.settled {
		return e.failure.get()
	}
	if c := stream.Config.Compression; c != jetstream.NoCompression && !e.syncs {
		// The server would replace block files under the barrier.
		return &ConfigError{[]Difference{{"compression", c.String(), jetstream.NoCompression.String()}}}
	}
	intents, err := l.completeIntents(ctx, e.options.StoreDir)
	if err != nil {
		return err
	}
	end, err := l.lastSequence(ctx)
	if err != nil {
		return err
	}
	if err := syncTree(e.options.StoreDir, e.options.Sync); err != nil {
		err = fmt.Errorf("the log cannot be made durable: %w", err)
		e.failure.set(err)
		return err
	}
	for _, path := range intents {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if !e.syncs {
		blocks, err := openBlockFiles(streamDir(e.options.StoreDir, StreamName), e.options.Sync)
		if err != nil {
			return err
		}
		e.barrier.Store(newBarrier(blocks, end, e.failure, e.options.Synced))
	}
	e.settled = true
	return nil
}

// Durable returns when the events up to a position, which the server has shown,
// are on disk. After a failed sync it returns an error, for good.
func (e *Embedded) Durable(ctx context.Context, position uint64) error {
	if b := e.barrier.Load(); b != nil {
		return b.wait(ctx, position)
	}
	return e.failure.get()
}

// Failed is closed when the log cannot be written any more, or not be made
// durable; Err says why. Nothing is written from then on. The process has to end;
// the next one finds out what is on disk.
func (e *Embedded) Failed() <-chan struct{} { return e.failure.happened }

// Err is why Failed is closed, nil while it is not.
func (e *Embedded) Err() error { return e.failure.get() }

// An intended is an intent that was made durable.
type intended struct {
	e    *Embedded
	path string // "" for none: the server keeps its own copy until all is on disk
}

// settled is to be called when the write is on disk, or never will be. Left behind,
// an intent costs the next start a look.
func (i intended) settled() {
	if i.path != "" {
		_ = os.Remove(i.path)
	}
}

// written is to be called instead when the write is in the log up to a position, and
// nobody waits for the sync.
func (i intended) written(position uint64) {
	if i.path == "" {
		return
	}
	i.e.mu.Lock()
	defer i.e.mu.Unlock()
	i.e.left = append(i.e.left, leftIntent{position, i.path})
}

// sweep removes what written was called for and is on disk by now.
func (e *Embedded) sweep() {
	b := e.barrier.Load()
	if b == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.left = slices.DeleteFunc(e.left, func(l leftIntent) bool {
		onDisk := l.position <= b.covered.Load()
		if onDisk {
			_ = os.Remove(l.path)
		}
		return onDisk
	})
}

// intend makes it durable that these messages are about to be written, all or
// none, after a certain sequence of their subject.
func (e *Embedded) intend(after uint64, msgs []*nats.Msg) (intended, error) {
	if e.syncs {
		return intended{}, nil
	}
	e.sweep()
	path, err := writeIntent(e.options.StoreDir, e.options.Sync, after, msgs)
	if err != nil {
		var failed *syncError
		if errors.As(err, &failed) {
			e.failure.set(fmt.Errorf("the log cannot be made durable: %w", err))
		}
		return intended{}, err
	}
	return intended{e, path}, nil
}

// ClientURL is where other processes of this machine reach the server; it does
// not hold the credentials.
func (e *Embedded) ClientURL() string { return e.server.ClientURL() }

// Connect connects within the process, without a socket. The connection does not
// keep messages while it is broken; see Connect.
func (e *Embedded) Connect() (*nats.Conn, error) {
	options := append(connectionOptions("chatsessions", e.options.Logger),
		nats.InProcessServer(bufferedServer{e.server}),
		nats.UserInfo(e.options.User, e.options.Password),
	)
	nc, err := nats.Connect("", options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// Shutdown stops the server and returns when its files are closed and on disk.
// Connections should be closed before.
func (e *Embedded) Shutdown() { e.shutdown.Do(e.end) }

func (e *Embedded) end() {
	e.sweep()
	if b := e.barrier.Load(); b != nil {
		b.close()
	}
	stopServer(e.server)
	if e.failure.get() == nil {
		if err := endRun(e.options.StoreDir, e.options.Sync); err != nil {
			e.logger.Error("the log was not made durable at the end; the next start reads all of it", "error", err)
		}
	}
	_ = e.lock.Close() // gives up the lock
}

// credentials are those of the only user. The server would do the same with
// them, and warn at every start that they are not a hash.
type credentials struct{ user, password string }

// Check implements server.Authentication.
func (c credentials) Check(client server.ClientAuthentication) bool {
	given := client.GetOpts()
	user := subtle.ConstantTimeCompare([]byte(given.Username), []byte(c.user))
	password := subtle.ConstantTimeCompare([]byte(given.Password), []byte(c.password))
	return user&password == 1
}

// lockDir creates the directory and makes it ours for as long as the returned
// file is open. The lock dies with the process, so nothing has to be tidied up
// after a crash.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, intentDir), 0o700); err != nil {
		return nil, fmt.Errorf("store directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrInUse)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f, nil
}

// A serverLog hands the server's messages to slog, and remembers the one with
// which it gave up, and the one that says that it cannot write: the server reports
// them nowhere else, and leaves publishers without an answer.
type serverLog struct {
	logger  *slog.Logger
	failure *failure
	fatal   atomic.Pointer[string]
}

func (l *serverLog) Noticef(format string, v ...any) { l.logger.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.logger.Warn(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.logger.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(string, ...any)           {}

func (l *serverLog) Errorf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.logger.Error(message)
	if strings.Contains(strings.ToLower(format), "critical write error") {
		l.failure.set(errors.New("the embedded NATS server: " + message))
	}
}

func (l *serverLog) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &message)
	l.logger.Error(message)
}
