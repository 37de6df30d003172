package embedded

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"

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
	// SyncAlways has the server sync every message itself, which is slow, instead of the
	// barrier.
	SyncAlways bool
}

// Server is a NATS server inside the process, with JetStream and one store directory. It
// listens on loopback, on a port that the system chooses, so that other processes of this
// machine can reach the log while it runs.
//
// The server acknowledges a written message before it is synced. A Server is the Durability
// of its log: the log answers for a message only when it has passed the barrier, which syncs
// once for all waiting callers. A subscriber that is not a Log may see an event some
// milliseconds before it is on disk.
type Server struct {
	server  *server.Server
	options Options
	logger  *slog.Logger
	lock    *os.File
	failure *failure
	intents *intents
	syncs   bool // the server syncs every message itself

	barrier  atomic.Pointer[barrier] // set by Settle, never if the server syncs
	settling sync.Mutex
	settled  bool
	first    uint64 // position of the log's first event

	working  sync.WaitGroup  // its goroutines, which end with ctx
	ctx      context.Context // ends with Shutdown
	stop     context.CancelFunc
	shutdown sync.Once
}

var _ eventstore.Durability = (*Server)(nil)

// Start starts a server on the store directory. It returns when the server has read the
// directory and serves. It returns ErrInUse when the directory is in use.
//
// The barrier relies on how the server writes its files. If Start finds that the server
// writes them differently, it warns and acts as with SyncAlways.
func Start(ctx context.Context, o Options) (*Server, error) { return start(ctx, o, checkLayout) }

func start(ctx context.Context, o Options, layout func(ctx context.Context, dir string) error) (*Server, error) {
	if o.User == "" || o.Password == "" {
		return nil, errors.New("the embedded NATS server needs a user and a password")
	}
	if o.Sync == nil {
		o.Sync = func(_ string, sync func() error) error { return sync() }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	lock, err := lockDir(o.StoreDir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		options: o, logger: o.Logger, lock: lock, failure: newFailure(),
		intents: newIntents(o.StoreDir, o.Sync), syncs: o.SyncAlways,
		first: 1,
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if err := s.run(ctx, layout); err != nil {
		s.stop()
		s.working.Wait()
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) run(ctx context.Context, layout func(ctx context.Context, dir string) error) error {
	o := &s.options
	if err := s.inspect(ctx); err != nil {
		return err
	}
	if err := beginRun(o.StoreDir, o.Sync); err != nil {
		return fmt.Errorf("store directory: %w", err)
	}
	if !s.syncs {
		if difference := layout(ctx, filepath.Join(o.StoreDir, layoutDir)); difference != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("embedded NATS server: %w", difference)
			}
			s.logger.Warn("the embedded NATS server does not write its files as expected: every event is synced on its own, which is slow", "difference", difference)
			s.syncs = true
		}
	}
	var err error
	s.server, err = runServer(ctx, &server.Options{
		ServerName:                 "chatsessions-embedded",
		Host:                       "127.0.0.1",
		Port:                       server.RANDOM_PORT,
		CustomClientAuthentication: credentials{o.User, o.Password},
		StoreDir:                   o.StoreDir,
		SyncAlways:                 s.syncs,
	}, &serverLog{logger: s.logger, failure: s.failure})
	return err
}

// inspect checks the log before the server gets it, which would cut it at a damage.
func (s *Server) inspect(ctx context.Context) error {
	stored, err := FindStored(s.options.StoreDir)
	if errors.Is(err, ErrNoLog) {
		return nil
	}
	if err != nil {
		return err
	}
	if n := stored.Info.Replicas; n > 1 {
		return &eventstore.ConfigError{Differences: []eventstore.Difference{
			{Field: "num_replicas", Found: strconv.Itoa(n), Needed: "1"},
		}}
	}
	if stored.Durable != nil {
		s.first = max(stored.Durable.First, 1)
	}
	if stored.Clean && stored.Durable != nil && len(stored.Files) > 0 {
		newest, err := stored.checkNewest(ctx)
		if err != nil {
			return err
		}
		s.checkLater(stored, newest)
		return nil
	}
	began, noted := time.Now(), time.Now()
	var read, all int64
	for _, f := range stored.Files {
		all += f.Size
	}
	cut, err := stored.checkAll(ctx, func(f blocks.File) {
		if read += f.Size; time.Since(noted) > checkNoted {
			noted = time.Now()
			s.options.Logger.Info("checking the log", "megabytes", read>>20, "of", all>>20)
		}
	})
	if err != nil || cut == nil {
		return err
	}
	aside, err := stored.setAside(cut, s.options.Sync)
	if err != nil {
		return fmt.Errorf("setting aside what follows the end of the log: %w", err)
	}
	s.options.Logger.Warn("the log ends before its files do; what follows was never answered, and is set aside",
		"found", cut.Error(), "aside", aside, "took", time.Since(began))
	return nil
}

// checkNoted is how often the progress of a check is logged.
const checkNoted = 5 * time.Second

// checkLater checks the older files while the server runs. A damage is a failure.
func (s *Server) checkLater(stored *Stored, newest uint64) {
	s.working.Go(func() {
		began := time.Now()
		err := stored.checkOlder(s.ctx, newest, func(blocks.File) {
			time.Sleep(time.Since(began)) // half of the time is left to others
			began = time.Now()
		})
		if err != nil && s.ctx.Err() == nil {
			s.failure.set(err)
		}
	})
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

// Settle implements eventstore.Durability. The first Log that is opened settles the log;
// then the barrier keeps it durable.
func (s *Server) Settle(ctx context.Context, found eventstore.Recovery) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.settled {
		return s.failure.get()
	}
	if c := found.Stream.Compression; c != jetstream.NoCompression && !s.syncs {
		// The server would replace block files under the barrier.
		return &eventstore.ConfigError{Differences: []eventstore.Difference{
			{Field: "compression", Found: c.String(), Needed: jetstream.NoCompression.String()},
		}}
	}
	intents, err := s.intents.complete(ctx, found)
	if err != nil {
		return err
	}
	end, err := found.End(ctx)
	if err != nil {
		return err
	}
	if err := syncTree(s.options.StoreDir, s.options.Sync); err != nil {
		err = fmt.Errorf("the log cannot be made durable: %w", err)
		s.failure.set(err)
		return err
	}
	for _, i := range intents {
		if err := os.Remove(i.path); err != nil {
			return err
		}
	}
	if !s.syncs {
		blocks, err := openBlockFiles(streamDir(s.options.StoreDir, eventstore.StreamName), s.options.Sync)
		if err != nil {
			return err
		}
		s.barrier.Store(newBarrier(blocks, end, s.failure, s.options.Synced))
	}
	if err := s.noteDurable(end); err != nil {
		return err
	}
	s.settled = true
	return nil
}

// noteDurable keeps the durable position beside the log, from now on.
func (s *Server) noteDurable(end uint64) error {
	note, err := openDurableNote(s.options.StoreDir, s.options.Sync, Durable{s.first, end})
	if err != nil {
		return fmt.Errorf("durable position: %w", err)
	}
	covered := new(atomic.Uint64)
	if b := s.barrier.Load(); b != nil {
		covered = &b.covered
	}
	s.working.Go(func() {
		note.follow(covered, s.ctx.Done(), func(err error) {
			s.options.Logger.Error("the durable position cannot be noted; after a crash, less of the log is known to be on disk", "error", err)
		})
	})
	return nil
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
	options := append(eventstore.ConnectionOptions("chatsessions", s.logger),
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
		s.removeCoveredIntents()
		if b := s.barrier.Load(); b != nil {
			b.close()
		}
		s.stop()
		s.working.Wait()
		stopServer(s.server)
		if s.failure.get() == nil {
			if err := endRun(s.options.StoreDir, s.options.Sync); err != nil {
				s.logger.Error("the log was not made durable at the end; the next start reads all of it", "error", err)
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
