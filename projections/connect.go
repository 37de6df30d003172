package projections

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Timeouts of one exchange with Redis. Trouble is told quickly, because those
// who ask know how to go on: the projector tries again, a reader says 503.
const (
	dialTimeout  = 2 * time.Second
	replyTimeout = 3 * time.Second
)

// RedisOptions say how to reach Redis.
type RedisOptions struct {
	// URL is redis://user:password@host:port/db, or rediss:// for TLS.
	URL string
	// TLS replaces the TLS configuration of a rediss:// URL, for a private
	// certificate authority or client certificates.
	TLS *tls.Config
	// PoolSize is the number of connections; 0 is go-redis' default, 10 per CPU.
	PoolSize int
}

// Connect returns a client for a Redis server. A server that refuses the
// credentials or the database is an error. One that cannot be reached now is
// not: the projector and the read model try until it can.
func Connect(ctx context.Context, opts RedisOptions) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(opts.URL)
	if err != nil {
		var parse *url.Error // its text holds the whole URL, password included
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return nil, fmt.Errorf("redis URL: %w", err)
	}
	if o.TLSConfig != nil && opts.TLS != nil {
		name := o.TLSConfig.ServerName
		if o.TLSConfig = opts.TLS.Clone(); o.TLSConfig.ServerName == "" {
			o.TLSConfig.ServerName = name
		}
	}
	o.PoolSize = opts.PoolSize
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, replyTimeout, replyTimeout
	o.ContextTimeoutEnabled = true
	o.DialerRetries = 1
	o.MaxRetries = 1
	o.MinRetryBackoff, o.MaxRetryBackoff = 5*time.Millisecond, 50*time.Millisecond
	o.ClientName = "chatsessions"
	// Older servers log an error for each of these at every connection.
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

	rdb := redis.NewClient(o)
	if err := rdb.Ping(ctx).Err(); isRefusal(err) {
		_ = rdb.Close()
		return nil, fmt.Errorf("redis at %s: %w", o.Addr, err)
	}
	return rdb, nil
}

// isRefusal says whether the server was reached and will never have us.
func isRefusal(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	for _, refusal := range []string{"NOAUTH", "WRONGPASS", "NOPERM", "ERR invalid password", "ERR AUTH", "ERR DB index", "ERR invalid DB"} {
		if strings.HasPrefix(reply.Error(), refusal) {
			return true
		}
	}
	return false
}
