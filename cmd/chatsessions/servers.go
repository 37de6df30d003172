package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"chatsessions/eventstore"
)

// checkServers checks, as far as possible, whether the servers of an external log
// acknowledge only what is on disk, and how many copies there are. Without
// --nats-monitor-urls, it only warns.
func (f *natsFlags) checkServers(ctx context.Context, log *eventstore.Log, logger *slog.Logger) error {
	keepers, err := log.Servers(ctx)
	if err != nil {
		return err
	}
	if len(keepers) == 1 {
		logger.Warn("there is one copy of the log: if that server loses its disk, every session is lost; a cluster of three keeps three (--nats-replicas)", "server", keepers[0])
	}
	if len(f.MonitorURLs) == 0 {
		logger.Warn("nothing checked whether the NATS servers acknowledge only what is on disk (sync_interval: always); set --nats-monitor-urls to check it")
		return nil
	}
	monitors, err := f.monitors()
	if err != nil {
		return err
	}
	client, err := f.monitorClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	asked := make([]string, len(monitors))
	refusals := make([]error, len(monitors))
	var asking sync.WaitGroup
	for i, monitor := range monitors {
		asking.Go(func() { asked[i], refusals[i] = eventstore.CheckSync(ctx, client, monitor) })
	}
	asking.Wait()
	if err := errors.Join(refusals...); err != nil {
		return fmt.Errorf("durability of the log: %w", err)
	}
	if missed := slices.DeleteFunc(keepers, func(name string) bool { return slices.Contains(asked, name) }); len(missed) > 0 {
		logger.Warn("--nats-monitor-urls leaves servers of the log out; nothing checked whether these acknowledge only what is on disk", "servers", strings.Join(missed, ", "))
	}
	return nil
}

// monitors returns the endpoints in --nats-monitor-urls.
func (f *natsFlags) monitors() ([]*url.URL, error) {
	if len(f.MonitorURLs) > 0 && f.URL == "" {
		return nil, errors.New("--nats-monitor-urls is about the servers of --nats-url, which is not given")
	}
	var monitors []*url.URL
	for i, address := range f.MonitorURLs {
		monitor, err := eventstore.ParseMonitor(address)
		if err != nil {
			return nil, fmt.Errorf("--nats-monitor-urls, number %d: %w", i+1, err)
		}
		monitors = append(monitors, monitor)
	}
	return monitors, nil
}

// monitorClient trusts the authorities that the connection to NATS trusts.
func (f *natsFlags) monitorClient() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // they are neighbors
	if f.CA != "" {
		authorities, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("--nats-ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("--nats-ca: %s holds no certificate", f.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport}, nil
}
