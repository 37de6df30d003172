package embeddedredis

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	miniserver "github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/redisconn"
)

// expireEvery is how often the server looks for expired keys.
const expireEvery = 10 * time.Minute

// A Server is a Redis inside this process, for a service without an external one. A
// restart empties it; the projector rebuilds the read model from the log. A list costs
// O(n log n): a few milliseconds at 10,000 sessions, tens of milliseconds at 100,000.
type Server struct {
	server *miniredis.Miniredis
	client redis.UniversalClient
	url    string
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// Start starts a Redis with a password on a free loopback port. Close ends it.
func Start(password string) (*Server, error) {
	if password == "" {
		return nil, errors.New("embedded redis: the password is empty")
	}
	server := miniredis.NewMiniRedis()
	server.RequireAuth(password)
	if err := server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	// miniredis does not notify watchers of the checkpoint when everything is removed.
	server.Server().SetPreHook(func(client *miniserver.Peer, command string, _ ...string) bool {
		refused := command == "FLUSHALL" || command == "FLUSHDB" || command == "SWAPDB"
		if refused {
			client.WriteError("ERR the embedded Redis of chatsessions cannot be emptied; restart the service to rebuild it")
		}
		return refused
	})
	at := url.URL{Scheme: "redis", User: url.UserPassword("default", password), Host: server.Addr()}
	ctx, stop := context.WithCancel(context.Background())
	client, err := redisconn.Connect(ctx, redisconn.Options{URL: at.String()})
	if err != nil {
		stop()
		server.Close()
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	e := &Server{server: server, client: client, url: at.String(), stop: stop}
	e.ended.Go(func() {
		for projections.Pause(ctx, expireEvery) {
			server.FastForward(expireEvery) // its keys age only on request
		}
	})
	return e, nil
}

// Addr returns the server's host and port.
func (e *Server) Addr() string { return e.server.Addr() }

// URL returns the server's URL, credentials included.
func (e *Server) URL() string { return e.url }

// Client returns this process's client. Close closes it.
func (e *Server) Client() redis.UniversalClient { return e.client }

// Close ends the server and removes its data.
func (e *Server) Close() error {
	e.stop()
	e.ended.Wait()
	err := e.client.Close()
	e.server.Close()
	return err
}
