package ours

import (
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

func sessions(mux *http.ServeMux, deps *inject.Set, redis *madcrow.Redis) {
	m := madcrow.Must(session.New(redis, "web", session.Options[site.Visit]{IdleTimeout: 24 * time.Hour, AbsoluteTimeout: 24 * time.Hour, InsecureCookie: true}))
	with := m.Middleware(madcrow.FailClosed)
	mux.Handle("POST /login", with(deps.Handler(func(w http.ResponseWriter, r *http.Request) error {
		user, ok := site.Authenticate(r)
		if !ok {
			return problem.New(http.StatusUnauthorized, "LOGIN_FAILED", "The name or the password is wrong")
		}
		s := m.From(r.Context())
		if err := s.Login(r.Context(), user.ID); err != nil {
			return err
		}
		err := s.Update(r.Context(), func(v *site.Visit) error {
			*v = site.Visit{UserID: user.ID, Username: user.Username, Role: user.Role, LoginTime: time.Now().UTC()}
			return nil
		})
		if err != nil {
			return err
		}
		return site.Reply(w, map[string]string{"user": user.Username})
	})))
	mux.Handle("GET /profile", with(m.Require(deps.Handler(func(w http.ResponseWriter, r *http.Request) error {
		v, _, err := m.From(r.Context()).Get(r.Context())
		if err != nil {
			return err
		}
		return site.Reply(w, map[string]site.Visit{"user": v})
	}))))
}
