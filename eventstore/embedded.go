package eventstore

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
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
}

// Embedded is a NATS server inside the process, with JetStream and one store
// directory. It listens on loopback, on a port that the system chooses, so that
// other processes of this machine can reach the log while it runs.
type Embedded struct {
	server  *server.Server
	options EmbeddedOptions
	lock    *os.File
}

// StartEmbedded starts a server on the store directory and returns when it
// serves, which is after it has read what is there. It returns ErrInUse when the
// directory is taken.
func StartEmbedded(ctx context.Context, o EmbeddedOptions) (*Embedded, error) {
	if o.User == "" || o.Password == "" {
		return nil, errors.New("the embedded NATS server needs a user and a password")
	}
	lock, err := lockDir(o.StoreDir)
	if err != nil {
		return nil, err
	}
	log := &serverLog{logger: orDiscard(o.Logger)}
	srv, err := server.NewServer(&server.Options{
		ServerName:                 "chatsessions-embedded",
		Host:                       "127.0.0.1",
		Port:                       server.RANDOM_PORT,
		CustomClientAuthentication: credentials{o.User, o.Password},
		JetStream:                  true,
		StoreDir:                   o.StoreDir,
		SyncAlways:                 true, // what is acknowledged is on disk
		NoSigs:                     true,
		DisableJetStreamBanner:     true,
	})
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	srv.SetLoggerV2(log, false, false, false)
	e := &Embedded{server: srv, options: o, lock: lock}
	go srv.Start() // returns when the server is up; ends with Shutdown
	for !srv.ReadyForConnections(50 * time.Millisecond) {
		if failure := log.fatal.Load(); failure != nil {
			e.Shutdown()
			return nil, fmt.Errorf("embedded NATS server: %s", *failure)
		}
		if err := ctx.Err(); err != nil {
			e.Shutdown()
			return nil, fmt.Errorf("embedded NATS server did not get ready: %w", err)
		}
	}
	return e, nil
}

// ClientURL is where other processes of this machine reach the server; it does
// not hold the credentials.
func (e *Embedded) ClientURL() string { return e.server.ClientURL() }

// Connect connects within the process, without a socket. The connection does not
// keep messages while it is broken; see Connect.
func (e *Embedded) Connect() (*nats.Conn, error) {
	options := append(connectionOptions("chatsessions", e.options.Logger),
		nats.InProcessServer(e.server),
		nats.UserInfo(e.options.User, e.options.Password),
	)
	nc, err := nats.Connect("", options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// Shutdown stops the server and returns when its files are closed. Connections
// should be closed before.
func (e *Embedded) Shutdown() {
	e.server.Shutdown()
	e.server.WaitForShutdown()
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
	if err := os.MkdirAll(dir, 0o700); err != nil {
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
// which it gave up: the server reports that nowhere else.
type serverLog struct {
	logger *slog.Logger
	fatal  atomic.Pointer[string]
}

func (l *serverLog) Noticef(format string, v ...any) { l.logger.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.logger.Warn(fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any)  { l.logger.Error(fmt.Sprintf(format, v...)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.logger.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLog) Tracef(string, ...any)           {}

func (l *serverLog) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &message)
	l.logger.Error(message)
}
