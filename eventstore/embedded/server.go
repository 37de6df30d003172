package embedded

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"chatsessions/eventstore"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrInUse is returned by Start when another process, or another server in this one, uses
// the store directory.
var ErrInUse = errors.New("the store directory is in use by another process")

// Options of the server.
type Options struct {
	// StoreDir holds the log. A missing directory is created.
	StoreDir string
	// User and Password are required of every client, including ours.
	User, Password string
	Logger         *slog.Logger
	// Sync, if it is set, is called for every sync.
	Sync SyncFunc
	// Synced, if it is set, observes each sync of the log: how many callers waited for it, and
	// how long it took. It is called between two syncs and must be quick.
	Synced func(group int, took time.Duration)
}

// Server is a NATS server inside the process, with JetStream and one store directory. It
// listens on a port of loopback, for other processes of this machine.
//
// The server acknowledges a message before it is synced. As the Durability of its log, a
// Server releases an event when it has passed the barrier. A subscriber that is not a Log
// may see the event some milliseconds before.
type Server struct {
	server  *server.Server
	options Options
	lock    *os.File
	failure *failure

	settling sync.Mutex
	barrier  atomic.Pointer[barrier] // set by Settle
	first    uint64                  // position of the log's first event

	working  sync.WaitGroup  // its goroutines, which end with ctx
	ctx      context.Context // ends with Shutdown
	end      context.CancelFunc
	shutdown sync.Once
}

var _ eventstore.Durability = (*Server)(nil)

// Start starts a server on the store directory. It returns when the server has read the
// directory and serves. It returns ErrInUse when the directory is in use.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.User == "" || o.Password == "" {
		return nil, errors.New("the embedded NATS server needs a user and a password")
	}
	if o.Sync == nil {
		o.Sync = justSync
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := lockDir(o.StoreDir)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, lock: lock, failure: newFailure(), first: 1}
	s.ctx, s.end = context.WithCancel(context.Background())
	if err := s.run(ctx); err != nil {
		s.end()
		s.working.Wait()
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

// run starts the NATS server and returns when it serves.
func (s *Server) run(ctx context.Context) (err error) {
	o := &s.options
	if err := s.inspect(ctx); err != nil {
		return err
	}
	if err := beginRun(o.StoreDir, o.Sync); err != nil {
		return fmt.Errorf("store directory: %w", err)
	}
	s.server, err = server.NewServer(&server.Options{
		ServerName:                 "chatsessions-embedded",
		Host:                       "127.0.0.1",
		Port:                       server.RANDOM_PORT,
		CustomClientAuthentication: credentials{o.User, o.Password},
		JetStream:                  true,
		StoreDir:                   o.StoreDir,
		JetStreamMaxStore:          math.MaxInt64, // else 75 % of what is free now; only the disk limits the log
		NoSigs:                     true,
		DisableJetStreamBanner:     true,
	})
	if err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	log := &serverLog{logger: o.Logger, failure: s.failure}
	s.server.SetLoggerV2(log, false, false, false)
	go s.server.Start() // returns when the server is up; ends with stop
	for !s.server.ReadyForConnections(50 * time.Millisecond) {
		if failure := log.fatal.Load(); failure != nil {
			s.stop()
			return fmt.Errorf("embedded NATS server: %s", *failure)
		}
		if err := ctx.Err(); err != nil {
			s.stop()
			return fmt.Errorf("embedded NATS server did not get ready: %w", err)
		}
	}
	return nil
}

func (s *Server) stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// Settle implements eventstore.Durability. The first Log that is opened settles the log;
// then the barrier keeps it durable.
func (s *Server) Settle(ctx context.Context, found eventstore.Recovery) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.barrier.Load() != nil {
		return s.failure.get()
	}
	if c := found.Stream.Compression; c != jetstream.NoCompression {
		// The server would replace block files under the barrier.
		return &eventstore.ConfigError{Differences: []eventstore.Difference{
			{Field: "compression", Found: c.String(), Needed: jetstream.NoCompression.String()},
		}}
	}
	intents, err := s.completeIntents(ctx, found)
	if err != nil {
		return err
	}
	end, err := found.End(ctx)
	if err != nil {
		return err
	}
	if err := syncTree(s.options.StoreDir, s.options.Sync); err != nil {
		return s.failure.syncFailed(err)
	}
	for _, path := range intents {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	blocks, err := openBlockFiles(s.options.StoreDir, s.options.Sync)
	if err != nil {
		return err
	}
	s.barrier.Store(newBarrier(blocks, end, s.failure, s.options.Synced))
	return s.noteDurable(end)
}

// Durable implements eventstore.Durability.
func (s *Server) Durable(ctx context.Context, position uint64) error {
	if b := s.barrier.Load(); b != nil {
		return b.wait(ctx, position)
	}
	return s.failure.get()
}

// Failed returns a channel that is closed when the log can no longer be written or made
// durable; Err says why. Nothing is written after that. The process has to end; the next
// start finds out which events are on disk.
func (s *Server) Failed() <-chan struct{} { return s.failure.happened }

// Err implements eventstore.Durability.
func (s *Server) Err() error { return s.failure.get() }

// ClientURL returns the address for other processes of this machine, without credentials.
func (s *Server) ClientURL() string { return s.server.ClientURL() }

// Connect connects within the process, without a socket. While the connection is broken, it
// refuses messages instead of keeping them; see eventstore.Connect.
func (s *Server) Connect() (*nats.Conn, error) {
	options := append(eventstore.ConnectionOptions("chatsessions", s.options.Logger),
		nats.InProcessServer(bufferedServer{s.server}),
		nats.UserInfo(s.options.User, s.options.Password),
	)
	nc, err := nats.Connect("", options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// Shutdown stops the server and returns when its files are closed and on disk. Close
// connections before.
func (s *Server) Shutdown() {
	s.shutdown.Do(func() {
		if b := s.barrier.Load(); b != nil {
			b.close()
		}
		s.end()
		s.working.Wait()
		s.stop()
		if s.failure.get() == nil {
			if err := endRun(s.options.StoreDir, s.options.Sync); err != nil {
				s.options.Logger.Error("the log was not made durable at the end; the next start reads all of it", "error", err)
			}
		}
		_ = s.lock.Close() // releases the lock
	})
}

// credentials are those of the only user. The server would check them in the same way, and
// warn at every start that they are not a hash.
type credentials struct{ user, password string }

// Check implements server.Authentication.
func (c credentials) Check(client server.ClientAuthentication) bool {
	given := client.GetOpts()
	user := subtle.ConstantTimeCompare([]byte(given.Username), []byte(c.user))
	password := subtle.ConstantTimeCompare([]byte(given.Password), []byte(c.password))
	return user&password == 1
}

// lockDir creates the directory and locks it for as long as the returned file is open. The
// lock ends with the process, so a crash leaves nothing to clean up.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, intentDir), 0o700); err != nil {
		return nil, fmt.Errorf("store directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store directory: %w", err)
	}
	return f, flock(f, syscall.LOCK_EX)
}

// lockFile in the store directory is locked by the process that uses it.
const lockFile = "lock"

// flock locks a file without waiting, or closes it.
func flock(f *os.File, how int) error {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if err == nil {
		return nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", filepath.Dir(f.Name()), ErrInUse)
	}
	return fmt.Errorf("locking %s: %w", filepath.Dir(f.Name()), err)
}

// A serverLog passes the server's messages to slog. It remembers the message with which the
// server gave up, and notices the one that says that it cannot write: the server reports
// that nowhere else, and leaves publishers without an answer.
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
