package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// connectionFile, in the data directory, says how other processes of this machine reach
// what runs inside the service. Only its owner can read it.
const connectionFile = "connection.json"

// A connection is the content of connectionFile, without the URLs of parts not embedded.
type connection struct {
	NATSURL  string `json:"natsUrl,omitempty"`
	RedisURL string `json:"redisUrl,omitempty"`
}

// publish writes the connection file. Closing the stores removes it.
func (s *stores) publish(dataDir string) error {
	if s.inside == (connection{}) {
		return nil
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	content, err := json.MarshalIndent(s.inside, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dataDir, connectionFile)
	// The rename keeps it from being half written or having an older file's permissions.
	if err := renameio.WriteFile(path, append(content, '\n'), 0o600, renameio.WithTempDir(dataDir)); err != nil {
		return fmt.Errorf("connection file: %w", err)
	}
	s.onClose(func() { _ = os.Remove(path) })
	return nil
}

// connection reads the connection file of a running service; empty without one.
func (f logFlags) connection() (connection, error) {
	var c connection
	path := filepath.Join(f.DataDir, connectionFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &c)
	}
	if err != nil {
		return c, fmt.Errorf("connection file: %w", err)
	}
	for _, at := range []string{c.NATSURL, c.RedisURL} {
		if at == "" {
			continue
		}
		server, err := url.Parse(at)
		if err != nil { // not wrapped: it holds a password
			return c, fmt.Errorf("connection file: %s does not hold a URL", path)
		}
		conn, err := net.DialTimeout("tcp", server.Host, time.Second)
		if err != nil { // the file of a service that was killed
			return connection{}, nil
		}
		_ = conn.Close()
	}
	return c, nil
}
