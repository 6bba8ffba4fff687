// Command shop is the service of docs/tutorial.md: products from a cache, users with
// sessions, limits, live updates, and orders that workers fulfil. It runs with
// nothing installed, and goes on while its Redis is away.
//
//	go run ./shop
//	curl http://127.0.0.1:8080/products/lamp
//
// ADDR is where it listens, DATABASE the file of the database (in memory without
// it), SESSION_SECRET 32 random bytes or more, PROXIES how many proxies stand in
// front, PAYMENT_URL who is asked for money; REDIS_HOST, REDIS_URL and so on name
// the Redis.
package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/contrib/embedded"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, log); err != nil {
		log.Error("the shop ended", "reason", err)
		os.Exit(1)
	}
}

// run opens what the shop needs, each after what it uses, and serves until ctx ends.
// The deferred calls close it in the opposite order.
func run(ctx context.Context, log *slog.Logger) error {
	end := context.WithoutCancel(ctx) // closing has time of its own

	db, err := openStore(ctx, os.Getenv("DATABASE"))
	if err != nil {
		return err
	}
	defer db.Close()

	cfg, stopEmbedded, err := embedded.ConfigFromEnv(embedded.Options{Logger: log})
	if err != nil {
		return err
	}
	defer stopEmbedded()

	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	defer r.Close(end)

	s, err := newShop(ctx, r, cfg, db, log)
	if err != nil {
		return err
	}
	defer s.close(end)
	return s.serve(ctx)
}

// shop is the whole service.
type shop struct {
	log      *slog.Logger
	catalog  *catalog
	accounts *accounts
	orders   *orders
	health   *health.Monitor
	limited  func(http.Handler) http.Handler
}

func newShop(ctx context.Context, r *madcrow.Redis, cfg madcrow.Config, db *store, log *slog.Logger) (*shop, error) {
	clients := clientip.RemoteAddr()
	if n, err := strconv.Atoi(os.Getenv("PROXIES")); err == nil {
		if clients, err = clientip.TrustedProxies(n); err != nil {
			return nil, err
		}
	}
	s := &shop{log: log}
	var err, failed error
	s.catalog, err = newCatalog(r, db, log)
	failed = errors.Join(failed, err)
	s.accounts, err = newAccounts(r, cfg, db, log, clients)
	failed = errors.Join(failed, err)
	s.orders, err = newOrders(r, db, log)
	failed = errors.Join(failed, err)
	s.health, err = health.New(r, health.Options{
		Optional: true, // the shop sells without Redis, too
		Checks:   []health.Check{{Name: "database", Run: db.PingContext}},
		Draining: func() bool { return ctx.Err() != nil },
	})
	failed = errors.Join(failed, err)
	s.limited, err = limitClients(r, clients)
	return s, errors.Join(failed, err)
}

// limitClients allows each client 50 requests a second and 5,000 a day, in one step.
// Without Redis this process allows half of it, as there are two processes.
func limitClients(r *madcrow.Redis, clients clientip.Policy) (func(http.Handler) http.Handler, error) {
	second, err := ratelimit.New(r, "second", ratelimit.Options{Rate: ratelimit.PerSecond(50), FailPolicy: madcrow.FailLocal(2)})
	if err != nil {
		return nil, err
	}
	day, err := ratelimit.New(r, "day", ratelimit.Options{Rate: ratelimit.PerDay(5000), FailPolicy: madcrow.FailLocal(2)})
	if err != nil {
		return nil, err
	}
	both, err := ratelimit.Join(second, day)
	if err != nil {
		return nil, err
	}
	return ratelimit.Middleware(both, ratelimit.ByClient(clients), ratelimit.MiddlewareOptions{}), nil
}

// routes are all routes of the shop.
func (s *shop) routes() http.Handler {
	router := chi.NewRouter()
	router.Use(problem.Recover(s.log))
	router.Method("GET", "/health/live", s.health.Live())
	router.Method("GET", "/health/ready", s.health.Ready())
	router.Method("GET", "/health", s.health.Detail())
	router.Group(func(router chi.Router) {
		router.Use(s.limited)
		router.Get("/products", s.handle(s.catalog.list))
		router.Get("/products/{id}", s.handle(s.catalog.get))
		router.Method("GET", "/events", s.catalog.events)
		router.Group(func(router chi.Router) { // may be a minute old while Redis is away
			router.Use(s.accounts.sessions.Middleware(madcrow.FailStale))
			router.Get("/basket", s.handle(s.accounts.basket))
			router.With(s.accounts.sessions.Require).Get("/me", s.handle(s.accounts.me))
		})
		router.Group(func(router chi.Router) { // 503 while Redis is away
			router.Use(s.accounts.sessions.Middleware(madcrow.FailClosed))
			router.Post("/login", s.handle(s.accounts.login))
			router.Post("/logout", s.handle(s.accounts.logout))
			router.Put("/basket/{id}", s.handle(s.accounts.fill))
			router.Group(func(router chi.Router) {
				router.Use(s.accounts.sessions.Require)
				router.Get("/me/devices", s.handle(s.accounts.devices))
				router.Delete("/me/devices/{handle}", s.handle(s.accounts.revoke))
				router.Put("/me/password", s.handle(s.accounts.changePassword))
				router.Put("/products/{id}", s.handle(s.catalog.put))
				router.Post("/orders", s.handle(s.withSession(s.orders.place)))
				router.Get("/orders/{id}", s.handle(s.withSession(s.orders.get)))
				router.Get("/report", s.handle(s.orders.report))
			})
		})
	})
	return router
}

// handler answers a request, or returns why not.
type handler = func(http.ResponseWriter, *http.Request) error

// withSession hands a handler the session of the request.
func (s *shop) withSession(h func(http.ResponseWriter, *http.Request, *session.Session[basket]) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return h(w, r, s.accounts.sessions.From(r.Context()))
	}
}

// handle answers the error of a handler: each error knows its own response, and any
// other one is a 500 whose cause stands in the log alone.
func (s *shop) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			problem.Write(w, r, s.log, err)
		}
	}
}

// serve runs the server and the workers until ctx ends or one of them fails. The
// workers end after the server: its last requests may still place orders.
func (s *shop) serve(ctx context.Context) error {
	ln, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s.routes(), ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	srv.RegisterOnShutdown(s.catalog.events.Close) // open streams would hold up its end

	failed := make(chan error, 2)
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stopWorking()
	workers.Go(func() { s.orders.sweep(working) })
	workers.Go(func() {
		if err := s.orders.work(working); working.Err() == nil {
			failed <- err
		}
	})
	go func() { failed <- srv.Serve(ln) }()
	s.log.Info("listening on http://" + ln.Addr().String())

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, srv.Shutdown(end)) // requests in flight are finished
}

// close closes what uses the Redis, before the Redis.
func (s *shop) close(ctx context.Context) {
	s.health.Close(ctx)
	s.orders.close(ctx)
	s.catalog.close(ctx)
}
