// Command beside stands beside a FastAPI Madcrow on the same Redis: it knows who
// is logged in there, by the session that the Python program has stored.
//
//	REDIS_HOST=localhost go run ./beside
//	redis-cli SETEX session:s1 3600 '{"user_id": 7, "username": "ada", "role": "admin"}'
//	curl -H 'Authorization: Bearer s1' http://127.0.0.1:8080/me
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, log); err != nil {
		log.Error("it ended", "reason", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	cfg, err := madcrow.ConfigFromEnv() // REDIS_HOST, REDIS_URL, …
	if err != nil {
		return err
	}
	cfg.Logger = log
	r, err := madcrow.Open(ctx, cfg) // returns at once, with or without a Redis
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))

	deps := inject.New(r, log)
	redis := inject.Value(deps, service.New(r))
	me := inject.PerRequest(deps, func(r *http.Request) (user, error) { return currentUser(r, redis) })
	mux := http.NewServeMux()
	mux.Handle("GET /me", inject.With(me, show))
	mux.Handle("GET /admin", inject.With2(me, redis, admin))
	return serve(ctx, log, deps.Problems().Recover(mux))
}

// user is the part of the session that this program reads.
type user struct {
	ID   int64  `json:"user_id"`
	Name string `json:"username"`
	Role string `json:"role"`
}

// currentUser is a dependency that needs another one. It is built once for a
// request, when a handler needs it.
func currentUser(r *http.Request, redis inject.Dep[*service.Service]) (u user, err error) {
	svc, err := inject.Get(r, redis)
	if err != nil {
		return u, err
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	data, found := json.RawMessage(nil), false
	if token != "" {
		data, found, err = svc.GetSession(r.Context(), token)
	}
	switch {
	case err != nil:
		return u, err
	case !found:
		return u, problem.New(http.StatusUnauthorized, "SESSION_INVALID", "There is no such session")
	}
	return u, json.Unmarshal(data, &u)
}

func show(w http.ResponseWriter, _ *http.Request, me user) error {
	return reply(w, map[string]user{"user": me})
}

func admin(w http.ResponseWriter, r *http.Request, me user, redis *service.Service) error {
	if me.Role != "admin" {
		return problem.New(http.StatusForbidden, "NOT_ALLOWED", "This is for administrators")
	}
	notice, _, err := redis.GetCache(r.Context(), "admin_notice") // a key that Python writes
	if err != nil {
		return err
	}
	return reply(w, map[string]string{"notice": notice})
}

// serve ends when ctx does, and finishes the requests in flight.
func serve(ctx context.Context, log *slog.Logger, h http.Handler) error {
	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = "127.0.0.1:8080"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	log.Info("listening on http://" + ln.Addr().String())
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
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

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
