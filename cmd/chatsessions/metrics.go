package main

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"chatsessions/domain"
	"chatsessions/eventstore"
	chathttp "chatsessions/http"
	"chatsessions/http/feed"
	"chatsessions/projections/readmodel"
)

// metrics count and measure the service (docs/metrics.md); a nil *metrics measures nothing.
// Other packages know nothing of Prometheus: they call a function or return counts on request.
type metrics struct {
	registry *prometheus.Registry
	factory  promauto.Factory // registers what it makes
}

// Upper bounds of the buckets: times in seconds, and numbers.
var (
	requestBuckets = []float64{.0005, .001, .0025, .005, .01, .015, .02, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	syncBuckets    = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	groupBuckets   = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}
)

func newMetrics() *metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &metrics{registry, promauto.With(registry)}
	version, commit := buildVersion()
	m.factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "chatsessions_build_info", Help: "Always 1; the labels describe the build.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	return m
}

func (m *metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return m.factory.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// counter registers a count that is kept elsewhere.
func (m *metrics) counter(name, help string, count func() uint64) {
	m.factory.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(count()) })
}

// gauge registers a value that is kept elsewhere.
func (m *metrics) gauge(name, help string, value func() float64) {
	m.factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// synced measures the syncs of the embedded log.
func (m *metrics) synced() func(group int, took time.Duration) {
	return m.sizeAndDuration(
		"chatsessions_barrier_group_size", "How many writes and batches of the projector waited for one sync of the embedded log.",
		"chatsessions_barrier_sync_duration_seconds", "How long one sync of the embedded log to disk took.", syncBuckets)
}

// applied measures the batches of the projector.
func (m *metrics) applied() func(events int, took time.Duration) {
	return m.sizeAndDuration(
		"chatsessions_projector_batch_size", "How many events one batch of the projector held.",
		"chatsessions_projector_batch_duration_seconds", "How long it took to write one batch of events into the read model.", requestBuckets)
}

func (m *metrics) sizeAndDuration(size, sizeHelp, duration, durationHelp string, buckets []float64) func(int, time.Duration) {
	if m == nil {
		return nil
	}
	sizes, durations := m.histogram(size, sizeHelp, groupBuckets), m.histogram(duration, durationHelp, buckets)
	return func(size int, took time.Duration) {
		sizes.Observe(float64(size))
		durations.Observe(took.Seconds())
	}
}

// A measuredLog counts commands by their outcome.
type measuredLog struct {
	*eventstore.Log
	outcomes *prometheus.CounterVec
	duration prometheus.Histogram
}

// log returns the log as the API uses it, measured.
func (m *metrics) log(l *eventstore.Log) chathttp.Log {
	if m == nil {
		return l
	}
	m.counter("chatsessions_log_writes_total", "Writes that this node has appended to the log, each with one event or several.",
		func() uint64 { return l.Stats().Writes })
	m.counter("chatsessions_log_events_total", "Events that this node has appended to the log.",
		func() uint64 { return l.Stats().Events })
	m.counter("chatsessions_log_conflicts_total", "Conflicts: another writer of the session was first, and the command was decided again.",
		func() uint64 { return l.Stats().Conflicts })
	m.counter("chatsessions_log_replays_total", "Repeated requests (Idempotency-Key) that got the recorded response.",
		func() uint64 { return l.Stats().Replays })
	m.counter("chatsessions_cache_hits_total", "Commands that found their session's newest event in memory.",
		func() uint64 { return l.Stats().CacheHits })
	m.counter("chatsessions_cache_misses_total", "Commands that had to read their session's newest event from the log.",
		func() uint64 { return l.Stats().CacheMisses })
	outcomes := m.factory.NewCounterVec(prometheus.CounterOpts{
		Name: "chatsessions_commands_total",
		Help: "Commands by outcome: done (written, repeated, or nothing to change), refused (by a rule), unavailable (not written, the log could not be reached), unknown (may have been written), client_gone (given up with its client, may have been written), failed (a defect).",
	}, []string{"outcome"})
	for _, outcome := range []string{"done", "refused", "unavailable", "unknown", "client_gone", "failed"} {
		outcomes.WithLabelValues(outcome) // so that each is there from the start
	}
	return &measuredLog{Log: l, outcomes: outcomes, duration: m.histogram("chatsessions_command_duration_seconds",
		"How long a command took at the log: read, decide, append, wait until it is on disk.", requestBuckets)}
}

// Transact implements chathttp.Log.
func (l *measuredLog) Transact(ctx context.Context, r domain.Request, decide func(domain.Session) ([]domain.Event, error)) (domain.Result, error) {
	began := time.Now()
	result, err := l.Log.Transact(ctx, r, decide)
	l.duration.Observe(time.Since(began).Seconds())
	l.outcomes.WithLabelValues(outcome(ctx, err)).Inc()
	return result, err
}

func outcome(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(ctx.Err(), context.Canceled) && (errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown)):
		return "client_gone"
	case errors.Is(err, domain.ErrOutcomeUnknown), errors.Is(err, domain.ErrHistoryTooLong):
		return "unknown"
	case errors.Is(err, domain.ErrUnavailable):
		return "unavailable"
	case domain.IsRefusal(err):
		return "refused"
	}
	return "failed"
}

// A measuredModel measures how long responses wait for the read model.
type measuredModel struct {
	*readmodel.ReadModel
	reached, gaveUp prometheus.Observer
}

// progress measures how far the log and the read model are.
func (m *metrics) progress(r *readmodel.ReadModel) {
	if m == nil {
		return
	}
	m.gauge("chatsessions_log_position", "Position of the log's newest event, as this node last saw it.",
		func() float64 { return float64(r.Status().End) })
	m.gauge("chatsessions_projected_position", "Position up to which the read model had the log, as this node last saw it; 0 without a usable read model.",
		func() float64 { return float64(r.Status().Projected) })
	m.gauge("chatsessions_parked_sessions", "Sessions that are not shown because an event of them cannot be projected; chatsessions parked lists them.",
		func() float64 { return float64(r.Status().Parked) })
	m.gauge("chatsessions_read_model_trusted", "1 while this node answers from the read model, 0 while it does not, because the read model may be older than an answered write.",
		func() float64 {
			if r.Status().Trusted {
				return 1
			}
			return 0
		})
}

// readModel returns the read model as the API uses it, measured.
func (m *metrics) readModel(r *readmodel.ReadModel) chathttp.ReadModel {
	if m == nil {
		return r
	}
	waits := m.factory.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "chatsessions_read_model_wait_duration_seconds",
		Help:    "How long responses waited until the read model showed their state, by whether it did.",
		Buckets: requestBuckets,
	}, []string{"outcome"})
	return &measuredModel{ReadModel: r, reached: waits.WithLabelValues("reached"), gaveUp: waits.WithLabelValues("gave_up")}
}

// WaitFor implements chathttp.ReadModel.
func (r *measuredModel) WaitFor(ctx context.Context, position uint64, atMost time.Duration) error {
	began := time.Now()
	err := r.ReadModel.WaitFor(ctx, position, atMost)
	took := time.Since(began).Seconds()
	switch {
	case err == nil:
		r.reached.Observe(took)
	case ctx.Err() == nil: // otherwise the client has disconnected
		r.gaveUp.Observe(took)
	}
	return err
}

// requestMetrics count requests by endpoint and status, and measure their duration. Each
// series is looked up once: WithLabelValues would add 300 ns and an allocation to each request.
type requestMetrics struct {
	total     *prometheus.CounterVec
	counters  [][500]atomic.Pointer[prometheus.Counter] // by endpoint, and status - 100
	durations []prometheus.Observer                     // by endpoint
}

// requests measures the requests of the API.
func (m *metrics) requests() chathttp.Observer {
	if m == nil {
		return nil
	}
	labels := []string{"method", "route"}
	durations := m.factory.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "chatsessions_http_request_duration_seconds",
		Help:    "How long requests took from their head to their response, including the transfer of the body.",
		Buckets: requestBuckets,
	}, labels)
	r := &requestMetrics{
		total: m.factory.NewCounterVec(prometheus.CounterOpts{
			Name: "chatsessions_http_requests_total", Help: "Requests by method, route and the status they were answered with.",
		}, append(labels, "status")),
		counters: make([][500]atomic.Pointer[prometheus.Counter], len(chathttp.Endpoints())),
	}
	for _, e := range chathttp.Endpoints() {
		method, route := e.Route()
		r.durations = append(r.durations, durations.WithLabelValues(method, route))
	}
	return r.observe
}

func (r *requestMetrics) observe(e chathttp.Endpoint, status int, took time.Duration) {
	r.durations[e].Observe(took.Seconds())
	known := &r.counters[e][status-100]
	counter := known.Load()
	if counter == nil {
		method, route := e.Route()
		resolved := r.total.WithLabelValues(method, route, strconv.Itoa(status))
		counter = &resolved
		known.Store(counter)
	}
	(*counter).Inc()
}

// server measures the back-pressure of the API, and the readers of its feed.
func (m *metrics) server(s *chathttp.Server) {
	if m == nil {
		return
	}
	m.gauge("chatsessions_commands_in_flight", "Commands (POST and PATCH) that are being carried out now.",
		func() float64 { return float64(s.Stats().Commands) })
	m.gauge("chatsessions_commands_limit", "How many commands may be in flight (--max-commands); 0 is no limit.",
		func() float64 { return float64(s.MaxCommands) })
	m.counter("chatsessions_commands_rejected_total", "Commands that were refused because the limit of commands in flight was reached.",
		func() uint64 { return s.Stats().Refused })
	m.counter("chatsessions_http_clients_gone_total", "Clients that disconnected while their request waited, which freed its place.",
		func() uint64 { return s.Stats().Gone })
	stats := func() feed.Stats { return s.Stats().Feed }
	m.gauge("chatsessions_feed_readers", "Streams of the feed that are open now.",
		func() float64 { return float64(stats().Readers) })
	m.gauge("chatsessions_feed_readers_catching_up", "Streams of the feed that are behind the log and catch up.",
		func() float64 { return float64(stats().CatchingUp) })
	m.counter("chatsessions_feed_events_sent_total", "Events that were sent to readers of the feed, once for each reader.",
		func() uint64 { return stats().Sent })
	for reason, count := range map[string]func(feed.Stats) uint64{
		"too_slow":    func(s feed.Stats) uint64 { return s.TooSlow },
		"token":       func(s feed.Stats) uint64 { return s.Revoked },
		"ended":       func(s feed.Stats) uint64 { return s.Ended },
		"client_gone": func(s feed.Stats) uint64 { return s.Gone },
	} {
		m.factory.NewCounterFunc(prometheus.CounterOpts{
			Name:        "chatsessions_feed_streams_ended_total",
			Help:        "Streams of the feed that have ended, by reason: too_slow, token (not valid any more), ended (with the node or the log), client_gone.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(count(stats())) })
	}
}
