package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/redistest"
)

func TestAURLSaysWhereRedisIsAndHowItIsRun(t *testing.T) {
	for text, want := range map[string]target{
		"redis://h":                            {mode: standalone, options: redis.UniversalOptions{Addrs: []string{"h:6379"}}},
		"redis://:p%40%2F@h:1/3":               {mode: standalone, options: redis.UniversalOptions{Addrs: []string{"h:1"}, DB: 3, Password: "p@/"}},
		"redis://u:p@x@[::1]:1/":               {mode: standalone, options: redis.UniversalOptions{Addrs: []string{"[::1]:1"}, Username: "u", Password: "p@x"}},
		"redis+cluster://u:p@a:1,b,[::1]":      {mode: cluster, options: redis.UniversalOptions{Addrs: []string{"a:1", "b:6379", "[::1]:6379"}, Username: "u", Password: "p", IsClusterMode: true}},
		"redis+sentinel://u:p@a:1,b/2?master=": {},
		"redis+sentinel://u:p@a:1,b/2?master=m&sentinel_user=s&sentinel_password=q%26": {mode: sentinel, options: redis.UniversalOptions{
			Addrs: []string{"a:1", "b:26379"}, DB: 2, Username: "u", Password: "p", MasterName: "m", SentinelUsername: "s", SentinelPassword: "q&"}},
	} {
		got, err := parseTarget(text)
		if want.mode == "" {
			if err == nil {
				t.Errorf("%s: no error", text)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"rediss://h", "rediss+cluster://h", "rediss+sentinel://h?master=m&tls_server_name=h.test"} {
		if got, err := parseTarget(text); err != nil || got.options.TLSConfig == nil {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
}

func TestAWrongURLIsReportedWithoutThePassword(t *testing.T) {
	dir := t.TempDir()
	noCertificate := filepath.Join(dir, "empty.pem")
	logtest.MustRun(t, os.WriteFile(noCertificate, nil, 0o600))
	for _, c := range []struct{ url, want string }{
		{"", "begins with redis://"},
		{"hidden", "begins with redis://"},
		{"http://u:hidden@h", "begins with redis://"},
		{"redis+ring://u:hidden@h", "begins with redis://"},
		{"redis+standalone://u:hidden@h", "begins with redis://"},
		{"redis://u:hidden@", "address 1: this is neither HOST:PORT nor HOST"},
		{"redis://u:hidden@[", "address 1: this is neither HOST:PORT nor HOST"},
		{"redis://u:hidden", "address 1: this is neither HOST:PORT nor HOST"},
		{"redis://u:hidden@h:port", "address 1: this is neither HOST:PORT nor HOST"},
		{"redis://u:hidden@h:99999", "address 1: the port is not one from 1 to 65535"},
		{"redis+cluster://u:hidden@h:1,", "address 2: this is neither HOST:PORT nor HOST"},
		{"redis://u:hidden@h:1,i:2", "several addresses belong into a redis+cluster:// or redis+sentinel:// URL"},
		{"redis://u:hidden/2@h", "/ is written %2F"},
		{"redis://u:1/hidden@h/0", "/ is written %2F"},
		{"redis://u:1?hidden@h", "? is %3F"},
		{"redis://u:1#hidden@h", "# is %23"},
		{"redis://u:hidden%ZZ@h", "what is special there is written %XX"},
		{"redis://u:hidd en@h", "what is special there is written %XX"},
		{"redis://u:hidden@h/hidden", "behind the slash comes the number of a database"},
		{"redis://u:hidden@h/-1", "behind the slash comes the number of a database"},
		{"redis+cluster://u:hidden@h/1", "a Redis Cluster has no databases but 0"},
		{"redis://u:hidden@h?pool_size=3", `unknown parameter "pool_size"; the parameters are master, sentinel_password, sentinel_user, tls_ca, tls_cert, tls_key, tls_server_name`},
		{"redis://u:hidden@h?skip_verify=true", `unknown parameter "skip_verify"`},
		{"redis+sentinel://u:hidden@h?master=m&sentinel_password=p&hidden", "within the sentinel_password, & is written %26"},
		{"redis+sentinel://u:hidden@h?master=m&sentinel_password=hidden%Z", "what is special %XX"},
		{"redis+sentinel://u:hidden@h?sentinel_password=hidden", "?master=NAME"},
		{"redis+sentinel://u:hidden@h?master=a&master=b", "parameter master is given once, with a value"},
		{"redis://u:hidden@h?master=m", "parameter master requires redis+sentinel://"},
		{"redis+cluster://u:hidden@h?sentinel_password=hidden", "parameter sentinel_password requires redis+sentinel://"},
		{"redis://u:hidden@h?tls_ca=x", "parameter tls_ca requires TLS: use rediss in place of redis"},
		{"rediss://u:hidden@h?tls_ca=" + dir + "/none", "tls_ca: open " + dir + "/none: no such file or directory"},
		{"rediss://u:hidden@h?tls_ca=" + noCertificate, "tls_ca: there is no certificate in " + noCertificate},
		{"rediss://u:hidden@h?tls_key=k", "tls_cert and tls_key are given both, or neither"},
		{"rediss://u:hidden@h?tls_key=k&tls_cert=" + dir + "/none", "tls_cert and tls_key: open " + dir + "/none: no such file or directory"},
	} {
		rdb, err := Connect(t.Context(), Options{URL: c.url})
		if err == nil {
			logtest.MustRun(t, rdb.Close())
			t.Errorf("%s: no error", c.url)
			continue
		}
		if !strings.HasPrefix(err.Error(), "redis URL: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v; want %s", c.url, err, c.want)
		}
	}
}

// changed returns a URL with other credentials, "" for none, and other parameters, "" for
// without.
func changed(t *testing.T, from, password string, parameters ...string) string {
	t.Helper()
	scheme, rest, _ := strings.Cut(from, "://")
	credentials, rest, _ := strings.Cut(rest, "@")
	user, _, _ := strings.Cut(credentials, ":")
	rest, query, _ := strings.Cut(rest, "?")
	all, err := url.ParseQuery(query)
	logtest.MustRun(t, err)
	for pair := range slices.Chunk(parameters, 2) {
		all.Set(pair[0], pair[1])
		if pair[1] == "" {
			all.Del(pair[0])
		}
	}
	if password != "" {
		user += ":" + password + "@"
	} else {
		user = ""
	}
	return scheme + "://" + user + rest + "?" + strings.ReplaceAll(all.Encode(), "+", "%20")
}

func TestARedisThatCanNeverWorkIsReportedAtTheStart(t *testing.T) {
	certificates, others := redistest.NewCertificates(t), redistest.NewCertificates(t)
	one := redistest.Start(t, redistest.Config{ACL: true})
	secure := redistest.Start(t, redistest.Config{ACL: true, TLS: certificates})
	clustered := redistest.StartCluster(t, redistest.Config{ACL: true})
	node := clustered.Servers()[0]
	at, err := url.Parse(node.URL())
	logtest.MustRun(t, err)
	plain, _ := at.User.Password()
	watched := redistest.StartSentinel(t, certificates)
	const (
		badPassword  = "WRONGPASS invalid username-password pair or user is disabled."
		noPassword   = "NOAUTH Authentication required. (user and password stand before the host, as in redis://user:password@host)"
		badAuthority = "certificate signed by unknown authority"
		noClient     = "(tls_cert=FILE and tls_key=FILE are the client's certificate and its key)"
	)
	for _, c := range []struct{ url, want string }{
		{changed(t, one.URL(), "hidden"), badPassword},
		{changed(t, one.URL(), ""), noPassword},
		{strings.TrimSuffix(changed(t, one.URL(), "hidden"), "?") + "/0", badPassword},
		{one.URL() + "/99", "ERR DB index is out of range"},

		{changed(t, clustered.URL(), "hidden"), badPassword},
		{changed(t, clustered.URL(), ""), noPassword},
		{changed(t, watched.URL(), "hidden"), badPassword},
		{changed(t, watched.URL(), ""), noPassword},
		{changed(t, watched.URL(), "hidden", "sentinel_password", "hidden"), "(a sentinel's own user and password are the parameters sentinel_user and sentinel_password)"},
		{changed(t, watched.URL(), "hidden", "sentinel_user", "", "sentinel_password", ""), "NOAUTH Authentication required. (a sentinel's own user and password are"},
		{changed(t, watched.URL(), "hidden", "master", "other"), `no master by the name of "other" is watched here`},

		{changed(t, secure.URL(), "hidden", "tls_ca", ""), badAuthority},
		{changed(t, secure.URL(), "hidden", "tls_ca", others.Cert), badAuthority},
		{changed(t, secure.URL(), "hidden", "tls_ca", others.Cert), "(tls_ca=FILE has the authorities to trust, and tls_server_name=NAME is what the certificate is for)"},
		{changed(t, secure.URL(), "hidden", "tls_server_name", "redis.prod"), "certificate is valid for redis.test, not redis.prod"},
		{changed(t, secure.URL(), "hidden", "tls_cert", "", "tls_key", ""), noClient},
		{changed(t, secure.URL(), "hidden", "tls_cert", others.Cert, "tls_key", others.Key), noClient},
		{changed(t, watched.URL(), "hidden", "tls_ca", others.Cert), badAuthority},

		{node.URL(), "this is a node of a Redis Cluster, so the URL is to be like redis+cluster://chatsessions:xxxxx@" + node.Addr()},
		{node.URL() + "/3", "this is a node of a Redis Cluster, so the URL is to be like redis+cluster://chatsessions:xxxxx@" + node.Addr()},
		{strings.Replace(one.URL(), "redis", "redis+cluster", 1), "this is a Redis of its own, so the URL is to be like redis://chatsessions:xxxxx@" + one.Addr()},
		{watched.Sentinels()[0].URL(), "this is a sentinel, so the URL is to be like rediss+sentinel://chatsessions:xxxxx@" + watched.Sentinels()[0].Addr() + "?master=NAME"},
		{strings.Replace(node.URL(), "redis", "redis+sentinel", 1) + "?master=m&sentinel_user=chatsessions&sentinel_password=" + url.QueryEscape(plain), "this is a node of a Redis Cluster, so the URL is to be like redis+cluster://"},
	} {
		rdb, err := Connect(t.Context(), Options{URL: c.url})
		if err == nil {
			logtest.MustRun(t, rdb.Close())
			t.Errorf("%s: no error, want %s", c.url, c.want)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "pass:w") || strings.Contains(err.Error(), "pass%3A") {
			t.Errorf("%s:\n%v\nwant %s", c.url, err, c.want)
		}
	}
}

// A Redis that is run in some way, with the users that the repository deploys.
type deployment interface {
	URL() string
	CheckRights()
}

// onEveryDeployment runs a test on each way to run Redis, with TLS and without.
func onEveryDeployment(t *testing.T, test func(t *testing.T, d deployment)) {
	for _, secure := range []bool{false, true} {
		config := redistest.Config{ACL: true}
		suffix := ""
		if secure {
			config.TLS, suffix = redistest.NewCertificates(t), " with TLS"
		}
		t.Run("server"+suffix, func(t *testing.T) { test(t, redistest.Start(t, config)) })
		t.Run("cluster"+suffix, func(t *testing.T) { test(t, redistest.StartCluster(t, config)) })
		t.Run("sentinel"+suffix, func(t *testing.T) { test(t, redistest.StartSentinel(t, config.TLS)) })
	}
}

func connectTo(t *testing.T, opts Options) redis.UniversalClient {
	t.Helper()
	rdb, err := Connect(t.Context(), opts)
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	return rdb
}

// Everything that go-redis can do and this package needs, with keys in many slots and
// no more rights than the repository deploys.
func TestEveryDeploymentServesWhatIsNeeded(t *testing.T) {
	onEveryDeployment(t, func(t *testing.T, d deployment) {
		ctx := t.Context()
		rdb := connectTo(t, Options{URL: d.URL()})
		ap, err := rdb.AutoPipeline()
		logtest.MustRun(t, err)
		script := redis.NewScript(`return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}`)
		for n := range 20 {
			keys := layout.Partitions(20)[n].Keys("g")
			a, b := keys.Document("a"), keys.Document("b")
			logtest.MustRun(t, rdb.Watch(ctx, func(tx *redis.Tx) error {
				_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
					p.MSet(ctx, a, "1", b, "2")
					return nil
				})
				return err
			}, keys.Partition.Checkpoint()))
			for what, got := range map[string]func() (any, error){
				"get":    func() (any, error) { return rdb.MGet(ctx, a, b).Result() },
				"script": func() (any, error) { return script.Run(ctx, rdb, []string{a, b}).Result() },
				"autopipeline": func() (any, error) {
					return ap.MGet(ctx, a, b).Result()
				},
			} {
				if values, err := got(); err != nil || fmt.Sprint(values) != "[1 2]" {
					t.Fatalf("%s: %v, %v", what, values, err)
				}
			}
			err := rdb.Watch(ctx, func(tx *redis.Tx) error {
				if err := rdb.Set(ctx, a, "3", 0).Err(); err != nil {
					return err
				}
				_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, b, "3", 0).Err() })
				return err
			}, a)
			if !errors.Is(err, redis.TxFailedErr) {
				t.Fatalf("somebody else wrote what is watched, and the transaction gives %v", err)
			}
		}
		mustHear(t, rdb)
		d.CheckRights()
	})
}

// mustHear publishes a notice for each of some partitions, to one subscription.
func mustHear(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	var channels []string
	for n := range 4 {
		channels = append(channels, layout.Partitions(4)[n].Notices())
	}
	notices := rdb.Subscribe(t.Context(), channels...)
	defer notices.Close()
	for range channels {
		if _, err := notices.Receive(t.Context()); err != nil { // that it has subscribed
			t.Fatal(err)
		}
	}
	for _, channel := range channels {
		logtest.MustRun(t, rdb.Publish(t.Context(), channel, "x").Err())
		select {
		case notice := <-notices.Channel():
			if notice.Channel != channel {
				t.Fatalf("%v, want one of %s", notice, channel)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no notice of %s", channel)
		}
	}
}

func TestTheServiceHasNoOtherRights(t *testing.T) {
	server := redistest.Start(t, redistest.Config{ACL: true})
	rdb := connectTo(t, Options{URL: server.URL()})
	for _, command := range []string{
		"FLUSHALL", "KEYS *", "CONFIG GET *", "SHUTDOWN", "REPLICAOF NO ONE", "ACL LIST", "CLIENT LIST", "MONITOR", "SCRIPT FLUSH", "FUNCTION LIST",
		"GET other", "SET other x", "PUBLISH other x", "EVAL return(redis.call('GET','other')) 0", "CLUSTER NODES",
	} {
		var args []any
		for _, arg := range strings.Fields(command) {
			args = append(args, arg)
		}
		if err := rdb.Do(t.Context(), args...).Err(); err == nil || !strings.Contains(err.Error(), "NOPERM") && !strings.Contains(err.Error(), "can't access at least one of the keys") {
			t.Errorf("%s: %v", command, err)
		}
	}
}

func TestANewConnectionIsReportedBeforeItIsUsed(t *testing.T) {
	server := redistest.Start(t, redistest.Config{Password: "secret"})
	var connected atomic.Int64
	rdb := connectTo(t, Options{URL: server.URL(), OnConnect: func() { connected.Add(1) }})
	mustReport := func(more bool) {
		t.Helper()
		before := connected.Load()
		err := rdb.Get(t.Context(), "cs1:x").Err()
		if after := connected.Load(); !errors.Is(err, redis.Nil) || (after > before) != more {
			t.Fatalf("%v; reported %d connections, before it was %d", err, after, before)
		}
	}
	if connected.Load() == 0 {
		t.Fatal("there is a connection already, and nothing reported it")
	}
	mustReport(false)
	server.Restart()
	mustReport(true)
	mustReport(false)
	notices := rdb.Subscribe(t.Context(), "cs1:x")
	defer notices.Close()
	before := connected.Load()
	if _, err := notices.Receive(t.Context()); err != nil || connected.Load() == 0 {
		t.Fatalf("%v; reported %d connections, before it was %d", err, connected.Load(), before)
	}
}

// A connection that is made during other reads makes all of them start over.
func TestNoConnectionIsMadeWhenManyAskAtOnce(t *testing.T) {
	const size = 6
	for name, url := range map[string]string{
		"server":   redistest.Start(t, redistest.Config{ACL: true}).URL(),
		"cluster":  redistest.StartCluster(t, redistest.Config{ACL: true}).URL(),
		"sentinel": redistest.StartSentinel(t, nil).URL(),
	} {
		t.Run(name, func(t *testing.T) {
			var connected atomic.Int64
			rdb := connectTo(t, Options{URL: url, PoolSize: size, OnConnect: func() { connected.Add(1) }})
			_ = rdb.Get(t.Context(), "cs1:x").Err() // in a cluster, this is reported as a slot's first
			before := connected.Load()
			meet := make(chan struct{})
			var asking sync.WaitGroup
			var arrived atomic.Int64
			for range size { // each keeps its connection until all have one
				asking.Go(func() {
					err := rdb.Watch(t.Context(), func(tx *redis.Tx) error {
						if arrived.Add(1) == size {
							close(meet)
						}
						<-meet
						return nil
					}, "cs1:x")
					if err != nil {
						t.Error(err)
					}
				})
			}
			asking.Wait()
			if after := connected.Load(); before < size || after != before {
				t.Errorf("reported %d connections for a pool of %d, and of %d when all were used", before, size, after-before)
			}
		})
	}
}

// Each attempt may take its whole time limit, where a server is there and silent.
func TestAServerThatDoesNotAnswerIsNotTriedForEveryConnection(t *testing.T) {
	const size = 50
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	logtest.MustRun(t, err)
	var dialled atomic.Int64
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			_ = c.Close()
		}
	})
	for _, scheme := range []string{"redis", "redis+cluster"} {
		connectTo(t, Options{URL: scheme + "://" + listener.Addr().String(), PoolSize: size, OnConnect: func() {}})
	}
	logtest.MustRun(t, listener.Close())
	accepting.Wait()
	if n := dialled.Load(); n == 0 || n >= size {
		t.Errorf("%d attempts", n)
	}
}

func TestConnectionsToSentinelsAreNoConnectionsToData(t *testing.T) {
	letDialsEnd(t)
	watched := redistest.StartSentinel(t, nil)
	var connected atomic.Int64
	rdb := connectTo(t, Options{URL: watched.URL(), PoolSize: 1, OnConnect: func() { connected.Add(1) }})
	logtest.MustRun(t, rdb.Set(t.Context(), "cs1:x", "x", 0).Err())
	if n := connected.Load(); n != 1 {
		t.Fatalf("one connection, reported %d", n)
	}
	watched.MasterOf("cs1:x").Kill()
	watched.AwaitServed()
	logtest.Eventually(t, "the new master answers", func() bool { return rdb.Get(t.Context(), "cs1:x").Err() == nil })
	if n := connected.Load(); n < 2 {
		t.Fatalf("another master, reported %d connections", n)
	}
}

// In a cluster a node may get commands for a slot on connections that it had before the
// slot was its own.
func TestASlotsNextMasterIsReportedBeforeItIsAsked(t *testing.T) {
	nodes := redistest.StartCluster(t, redistest.Config{ACL: true})
	of, err := parseTarget(nodes.URL())
	logtest.MustRun(t, err)
	rdb := of.client(nil, "").(*redis.ClusterClient)
	t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	var connected atomic.Int64 // of moves alone, not of connections
	onSlotMove(rdb, layout.Version(), func() { connected.Add(1) })
	ap, err := rdb.AutoPipeline()
	logtest.MustRun(t, err)
	key := layout.Partitions(1)[0].Keys("g").Partition.Checkpoint()
	for what, command := range map[string]func(context.Context) error{
		"a command":      func(ctx context.Context) error { return rdb.Get(ctx, key).Err() },
		"autopipelining": func(ctx context.Context) error { return ap.Get(ctx, key).Err() },
		"a transaction": func(ctx context.Context) error {
			return rdb.Watch(ctx, func(tx *redis.Tx) error { return tx.Get(ctx, key).Err() }, key)
		},
		"a script": func(ctx context.Context) error {
			return redis.NewScript(`return redis.call('GET', KEYS[1])`).Run(ctx, rdb, []string{key}).Err()
		},
	} {
		reports := func() bool {
			t.Helper()
			before := connected.Load()
			if err := command(t.Context()); !errors.Is(err, redis.Nil) {
				t.Fatalf("%s: %v", what, err)
			}
			return connected.Load() > before
		}
		connectToAll(t, rdb)
		logtest.Eventually(t, "a known master is not reported", func() bool { return !reports() })
		nodes.FailOver(key)
		if !reports() {
			t.Fatalf("%s went to another node, and nothing was reported", what)
		}
	}
}

// connectToAll makes the client of a cluster have connections to all nodes, as asking
// now this and now that one for the slots does in time.
func connectToAll(t *testing.T, rdb *redis.ClusterClient) {
	t.Helper()
	logtest.MustRun(t, rdb.ForEachShard(t.Context(), func(ctx context.Context, node *redis.Client) error {
		_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error { return p.Ping(ctx).Err() })
		return errors.Join(err, node.Ping(ctx).Err())
	}))
}

func TestNothingIsReadFromReplicas(t *testing.T) {
	nodes := redistest.StartCluster(t, redistest.Config{})
	rdb := connectTo(t, Options{URL: nodes.URL()})
	for n := range 100 {
		if err := rdb.Get(t.Context(), layout.Partitions(100)[n].Checkpoint()).Err(); !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
	}
	var asked atomic.Int64
	logtest.MustRun(t, rdb.(*redis.ClusterClient).ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
		stats, err := node.Info(ctx, "commandstats").Result()
		if strings.Contains(stats, "cmdstat_get:") {
			asked.Add(1)
		}
		return err
	}))
	logtest.MustRun(t, rdb.(*redis.ClusterClient).ForEachSlave(t.Context(), func(ctx context.Context, node *redis.Client) error {
		stats, err := node.Info(ctx, "commandstats").Result()
		if strings.Contains(stats, "cmdstat_get:") {
			t.Errorf("a replica was asked: %s", stats)
		}
		return err
	}))
	if asked.Load() == 0 {
		t.Error("nobody was asked")
	}
}

// letDialsEnd waits at the end of the test: go-redis looks for a server that is gone
// every second, and only then sees that its client has been closed.
func letDialsEnd(t *testing.T) {
	t.Cleanup(func() { <-time.After(time.Second) })
}

func TestADeadMastersSuccessorIsFound(t *testing.T) {
	letDialsEnd(t)
	nodes := redistest.StartCluster(t, redistest.Config{ACL: true})
	rdb := connectTo(t, Options{URL: nodes.URL()})
	keys := layout.Partitions(1)[0].Keys("g")
	write := func() error {
		return rdb.Watch(t.Context(), func(tx *redis.Tx) error {
			_, err := tx.TxPipelined(t.Context(), func(p redis.Pipeliner) error { return p.Set(t.Context(), keys.Document("x"), "x", 0).Err() })
			return err
		}, keys.Partition.Checkpoint())
	}
	logtest.MustRun(t, write())
	nodes.MasterOf(keys.Partition.Checkpoint()).Kill()
	nodes.AwaitServed()
	from := time.Now()
	logtest.Eventually(t, "the new master takes writes", func() bool { return write() == nil })
	if took := time.Since(from); took > 3*slotsEvery {
		t.Errorf("found %s after it had taken over", took)
	}
	logtest.MustRun(t, rdb.Get(t.Context(), keys.Document("x")).Err())
	nodes.CheckRights()
}

// While a slot moves, what is not there any more is asked for at the other node.
func TestASlotOnTheMoveIsFollowed(t *testing.T) {
	nodes := redistest.StartCluster(t, redistest.Config{ACL: true})
	rdb := connectTo(t, Options{URL: nodes.URL()})
	key := layout.Partitions(1)[0].Keys("g").Partition.Checkpoint()
	end := nodes.BeginMove(key)
	logtest.MustRun(t, rdb.Set(t.Context(), key, "x", 0).Err())
	if got, err := rdb.Get(t.Context(), key).Result(); err != nil || got != "x" {
		t.Fatal(got, err)
	}
	end()
	if got, err := rdb.Get(t.Context(), key).Result(); err != nil || got != "x" {
		t.Fatal(got, err)
	}
	nodes.CheckRights()
}
