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
	"net/http"
	"strings"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/service"
)

func main() { serve.Main(run) }

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

	deps := inject.New(r, inject.Options{Logger: log})
	redis := inject.Value(deps, service.New(r, service.Options{}))
	me := inject.PerRequest(deps, func(r *http.Request) (user, error) { return currentUser(r, redis) })
	mux := http.NewServeMux()
	mux.Handle("GET /me", inject.With(me, show))
	mux.Handle("GET /admin", inject.With2(me, redis, admin))
	return serve.HTTP(ctx, log, deps.Problems().Recover(mux))
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

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
