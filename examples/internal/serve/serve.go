// Package serve is what each example has around its handlers: the begin and the end of
// a process. Copy it into your program and change it there.
package serve

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main runs a program until it returns. Its context ends with SIGINT and SIGTERM; what
// the program opened it closes itself, with defer, in the reverse order: the server
// first, then workers, caches and the bus, and the Redis last.
func Main(run func(context.Context, *slog.Logger) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, log); err != nil {
		log.Error("it ended", "reason", err)
		os.Exit(1) //nolint:gocritic // nothing is left for stop to do
	}
}

// HTTP serves at [Listen] until ctx ends, and then finishes the requests in flight,
// for 10 seconds at most. ending is called before that, for responses that have no end,
// such as server-sent events.
func HTTP(ctx context.Context, log *slog.Logger, h http.Handler, ending ...func()) error {
	ln, err := Listen(log)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	for _, fn := range ending {
		srv.RegisterOnShutdown(fn)
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(end)
}

// Listen listens at ADDR, which defaults to 127.0.0.1:8080.
func Listen(log *slog.Logger) (net.Listener, error) {
	ln, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"))
	if err == nil {
		log.Info("listening on http://" + ln.Addr().String())
	}
	return ln, err
}
