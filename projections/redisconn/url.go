package redisconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// parseTarget parses a URL as Options describes it. It leaves out the standard library's
// errors: they quote their input, which may be a password.
func parseTarget(text string) (*target, error) {
	scheme, rest, _ := strings.Cut(text, "://")
	secure := strings.HasPrefix(scheme, "rediss")
	run, ok := modes[strings.Replace(scheme, "rediss", "redis", 1)]
	if !ok {
		return nil, errors.New("it begins with redis://, redis+cluster:// or redis+sentinel://, or for TLS with rediss in place of redis")
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	hosts, tail := rest[:end], rest[end:]
	if strings.ContainsAny(tail, "@#") {
		return nil, errors.New("within user, password and parameters, / is written %2F, ? is %3F, # is %23 and @ is %40")
	}
	credentials := ""
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		credentials, hosts = hosts[:i+1], hosts[i+1:]
	}
	u, err := url.Parse("redis://" + credentials + "host" + tail)
	if err != nil {
		return nil, errors.New("user, password or path are not written as in a URL; what is special there is written %XX")
	}
	parameters, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("what follows the ? is not written as in a URL: name=value&name=value, and what is special %XX")
	}
	if err := checkParameters(parameters, secure, run); err != nil {
		return nil, err
	}

	t := &target{mode: run}
	t.options.Username = u.User.Username()
	t.options.Password, _ = u.User.Password()
	t.options.IsClusterMode = run == cluster
	t.options.MasterName = parameters.Get("master")
	t.options.SentinelUsername, t.options.SentinelPassword = parameters.Get("sentinel_user"), parameters.Get("sentinel_password")
	for i, host := range strings.Split(hosts, ",") {
		address, err := addressOf(host, run)
		if err != nil {
			return nil, fmt.Errorf("address %d: %w", i+1, err)
		}
		t.options.Addrs = append(t.options.Addrs, address)
	}
	if len(t.options.Addrs) > 1 && run == standalone {
		return nil, errors.New("several addresses belong into a redis+cluster:// or redis+sentinel:// URL")
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if t.options.DB, err = strconv.Atoi(db); err != nil || t.options.DB < 0 {
			return nil, errors.New("behind the slash comes the number of a database, as in redis://host:6379/0")
		}
		if t.options.DB > 0 && run == cluster {
			return nil, errors.New("a Redis Cluster has no databases but 0")
		}
	}
	if secure {
		t.options.TLSConfig, err = tlsConfig(parameters)
	}
	return t, err
}

// modes are the ways to run Redis, by the scheme of a URL without TLS.
var modes = map[string]mode{"redis": standalone, "redis+cluster": cluster, "redis+sentinel": sentinel}

// knownParameters are the parameters a URL may have.
var knownParameters = []string{"master", "sentinel_password", "sentinel_user", "tls_ca", "tls_cert", "tls_key", "tls_server_name"}

func checkParameters(parameters url.Values, secure bool, run mode) error {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		known := slices.Contains(knownParameters, name)
		switch {
		case !known && parameters.Has("sentinel_password"): // the name may be part of the password
			return errors.New("unknown parameter; within the sentinel_password, & is written %26")
		case !known:
			return fmt.Errorf("unknown parameter %q; the parameters are %s", name, strings.Join(knownParameters, ", "))
		case len(parameters[name]) > 1 || parameters[name][0] == "":
			return fmt.Errorf("parameter %s is given once, with a value", name)
		case strings.HasPrefix(name, "tls_") && !secure:
			return fmt.Errorf("parameter %s requires TLS: use rediss in place of redis", name)
		case !strings.HasPrefix(name, "tls_") && run != sentinel:
			return fmt.Errorf("parameter %s requires redis+sentinel://", name)
		}
	}
	if run == sentinel && !parameters.Has("master") {
		return errors.New("the name under which the sentinels watch the master is missing: ?master=NAME")
	}
	return nil
}

// addressOf adds the default port to a host without one.
func addressOf(text string, run mode) (string, error) {
	u, err := url.Parse("redis://" + text)
	if err != nil || u.Host != text || u.Hostname() == "" {
		return "", errors.New("this is neither HOST:PORT nor HOST")
	}
	port := u.Port()
	if port == "" {
		port = map[mode]string{standalone: "6379", cluster: "6379", sentinel: "26379"}[run]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("the port is not one from 1 to 65535")
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

func tlsConfig(parameters url.Values) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: parameters.Get("tls_server_name")}
	if file := parameters.Get("tls_ca"); file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("tls_ca: there is no certificate in %s", file)
		}
	}
	cert, key := parameters.Get("tls_cert"), parameters.Get("tls_key")
	if (cert == "") != (key == "") {
		return nil, errors.New("tls_cert and tls_key are given both, or neither")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
