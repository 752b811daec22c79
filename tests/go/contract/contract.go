// Package main is a small Go service that follows the contract of docs/go.md. This file is the helper; main.go uses it.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// policy is the part of policy.json that the contract needs.
type policy struct {
	Metadata struct{ Service, Environment, Digest string }
	Inbound  []struct {
		Operation    string
		ServiceLevel struct{ Latency string } `json:"service_level"`
	}
	Outbound []struct{ Name, Fallback string }
	Health   struct {
		DrainDuration string `json:"drain_duration"`
	}
}

func readPolicy(directory string) (policy, error) {
	var found policy
	text, err := os.ReadFile(filepath.Join(directory, "policy.json"))
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(text, &found)
}

// Contract serves the probes and the metrics of one service, and measures its operations.
type Contract struct {
	directory     string
	policy        policy
	objectives    map[string]time.Duration
	health        *health.Server
	draining      atomic.Bool
	registry      *prometheus.Registry
	mounted       *prometheus.GaugeVec
	requests      *prometheus.CounterVec
	slow, seconds *prometheus.CounterVec
	inFlight      *prometheus.GaugeVec
	fallbacks     *prometheus.CounterVec
}

// NewContract reads the bundle in a mounted directory. The series of every operation and soft call exist from the start.
func NewContract(directory string) (*Contract, error) {
	found, err := readPolicy(directory)
	if err != nil {
		return nil, err
	}
	c := &Contract{
		directory: directory, policy: found, objectives: map[string]time.Duration{},
		health: health.NewServer(), registry: prometheus.NewRegistry(),
		mounted:   gauge("voice_policy_mounted_info", "The bundle in the mounted file.", "digest"),
		requests:  counter("voice_operation_requests_total", "Ended requests.", "operation", "kind"),
		slow:      counter("voice_operation_slow_requests_total", "Requests that took longer than the operation's objective for its P95.", "operation"),
		seconds:   counter("voice_operation_seconds_total", "Duration of requests, summed.", "operation"),
		inFlight:  gauge("voice_operation_in_flight_requests", "Requests in flight.", "operation"),
		fallbacks: counter("voice_call_fallbacks_total", "Failed soft calls that the fallback answered.", "name"),
	}
	info := gauge("voice_policy_info", "The bundle in force.", "service", "environment", "digest")
	info.WithLabelValues(found.Metadata.Service, found.Metadata.Environment, found.Metadata.Digest).Set(1)
	c.registry.MustRegister(info, c.mounted, c.requests, c.slow, c.seconds, c.inFlight, c.fallbacks)
	for _, each := range found.Inbound {
		if c.objectives[each.Operation], err = time.ParseDuration(each.ServiceLevel.Latency); err != nil {
			return nil, err
		}
		for _, kind := range []string{"successful", "failed", "cancelled"} {
			c.requests.WithLabelValues(each.Operation, kind)
		}
		c.slow.WithLabelValues(each.Operation)
		c.seconds.WithLabelValues(each.Operation)
		c.inFlight.WithLabelValues(each.Operation)
	}
	for _, call := range c.softCalls() {
		c.fallbacks.WithLabelValues(call)
	}
	return c, nil
}

// softCalls returns the names of the calls that have a fallback.
func (c *Contract) softCalls() (names []string) {
	for _, call := range c.policy.Outbound {
		if call.Fallback != "" {
			names = append(names, call.Name)
		}
	}
	return names
}

// FellBack counts a soft call that failed and that the service's fallback answered.
func (c *Contract) FellBack(call string) {
	c.fallbacks.WithLabelValues(call).Inc()
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

// Probes serves /health, /ready and /metrics.
func (c *Contract) Probes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if c.draining.Load() {
			answer(w, http.StatusServiceUnavailable, "draining")
		} else {
			answer(w, http.StatusOK, "healthy")
		}
	})
	metrics := promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if now, err := readPolicy(c.directory); err == nil {
			c.mounted.Reset()
			c.mounted.WithLabelValues(now.Metadata.Digest).Set(1)
		}
		metrics.ServeHTTP(w, r)
	})
	return mux
}

func answer(w http.ResponseWriter, code int, status string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "checks": map[string]any{}})
}

// Server is a gRPC server with the health service. It measures each operation and passes trace headers on.
func (c *Contract) Server(options ...grpc.ServerOption) *grpc.Server {
	own := []grpc.ServerOption{grpc.UnaryInterceptor(c.unary), grpc.StreamInterceptor(c.stream)}
	server := grpc.NewServer(append(own, options...)...)
	grpc_health_v1.RegisterHealthServer(server, c.health)
	return server
}

func (c *Contract) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (found any, err error) {
	err = c.measure(info.FullMethod, func() error {
		found, err = handle(withTrace(ctx), request)
		return err
	})
	return found, err
}

func (c *Contract) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return c.measure(info.FullMethod, func() error { return handle(server, tracedStream{stream}) })
}

type tracedStream struct{ grpc.ServerStream }

func (s tracedStream) Context() context.Context { return withTrace(s.ServerStream.Context()) }

// measure counts one request of an operation that the bundle declares.
func (c *Contract) measure(method string, handle func() error) error {
	operation := kebab(method[strings.LastIndex(method, "/")+1:])
	objective, declared := c.objectives[operation]
	if !declared {
		return handle()
	}
	c.inFlight.WithLabelValues(operation).Inc()
	defer c.inFlight.WithLabelValues(operation).Dec()
	begun := time.Now()
	err := handle()
	taken := time.Since(begun)
	c.requests.WithLabelValues(operation, kind(err)).Inc()
	c.seconds.WithLabelValues(operation).Add(taken.Seconds())
	if taken > objective {
		c.slow.WithLabelValues(operation).Inc()
	}
	return err
}

// kind tells how a request ended. Every status that is neither a failure of the service nor Canceled counts as successful.
func kind(err error) string {
	switch status.Code(err) {
	case codes.Canceled:
		return "cancelled"
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted,
		codes.Internal, codes.Unknown, codes.DataLoss:
		return "failed"
	}
	return "successful"
}

// kebab turns ListSources into list-sources.
func kebab(method string) string {
	var name strings.Builder
	for position, letter := range method {
		if position > 0 && letter >= 'A' && letter <= 'Z' {
			name.WriteByte('-')
		}
		name.WriteRune(letter)
	}
	return strings.ToLower(name.String())
}

// withTrace lets every call inside a request carry the request's trace headers. gRPC passes the deadline on by itself.
func withTrace(ctx context.Context) context.Context {
	for _, header := range []string{"traceparent", "tracestate", "baggage"} {
		for _, value := range metadata.ValueFromIncomingContext(ctx, header) {
			ctx = metadata.AppendToOutgoingContext(ctx, header, value)
		}
	}
	return ctx
}

// Logger writes JSON lines. Log with a request's context, so that the line has the request's trace.
func (c *Contract) Logger() *slog.Logger {
	rename := func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.MessageKey:
			a.Key = "message"
		case slog.LevelKey:
			a = slog.String("level", strings.ToLower(a.Value.String()))
		}
		return a
	}
	lines := slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: rename})
	about := c.policy.Metadata
	return slog.New(traced{lines}).With("service", about.Service, "environment", about.Environment, "policy_digest", about.Digest)
}

type traced struct{ slog.Handler }

func (t traced) Handle(ctx context.Context, record slog.Record) error {
	// traceparent is version-trace_id-span_id-flags.
	for _, value := range metadata.ValueFromIncomingContext(ctx, "traceparent") {
		if parts := strings.Split(value, "-"); len(parts) == 4 {
			record.AddAttrs(slog.String("trace_id", parts[1]), slog.String("span_id", parts[2]))
		}
	}
	return t.Handler.Handle(ctx, record)
}

func (t traced) WithAttrs(attributes []slog.Attr) slog.Handler {
	return traced{t.Handler.WithAttrs(attributes)}
}

// Drain fails /ready and gRPC health, and accepts work for another drain_duration. Stop the servers afterwards.
func (c *Contract) Drain() {
	c.draining.Store(true)
	c.health.Shutdown()
	if wait, err := time.ParseDuration(c.policy.Health.DrainDuration); err == nil {
		time.Sleep(wait)
	}
}
