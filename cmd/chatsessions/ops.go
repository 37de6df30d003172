package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	readyPatience        = 2 * time.Second // for one check of the service's readiness
	mutexProfileFraction = 100             // one of so many lock contentions is sampled
)

// An opsServer serves metrics, health, and profiles on its own listener, without a token.
type opsServer struct {
	server http.Server
	url    string
	served chan struct{} // closed when it has stopped listening
	ready  atomic.Pointer[readiness]
}

// A readiness returns nil if the service is ready, or the reason why it is not.
type readiness func(ctx context.Context) error

// startOps serves on the address until Close. Without an address, it returns nil.
func startOps(address string, m *metrics, logger *slog.Logger) (*opsServer, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s for operators: %w", address, err)
	}
	o := &opsServer{url: "http://" + l.Addr().String(), served: make(chan struct{})}
	o.setReadiness(func(context.Context) error { return errors.New("the service is starting") })
	runtime.SetMutexProfileFraction(mutexProfileFraction)

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerPlain(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", o.answerReady)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.Handle("/debug/pprof/cmdline", http.NotFoundHandler()) // URLs on it may hold passwords
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	o.server = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute, // no WriteTimeout: a profile takes as long as it was asked to
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(o.served)
		if err := o.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics, health and profiles are not served any more", "error", err)
		}
	}()
	logger.Info("metrics, health and profiles", "url", o.url)
	return o, nil
}

// setReadiness sets how /readyz finds out from now on whether the service is ready.
func (o *opsServer) setReadiness(ready readiness) {
	if o != nil {
		o.ready.Store(&ready)
	}
}

// answerReady is GET /readyz.
func (o *opsServer) answerReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyPatience)
	defer cancel()
	if err := (*o.ready.Load())(ctx); err != nil {
		answerPlain(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	answerPlain(w, http.StatusOK, "ready")
}

func answerPlain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

// Close stops answering, even in the middle of a profile.
func (o *opsServer) Close() {
	if o != nil {
		_ = o.server.Close()
		<-o.served
	}
}
