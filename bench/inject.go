package main

import (
	"fmt"
	"net/http"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/service"
)

// injectRace shows what injection adds to a request: the same handler with its
// dependencies in variables, and in its signature. What is beyond the first
// line is the price; it must be below 200 ns and one allocation.
func injectRace(e *environment) (race, error) {
	users, err := cache.New(e.redis, "inject", cache.Options[user]{})
	if err != nil {
		return race{}, err
	}
	svc := service.New(e.redis, service.Options{})
	deps := inject.New(e.redis, inject.Options{})
	usersDep, svcDep := inject.Value(deps, users), inject.Value(deps, svc)
	name := inject.Plain(deps, "madcrow")
	agent := inject.PerRequestPlain(deps, func(r *http.Request) (string, error) { return r.Host, nil })

	done := func(w http.ResponseWriter, ok bool) error {
		if !ok {
			return fmt.Errorf("a dependency is missing")
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = done(w, users != nil && svc != nil)
	})
	one := inject.With(usersDep, func(w http.ResponseWriter, _ *http.Request, c *cache.Cache[user]) error { return done(w, c == users) })
	three := inject.With3(usersDep, svcDep, name, func(w http.ResponseWriter, _ *http.Request, c *cache.Cache[user], s *service.Service, n string) error {
		return done(w, c == users && s == svc && n == "madcrow")
	})
	optional := inject.With(inject.Maybe(usersDep), func(w http.ResponseWriter, _ *http.Request, c inject.Optional[*cache.Cache[user]]) error {
		v, ok := c.Get()
		return done(w, ok && v == users)
	})
	built := inject.With(agent, func(w http.ResponseWriter, _ *http.Request, a string) error { return done(w, a == "example.com") })

	run := func(h http.Handler) func(int) func() error {
		return func(int) func() error {
			w, r := &answer{header: http.Header{}}, request("/")
			return func() error {
				w.status = 0
				if h.ServeHTTP(w, r); w.status != http.StatusNoContent {
					return fmt.Errorf("status %d", w.status)
				}
				return nil
			}
		}
	}
	return race{name: "inject", what: "a request through a handler that does nothing", contestants: []contestant{
		{"variables", 0, run(bare)},
		{"inject.With", 0, run(one)},
		{"inject.With3", 0, run(three)},
		{"inject.With, optional", 0, run(optional)},
		{"inject.With, built for each request", 0, run(built)},
	}}, nil
}
