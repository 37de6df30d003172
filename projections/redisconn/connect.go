package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Timeouts of one exchange with Redis. They are short because every caller can handle a
// failure: the projector retries, a read answers 503.
const (
	dialTimeout  = 2 * time.Second
	replyTimeout = 3 * time.Second
)

// slotsEvery is how often a client in use asks a Redis Cluster which node owns which slots:
// a dead node cannot name its successor.
const slotsEvery = time.Second

// Options configure a connection.
type Options struct {
	// URL says where Redis is, how it runs, and who connects:
	//	redis://user:password@host:port/db
	//	redis+cluster://user:password@host1:port1,host2:port2
	//	redis+sentinel://user:password@sentinel1:port1,sentinel2:port2/db?master=NAME
	//
	// With rediss instead of redis, all connections use TLS. One node of a cluster is
	// enough, and so is one sentinel: they know the others. The parameters follow a
	// question mark and are separated by &:
	//
	//	master             the name under which the sentinels watch the master
	//	sentinel_user      user name for the sentinels, if they require one
	//	sentinel_password
	//	tls_ca             file with the authorities to trust, in place of the system's
	//	tls_cert, tls_key  files with the client's certificate and its key
	//	tls_server_name    name that the servers' certificates are for, if not the host
	//
	// Special characters in user, password, and parameters are percent-encoded (%XX).
	URL string
	// PoolSize is the number of connections to each server. 0 is the default of go-redis:
	// 10 per CPU, and 5 in a cluster.
	PoolSize int
	// OnConnect, if not nil, is called before the first command on a new connection to a
	// data server, and in a cluster before a command goes to another node than the last one
	// for its slot: the server may have older data than the previous one. It is called by
	// the goroutines that send commands; it must not block or use the client. If it is set
	// and a server answers, all connections are made at the start and kept.
	OnConnect func()
	// KeyPrefix begins the keys, with hash tags, whose slots OnConnect watches in a cluster.
	KeyPrefix string
}

// Connect returns a client for Redis, which reads from masters only. It fails if a server
// rejects the credentials or the database, has an untrusted certificate, or runs in another
// mode than the URL says. A server that cannot be reached now is not an error: the callers
// retry. No error contains a password.
func Connect(ctx context.Context, opts Options) (redis.UniversalClient, error) {
	t, err := parseTarget(opts.URL)
	if err != nil {
		return nil, fmt.Errorf("redis URL: %w", err)
	}
	t.options.PoolSize = opts.PoolSize
	t.options.DialTimeout, t.options.ReadTimeout, t.options.WriteTimeout = dialTimeout, replyTimeout, replyTimeout
	t.options.ConnMaxIdleTime = -1 // see openAll
	t.options.ContextTimeoutEnabled = true
	t.options.DialerRetries = 1
	t.options.MaxRetries = 1
	t.options.MinRetryBackoff, t.options.MaxRetryBackoff = 5*time.Millisecond, 50*time.Millisecond
	t.options.ClientName = "chatsessions"
	// Older servers log an error for each of these at every connection.
	t.options.DisableIdentity = true
	t.options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}

	if err := t.ask(ctx); err != nil {
		return nil, err
	}
	rdb := t.client(opts.OnConnect, opts.KeyPrefix)
	err = rdb.Ping(ctx).Err()
	if isRefusal(err) {
		_ = rdb.Close()
		return nil, fmt.Errorf("redis: %w%s", err, advice(err, credentialsInURL))
	}
	if err == nil && opts.OnConnect != nil { // otherwise it would only time out again
		openAll(ctx, rdb)
	}
	return rdb, nil
}

// CheckURL returns an error for an invalid URL or unusable files. It does not dial.
func CheckURL(url string) error {
	_, err := parseTarget(url)
	return err
}

// openAll opens all connections that a client may have, to every reachable master. With
// each new connection, reads in progress start over, so the pool must not grow under load.
func openAll(ctx context.Context, rdb redis.UniversalClient) {
	open := func(ctx context.Context, server *redis.Client) error {
		conns := make([]*redis.Conn, server.Options().PoolSize)
		var opening sync.WaitGroup
		for i := range conns {
			conns[i] = server.Conn()
			opening.Go(func() { _ = conns[i].Ping(ctx).Err() }) // one that fails is opened when it is needed
		}
		opening.Wait()
		for _, c := range conns {
			_ = c.Close() // returns it to the pool
		}
		return nil
	}
	switch rdb := rdb.(type) {
	case *redis.Client:
		_ = open(ctx, rdb)
	case *redis.ClusterClient:
		_ = rdb.ForEachMaster(ctx, open)
	}
}

// A mode is a way to run Redis, in Redis's own words.
type mode string

const (
	standalone mode = "standalone"
	cluster    mode = "cluster"
	sentinel   mode = "sentinel"
)

// A target is a parsed URL.
type target struct {
	options redis.UniversalOptions
	mode    mode
}

// client returns a client of the target. It does not dial.
func (t *target) client(onConnect func(), keyPrefix string) redis.UniversalClient {
	if onConnect != nil {
		t.options.OnConnect = func(context.Context, *redis.Conn) error {
			onConnect()
			return nil
		}
	}
	switch t.mode {
	case cluster:
		o := t.options.Cluster()
		o.MaxRetries = -1  // of a node's client: the cluster client follows redirects
		o.MaxRedirects = 2 // and retries within them
		o.ClusterStateReloadInterval = slotsEvery
		// No command touches several slots. Finding that out would take a COMMAND first.
		o.DisableRoutingPolicies = true
		client := redis.NewClusterClient(o)
		if onConnect != nil {
			onSlotMove(client, keyPrefix, onConnect)
		}
		return client
	case sentinel:
		o := t.options.Failover()
		client := redis.NewFailoverClient(o)
		o.OnConnect = nil // the client has it; these options are for the connections to sentinels
		return client
	default:
		return redis.NewClient(t.options.Simple())
	}
}

// ask checks that the first reachable server, if any, is what the URL says.
func (t *target) ask(ctx context.Context) error {
	for _, address := range t.options.Addrs {
		o, server, credentials := t.options.Simple(), "redis", credentialsInURL
		o.Addr, o.DB, o.PoolSize, o.MaxRetries = address, 0, 1, -1
		if t.mode == sentinel {
			o.Username, o.Password = t.options.SentinelUsername, t.options.SentinelPassword
			server, credentials = "redis sentinel", "a sentinel's own user and password are the parameters sentinel_user and sentinel_password"
		}
		rdb := redis.NewClient(o)
		hello := redis.NewMapStringInterfaceCmd(ctx, "hello", "3") // needs no permission
		err := rdb.Process(ctx, hello)
		if is, _ := hello.Val()["mode"].(string); err == nil && is != "" && mode(is) != t.mode {
			err = t.otherMode(address, mode(is))
		} else if err == nil && t.mode == sentinel {
			err = rdb.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", t.options.MasterName).Err()
			if errors.Is(err, redis.Nil) {
				err = refusal(fmt.Sprintf("no master by the name of %q is watched here", t.options.MasterName))
			}
		}
		_ = rdb.Close()
		if err == nil {
			return nil
		}
		if isRefusal(err) {
			return fmt.Errorf("%s at %s: %w%s", server, address, err, advice(err, credentials))
		}
	}
	return nil
}

// otherMode returns the error for a server that runs in another mode than the URL says.
func (t *target) otherMode(address string, is mode) error {
	instead := url.URL{Scheme: "redis", Host: address}
	if t.options.TLSConfig != nil {
		instead.Scheme = "rediss"
	}
	if is != standalone {
		instead.Scheme += "+" + string(is)
	}
	what := map[mode]string{standalone: "a Redis of its own", cluster: "a node of a Redis Cluster", sentinel: "a sentinel"}[is]
	if what == "" {
		return nil // unknown to us, so it may work
	}
	if is == sentinel {
		instead.RawQuery = "master=NAME"
	}
	if t.options.Username != "" || t.options.Password != "" {
		instead.User = url.UserPassword(t.options.Username, t.options.Password)
	}
	return refusal(fmt.Sprintf("this is %s, so the URL is to be like %s", what, instead.Redacted()))
}

// A refusal is an error that a retry cannot fix.
type refusal string

func (r refusal) Error() string { return string(r) }

// isRefusal reports whether a server was reached and will never accept the connection.
func isRefusal(err error) bool {
	var ours refusal
	return errors.As(err, &ours) || isUntrusted(err) || isTLSAlert(err) ||
		replyBegins(err, "NOAUTH", "WRONGPASS", "NOPERM", "ERR invalid password", "ERR AUTH", "ERR DB index", "ERR invalid DB")
}

const credentialsInURL = "user and password stand before the host, as in redis://user:password@host"

// advice returns a hint to append to a refusal.
func advice(err error, credentials string) string {
	switch {
	case isUntrusted(err):
		return " (tls_ca=FILE has the authorities to trust, and tls_server_name=NAME is what the certificate is for)"
	case isTLSAlert(err):
		return " (tls_cert=FILE and tls_key=FILE are the client's certificate and its key)"
	case replyBegins(err, "NOAUTH", "WRONGPASS"):
		return " (" + credentials + ")"
	case replyBegins(err, "NOPERM"):
		return " (deploy/redis/users.acl has the rights that are needed)"
	}
	return ""
}

func isUntrusted(err error) bool {
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &certificate)
}

// isTLSAlert reports whether the server rejected the client's certificate or handshake.
func isTLSAlert(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "remote error" // crypto/tls has no type for it
}

func replyBegins(err error, beginnings ...string) bool {
	var reply redis.Error
	return errors.As(err, &reply) && slices.ContainsFunc(beginnings, func(beginning string) bool {
		return strings.HasPrefix(reply.Error(), beginning)
	})
}
