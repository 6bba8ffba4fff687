package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/madcrow-go/madcrow/cmd/madcrow/internal/server"
)

// envToken names the secret of the API. It has no flag: every user of a
// machine can read the flags of a process.
const envToken = "MADCROW_API_TOKEN"

// minToken is what can still not be guessed.
const minToken = 16

type serveOptions struct {
	addr            string
	unauthenticated bool
	envFile         string
	logFormat       string
	logLevel        string
	accessLog       bool
	maxBody         int64
	maxHeader       int
	healthDetails   bool
	readTimeout     time.Duration
	writeTimeout    time.Duration
	idleTimeout     time.Duration
	drainDelay      time.Duration
	drainTimeout    time.Duration
}

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the HTTP API",
		Long: `Serve the HTTP API. /docs shows the routes, /openapi.json describes them.

Redis comes from the environment (REDIS_HOST, REDIS_URL, REDIS_SENTINELS,
REDIS_CLUSTERS and so on; 'madcrow config' shows what is in force). When none
of these names a Redis and DEPLOY_ENV is not PRODUCTION, an embedded one is
used: in memory, in this process, gone when it ends. The server starts without
its Redis too and finds it when it appears, unless DEPLOY_ENV is PRODUCTION.

By default only this machine is served. To listen elsewhere set
` + envToken + ` or ` + envToken + `_FILE
(at least 16 characters); every request but /health, /livez
and /readyz must then carry "Authorization: Bearer <token>".

/health tells the state of Redis, how many replicas, Sentinels, cluster nodes
and slots there are, and how far the replicas are behind. It shows addresses
only with --health-details: it needs no token, so whoever reaches the server
could read them.

SIGTERM and SIGINT end it in order: /readyz fails, after --drain-delay there are
no new connections, requests in flight are finished, streams of events are
ended, then Redis is closed. A second signal ends it at once. Behind a load
balancer let --drain-delay be longer than it takes to notice that /readyz fails:
whoever connects in the very moment when the port is closed gets no answer.` + exits("0 ended in order"),
		Example: `  madcrow serve
  REDIS_HOST=localhost madcrow serve
  REDIS_URL=rediss://user:password@redis.example:6380/0 madcrow serve
  ` + envToken + `=$(cat token) madcrow serve --addr :8080 --log-format json`,
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := loadEnvFile(o.envFile, c.Flags().Changed("env-file")); err != nil {
				return err
			}
			return serve(c.Context(), c, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "listen on this `host:port`")
	f.BoolVar(&o.unauthenticated, "allow-unauthenticated", false, "let everybody in who reaches --addr, without a token")
	f.StringVar(&o.logFormat, "log-format", "text", "`text or json`, on standard error")
	f.StringVar(&o.logLevel, "log-level", "info", "`debug, info, warn or error`")
	f.BoolVar(&o.accessLog, "access-log", true, "log each request at level info; --access-log=false saves its time")
	f.Int64Var(&o.maxBody, "max-body", server.DefaultMaxBody, "largest request body, in `bytes`")
	f.IntVar(&o.maxHeader, "max-header", 64<<10, "largest request header, in `bytes`")
	f.BoolVar(&o.healthDetails, "health-details", false, "show the addresses of Redis in /health, which needs no token")
	f.DurationVar(&o.readTimeout, "read-timeout", 15*time.Second, "longest time to read a request")
	f.DurationVar(&o.writeTimeout, "write-timeout", 30*time.Second, "longest time from a request's header to the end of its answer, streams of events excepted")
	f.DurationVar(&o.idleTimeout, "idle-timeout", 2*time.Minute, "close a connection after this time without a request")
	f.DurationVar(&o.drainDelay, "drain-delay", 0, "serve on for this time at the end, while /readyz fails already")
	f.DurationVar(&o.drainTimeout, "drain-timeout", 20*time.Second, "longest time to finish requests at the end")
	addEnvFileFlag(cmd, &o.envFile)
	return cmd
}

// apiToken comes from the environment, or from the file that it names.
func apiToken() (string, error) {
	if token := strings.TrimSpace(os.Getenv(envToken)); token != "" {
		return token, nil
	}
	file := os.Getenv(envToken + "_FILE")
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // whoever sets the environment chooses the file
	if err != nil {
		return "", usageError{fmt.Errorf("%s_FILE: %w", envToken, err)}
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		// An empty secret must not open the door.
		return "", usageError{fmt.Errorf("%s_FILE: %s is empty", envToken, file)}
	}
	return token, nil
}

// check refuses what must not be served.
func (o serveOptions) check(token string) error {
	host, _, err := net.SplitHostPort(o.addr)
	if err != nil {
		return usageError{fmt.Errorf("--addr: %q is not host:port", o.addr)}
	}
	if o.maxBody < 1 || o.maxHeader < 1024 {
		return usageError{errors.New("--max-body must be at least 1, --max-header at least 1024")}
	}
	for _, d := range []time.Duration{o.readTimeout, o.writeTimeout, o.idleTimeout, o.drainTimeout} {
		if d <= 0 {
			return usageError{errors.New("time-outs must be more than 0")}
		}
	}
	if o.drainDelay < 0 {
		return usageError{errors.New("--drain-delay must not be negative")}
	}
	if token != "" && len(token) < minToken {
		return usageError{fmt.Errorf("%s must have at least %d characters", envToken, minToken)}
	}
	if token == "" && !o.unauthenticated && !isLoopback(host) {
		return usageError{fmt.Errorf("--addr %s can be reached from other machines: set %s, or --allow-unauthenticated to let everybody in", o.addr, envToken)}
	}
	return nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func serve(ctx context.Context, c *cobra.Command, o serveOptions) (err error) {
	token, err := apiToken()
	if err != nil {
		return err
	}
	if err := o.check(token); err != nil {
		return err
	}
	logs, err := newLogs(c.ErrOrStderr(), o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	defer logs.close()

	// Signals count from here on: one that comes during the start ends it.
	ctx, restore := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer restore()

	redis, err := openRedis(ctx, logs.main)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, redis.close(o.drainTimeout)) }()

	opt := server.Options{
		Redis: redis.Redis, Logger: logs.main, Token: token, Note: redis.note,
		LocalOnly: token == "" && !o.unauthenticated,
		MaxBody:   o.maxBody, ReadTimeout: o.readTimeout, Version: buildVersion(), HealthDetails: o.healthDetails,
	}
	if o.accessLog {
		opt.AccessLog = logs.access
	}
	handler, err := server.New(opt)
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	addr := ln.Addr().String()
	logs.main.Info("madcrow listens", slog.String("addr", addr), slog.String("docs", "http://"+addr+"/docs"), slog.Bool("token", token != ""))
	served, stop := context.WithCancel(ctx)
	var said sync.WaitGroup
	said.Go(func() { announce(served, logs.main, redis) })
	defer said.Wait()
	defer stop()
	return run(ctx, restore, ln, handler, logs.main, o)
}

// run serves until ctx ends, then finishes what was begun.
func run(ctx context.Context, restore func(), ln net.Listener, handler *server.Server, log *slog.Logger, o serveOptions) error {
	hs := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: min(o.readTimeout, 5*time.Second),
		ReadTimeout:       o.readTimeout,
		WriteTimeout:      o.writeTimeout,
		IdleTimeout:       o.idleTimeout,
		MaxHeaderBytes:    o.maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(&lastCall{Listener: ln}) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	restore() // from here on a signal ends the process at once
	if o.drainDelay > 0 {
		log.Info("leaving: readiness fails, all is served on", slog.Duration("drain_delay", o.drainDelay))
		handler.Leave()
		select {
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-time.After(o.drainDelay):
		}
	}
	log.Info("shutting down: requests in flight are finished", slog.Duration("drain_timeout", o.drainTimeout))
	handler.Drain()
	drain, cancel := context.WithTimeout(context.Background(), o.drainTimeout)
	defer cancel()
	if err := hs.Shutdown(drain); err != nil {
		_ = hs.Close()
		return fmt.Errorf("requests were cut off after %v: %w", o.drainTimeout, err)
	}
	log.Info("ended")
	return nil
}

// lastCall is a listener that, once closed, still hands out the connections that
// are made already and wait to be accepted: the system would cut them off.
type lastCall struct {
	net.Listener
	closing atomic.Bool
}

// acceptLast is how long they are looked for.
const acceptLast = 20 * time.Millisecond

// Close has Accept close the listener after the last of them.
func (l *lastCall) Close() error {
	patient, ok := l.Listener.(interface{ SetDeadline(t time.Time) error })
	if !ok || l.closing.Swap(true) || patient.SetDeadline(time.Now().Add(acceptLast)) != nil {
		return l.Listener.Close()
	}
	return nil
}

// Accept waits for the next connection.
func (l *lastCall) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil && l.closing.Load() {
		_ = l.Listener.Close()
		return nil, net.ErrClosed
	}
	return conn, err
}
