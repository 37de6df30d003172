package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ConnectOptions describe the connection to an external NATS server.
type ConnectOptions struct {
	// URL is one server or several, separated by commas. It may contain user and password,
	// or a token. "tls://" requires TLS.
	URL             string
	CredentialsFile string // a NATS .creds file; "" for none
	CAFile          string // PEM, the trusted authorities; "" for the system's
	CertFile        string // PEM, the client's certificate; needs KeyFile
	KeyFile         string // PEM, the key of CertFile
	Name            string // of the connection, for the server's operators
	Logger          *slog.Logger
}

const (
	// dialTimeout bounds one attempt to connect to one server. Publishers wait for it.
	dialTimeout = 2 * time.Second
	// writeTimeout keeps a server that hangs from blocking every publisher.
	writeTimeout = 2 * time.Second
	// pingInterval and maxPings detect a server that disappeared, within about ten seconds.
	pingInterval = 5 * time.Second
	maxPings     = 2
)

// Connect connects to an external server. The first attempt has to succeed; then the
// connection reconnects forever. While it is broken, it refuses messages instead of keeping
// them: a write that was answered with "not written" must not be sent later.
func Connect(ctx context.Context, o ConnectOptions) (*nats.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	where, err := redact(o.URL)
	if err != nil {
		return nil, err
	}
	options := append(ConnectionOptions(o.Name, o.Logger), nats.Timeout(dialTimeout))
	if o.CredentialsFile != "" {
		if _, err := os.Stat(o.CredentialsFile); err != nil {
			return nil, fmt.Errorf("NATS credentials: %w", err)
		}
		options = append(options, nats.UserCredentials(o.CredentialsFile))
	}
	if o.CAFile != "" {
		options = append(options, nats.RootCAs(o.CAFile))
	}
	switch {
	case o.CertFile != "" && o.KeyFile != "":
		options = append(options, nats.ClientCert(o.CertFile, o.KeyFile))
	case o.CertFile != "" || o.KeyFile != "":
		return nil, errors.New("a NATS client certificate needs both a certificate and a key file")
	}
	nc, err := nats.Connect(o.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", where, err)
	}
	return nc, nil
}

// ConnectionOptions are the options of every connection to the log's server.
func ConnectionOptions(name string, logger *slog.Logger) []nats.Option {
	logger = orDiscard(logger)
	return []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // credentials may be corrected while we run
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.ReconnectBufSize(-1),
		nats.FlusherTimeout(writeTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPings),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				logger.Warn("NATS connection lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			logger.Info("NATS connection restored", "server", nc.ConnectedServerName())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logger.Warn("NATS connection", "error", err)
		}),
	}
}

// CheckURL returns an error if ConnectOptions.URL cannot have this value.
func CheckURL(urls string) error {
	_, err := redact(urls)
	return err
}

// redact returns the URLs without their passwords, for messages.
func redact(urls string) (string, error) {
	if strings.TrimSpace(urls) == "" {
		return "", errors.New("the NATS URL is empty")
	}
	var redacted []string
	for part := range strings.SplitSeq(urls, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = "nats://" + part
		}
		u, err := url.Parse(part)
		if err != nil {
			// The error of url.Parse quotes the URL, including the password.
			return "", errors.New("the NATS URL is not a URL; expected nats://[user:password@]host:port")
		}
		if _, hasPassword := u.User.Password(); u.User != nil && !hasPassword {
			u.User = url.User("xxxxx") // a token
		}
		redacted = append(redacted, u.Redacted())
	}
	return strings.Join(redacted, ","), nil
}

func orDiscard(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return logger
}
