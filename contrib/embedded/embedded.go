package embedded

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/madcrow-go/madcrow"
)

// ErrProduction is why [Start] refuses when DEPLOY_ENV is PRODUCTION. The
// error is also madcrow.ErrConfig.
var ErrProduction = errors.New("the embedded Redis keeps nothing and serves one process only, so it is not for production" +
	" (DEPLOY_ENV=PRODUCTION): set REDIS_HOST or REDIS_URL to a real Redis")

// Options of [Start] and [ConfigFromEnv]. The zero value works.
type Options struct {
	// Logger receives one warning at the start: that this Redis is for
	// development, and what to set instead. ConfigFromEnv also makes it the
	// Config's. Defaults to no log.
	Logger *slog.Logger
	// Env is what ConfigFromEnv reads. Defaults to the environment of this process.
	Env madcrow.Env
}

// Server is a Redis in this process. Its methods are safe for concurrent use.
type Server struct {
	redis *miniredis.Miniredis
	aging *aging

	mu     sync.Mutex
	closed bool
	conns  map[*end]struct{} // the server's ends
	done   chan struct{}     // closed when Close has finished
}

// Start starts an empty Redis. It opens no port. It fails only in production,
// with [ErrProduction].
func Start(opts Options) (*Server, error) {
	if strings.EqualFold(strings.TrimSpace(os.Getenv("DEPLOY_ENV")), "PRODUCTION") {
		return nil, failure(madcrow.KindConfig, ErrProduction)
	}
	m := miniredis.NewMiniRedis()
	// The first connection starts the server without a listener; those that
	// serve have our own pipe below them, see pipe.go.
	first, err := m.Dial()
	if err != nil {
		return nil, failure(madcrow.KindUnavailable, err)
	}
	_ = first.Close()
	s := &Server{redis: m, aging: startAging(m), conns: map[*end]struct{}{}, done: make(chan struct{})}
	if opts.Logger != nil {
		opts.Logger.Warn("embedded Redis: for development only, nothing is kept when the process ends",
			"instead", "set REDIS_HOST or REDIS_URL")
	}
	return s, nil
}

// Config returns what madcrow.Open needs to connect to the server: Embedded is
// true, and Dialer makes connections in memory. Host and Port are for display
// and lead nowhere. All else has its default.
func (s *Server) Config() madcrow.Config {
	return madcrow.Config{
		Host:     "embedded",
		Port:     madcrow.DefaultPort,
		Embedded: true,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.Dial(ctx)
		},
	}
}

// Dial returns a new connection to the server, in memory; deadlines work as on
// a socket. It never blocks. After Close it fails with madcrow.ErrClosed.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, failure(madcrow.KindUnavailable, madcrow.ErrClosed)
	}
	client, server := newPipe()
	server.arrived = s.aging.advance
	server.closed = func() { s.forget(server) }
	s.conns[server] = struct{}{}
	s.redis.Server().ServeConn(server)
	return client, nil
}

// Close ends all connections and drops the data. It returns when nothing of
// the server is left; calling it again does no harm.
func (s *Server) Close() {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		<-s.done
		return
	}
	defer close(s.done)
	s.aging.stop()
	s.drain()
	s.redis.Close()
}

// drain ends all connections and waits until no command runs any more.
// miniredis' own Close would pull the server from under a running script,
// which panics, and may miss to wake a blocking command.
func (s *Server) drain() {
	s.redis.CtxCancel() // ends blocking commands, when they wake up
	for s.redis.CurrentConnectionCount() > 0 {
		for _, c := range s.open() {
			_ = c.Close()
		}
		s.redis.FlushAll() // wakes them
		time.Sleep(time.Millisecond)
	}
}

func (s *Server) open() []*end {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

func (s *Server) forget(c *end) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func failure(kind madcrow.Kind, err error) error {
	return &madcrow.Error{Op: "embedded", Kind: kind, Outcome: madcrow.OutcomeNotApplied, Err: err}
}
