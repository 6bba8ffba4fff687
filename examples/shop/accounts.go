package main

import (
	"log/slog"
	"maps"
	"net/http"
	"os"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/session"
)

// basket is the data of a session: amounts by product.
type basket map[string]int

// accounts are the users, their sessions, and the limits on logins.
type accounts struct {
	db       *store
	log      *slog.Logger
	clients  clientip.Policy
	sessions *session.Manager[basket]
	attempts *ratelimit.Login
}

var errWrongPassword = problem.New(http.StatusUnauthorized, "LOGIN_FAILED", "The name or the password is wrong")

// secret is SESSION_SECRET, which production cannot do without: an empty one is
// refused, none (nil) is not.
func secret(cfg madcrow.Config) []byte {
	text := os.Getenv("SESSION_SECRET")
	if text == "" && cfg.DeployEnv != madcrow.Production {
		return nil
	}
	return []byte(text)
}

func newAccounts(r *madcrow.Redis, cfg madcrow.Config, db *store, log *slog.Logger, clients clientip.Policy) (a *accounts, err error) {
	a = &accounts{db: db, log: log, clients: clients}
	a.sessions, err = session.New(r, "shop", session.Options[basket]{
		IdleTimeout:    time.Hour,
		MaxPerUser:     10,
		Secret:         secret(cfg),
		Client:         clients,
		InsecureCookie: cfg.DeployEnv != madcrow.Production, // without TLS, on this machine
	})
	if err != nil {
		return nil, err
	}
	a.attempts, err = ratelimit.NewLogin(r, "login", ratelimit.LoginOptions{
		MaxAttempts: 5,
		Window:      15 * time.Minute,
		FailPolicy:  madcrow.FailClosed, // without Redis no one can log in anyway
	})
	return a, err
}

// login counts the attempt before it checks the password, so that parallel guesses
// count too.
func (a *accounts) login(w http.ResponseWriter, r *http.Request) error {
	var in struct{ User, Password string }
	if err := decode(w, r, &in); err != nil {
		return err
	}
	addr, err := a.clients.Addr(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	key := ratelimit.LoginKey(in.User, addr) // a stranger cannot lock the owner out
	d, err := a.attempts.Attempt(ctx, key)
	if err != nil {
		return err
	}
	if err := d.Err(); err != nil {
		return err // 429, with Retry-After
	}
	if right, err := a.db.passwordIs(ctx, in.User, in.Password); err != nil {
		return err
	} else if !right {
		return errWrongPassword
	}
	if err := a.sessions.From(ctx).Login(ctx, in.User); err != nil { // a new identifier
		return err
	}
	if err := a.attempts.Reset(ctx, key); err != nil {
		a.log.WarnContext(ctx, "failed attempts still count", "reason", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *accounts) logout(w http.ResponseWriter, r *http.Request) error {
	if err := a.sessions.From(r.Context()).Logout(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *accounts) me(w http.ResponseWriter, r *http.Request) error {
	user, err := a.sessions.From(r.Context()).User(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, map[string]string{"user": user})
}

// devices lists where the user is logged in.
func (a *accounts) devices(w http.ResponseWriter, r *http.Request) error {
	s := a.sessions.From(r.Context())
	user, err := s.User(r.Context())
	if err != nil {
		return err
	}
	list, err := a.sessions.List(r.Context(), user)
	if err != nil {
		return err
	}
	type device struct {
		Handle, UserAgent, Address string
		Here                       bool
	}
	devices := make([]device, 0, len(list))
	for _, d := range list {
		devices = append(devices, device{d.Handle, d.Device.UserAgent, d.Device.Address, d.Handle == s.Handle()})
	}
	return reply(w, http.StatusOK, devices)
}

// revoke logs one device of the user out.
func (a *accounts) revoke(w http.ResponseWriter, r *http.Request) error {
	user, err := a.sessions.From(r.Context()).User(r.Context())
	if err != nil {
		return err
	}
	found, err := a.sessions.Revoke(r.Context(), user, chi.URLParam(r, "handle"))
	switch {
	case err != nil:
		return err
	case !found:
		return errNotFound
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// changePassword gives this device a new identifier and logs all others out.
func (a *accounts) changePassword(w http.ResponseWriter, r *http.Request) error {
	var in struct{ Password string }
	if err := decode(w, r, &in); err != nil {
		return err
	}
	ctx := r.Context()
	s := a.sessions.From(ctx)
	user, err := s.User(ctx)
	if err != nil {
		return err
	}
	if err := a.db.setPassword(ctx, user, in.Password); err != nil {
		return err
	}
	if err := s.Rotate(ctx); err != nil {
		return err
	}
	if _, err := s.RevokeOthers(ctx); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *accounts) basket(w http.ResponseWriter, r *http.Request) error {
	b, _, err := a.sessions.From(r.Context()).Get(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, b)
}

// fill puts an amount of a product into the basket. Visitors have one too.
func (a *accounts) fill(w http.ResponseWriter, r *http.Request) error {
	var in struct{ Amount int }
	if err := decode(w, r, &in); err != nil {
		return err
	}
	if in.Amount < 1 || in.Amount > 100 {
		return problem.Validation(problem.FieldError{Field: "body.amount", Message: "expected 1 to 100"})
	}
	var now basket
	err := a.sessions.From(r.Context()).Update(r.Context(), func(b *basket) error {
		now = maps.Clone(*b) // the function may run again: it changes nothing else
		if now == nil {
			now = basket{}
		}
		now[chi.URLParam(r, "id")] = in.Amount
		*b = now
		return nil
	})
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, now)
}
