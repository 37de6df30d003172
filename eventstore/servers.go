package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// monitorPatience bounds one request to the monitoring endpoint of a server.
const monitorPatience = 5 * time.Second

// maxVarz bounds the description of a server, in bytes. It usually has ten thousand.
const maxVarz = 4 << 20

// Servers names the servers with a copy of the log, leader first; or domain.ErrUnavailable.
func (l *Log) Servers(ctx context.Context) ([]string, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	stream, err := l.js.Stream(ctx, StreamName)
	if err != nil {
		return nil, unavailable("servers of the log", err)
	}
	cluster := stream.CachedInfo().Cluster
	if cluster == nil {
		return []string{l.nc.ConnectedServerName()}, nil
	}
	names := []string{cluster.Leader}
	for _, peer := range cluster.Replicas {
		names = append(names, peer.Name)
	}
	return names, nil
}

// CheckSync asks a server's monitoring endpoint whether the server acknowledges only what is
// on disk (sync_interval: always), and returns the server's name. The error says which
// setting the server has instead, or why that is unknown.
func CheckSync(ctx context.Context, client *http.Client, monitor *url.URL) (server string, err error) {
	at := monitor.JoinPath("varz")
	ctx, cancel := context.WithTimeout(ctx, monitorPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return "", fmt.Errorf("asking %s: %w", at.Redacted(), err)
	}
	response, err := client.Do(request)
	if err != nil {
		var failed *url.Error // its text repeats the URL
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return "", fmt.Errorf("asking %s: %w", at.Redacted(), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking %s: %s", at.Redacted(), response.Status)
	}
	// The part of server.Varz that is needed here.
	var varz struct {
		Name      string `json:"server_name"`
		JetStream struct {
			Config *struct {
				SyncAlways   bool          `json:"sync_always"`
				SyncInterval time.Duration `json:"sync_interval"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, response.Body, maxVarz)).Decode(&varz); err != nil {
		return "", fmt.Errorf("asking %s: this is not the monitoring endpoint of a nats-server: %w", at.Redacted(), err)
	}
	config := varz.JetStream.Config
	switch {
	case varz.Name == "":
		return "", fmt.Errorf("asking %s: this is not the monitoring endpoint of a nats-server", at.Redacted())
	case config == nil:
		return varz.Name, fmt.Errorf("nats-server %s (%s) does not run JetStream, so it does not keep the log", varz.Name, monitor.Redacted())
	case !config.SyncAlways:
		return varz.Name, fmt.Errorf("nats-server %s (%s) acknowledges what is not on disk: sync_interval is %s, needed is always (jetstream { sync_interval: always }, as in deploy/nats/nats-server.conf)",
			varz.Name, monitor.Redacted(), config.SyncInterval)
	}
	return varz.Name, nil
}

// ParseMonitor parses the address of a monitoring endpoint: a URL, or HOST:PORT.
func ParseMonitor(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("want http://HOST:PORT, the monitoring endpoint of a NATS server") // the text may contain a password
	}
	return u, nil
}
