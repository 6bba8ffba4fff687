package conformance

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/problem"
)

func reply(w http.ResponseWriter, a Reply, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(a)
}

// NetHTTP adds the routes as net/http handlers, which other routers take too.
func NetHTTP(k *Kit, handle func(pattern string, h http.Handler)) {
	plain := func(h func(http.ResponseWriter, *http.Request) error) http.Handler { return k.Set.Handler(h) }
	in := func(f func(context.Context) (Reply, error)) http.Handler {
		return k.Session(plain(func(w http.ResponseWriter, r *http.Request) error {
			a, err := f(r.Context())
			return reply(w, a, err)
		}))
	}
	handle("GET /plain", inject.With(k.Plain, func(w http.ResponseWriter, _ *http.Request, g Greeter) error {
		return reply(w, Greet(g), nil)
	}))
	handle("GET /store/{key}", inject.With(k.Store, func(w http.ResponseWriter, r *http.Request, s *Store) error {
		a, err := s.Read(r.Context(), r.PathValue("key"))
		return reply(w, a, err)
	}))
	handle("GET /optional", inject.With(inject.Maybe(k.Store), func(w http.ResponseWriter, _ *http.Request, s inject.Optional[*Store]) error {
		return reply(w, ReadOptional(s), nil)
	}))
	handle("GET /caller", inject.With2(k.Caller, k.Greeting, func(w http.ResponseWriter, _ *http.Request, c Caller, g Greeting) error {
		return reply(w, Called(c, g), nil)
	}))
	handle("GET /session", in(k.Visits))
	handle("POST /session", in(k.Visit))
	handle("POST /session/fail", in(func(ctx context.Context) (Reply, error) {
		_, err := k.Visit(ctx)
		if err == nil {
			err = ErrForeign
		}
		return Reply{}, err
	}))
	handle("POST /session/empty", k.Session(plain(func(w http.ResponseWriter, r *http.Request) error {
		_, err := k.Visit(r.Context())
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	})))
	handle("POST /login/{user}", k.Session(plain(func(w http.ResponseWriter, r *http.Request) error {
		a, err := k.Login(r.Context(), r.PathValue("user"))
		return reply(w, a, err)
	})))
	handle("POST /login/{user}/panic", k.Session(plain(func(_ http.ResponseWriter, r *http.Request) error {
		if _, err := k.Login(r.Context(), r.PathValue("user")); err != nil {
			return err
		}
		panic(Secret)
	})))
	handle("POST /rotate", in(k.Rotate))
	handle("GET /limited", k.Limited(inject.With(k.Plain, func(w http.ResponseWriter, _ *http.Request, g Greeter) error {
		return reply(w, Greet(g), nil)
	})))
	handle("GET /fail/{kind}", plain(func(_ http.ResponseWriter, r *http.Request) error {
		return k.Fail(r.Context(), r.PathValue("kind"))
	}))
	handle("GET /panic", plain(func(http.ResponseWriter, *http.Request) error { panic(Secret) }))
	handle("POST /validate", plain(func(w http.ResponseWriter, r *http.Request) error {
		var body In
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return problem.New(http.StatusBadRequest, "BODY", "The body is no JSON")
		}
		a, err := Validate(body)
		return reply(w, a, err)
	}))
	handle("GET /stream", k.Session(plain(func(w http.ResponseWriter, r *http.Request) error {
		if _, err := k.Visit(r.Context()); err != nil {
			return err
		}
		_, _ = io.WriteString(w, "one\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		k.Hold()
		_, err := io.WriteString(w, "two\n")
		return err
	})))
	handle("GET /health/live", k.Health.Live())
	handle("GET /health/ready", k.Health.Ready())
	handle("GET /health", k.Health.Detail())
}
