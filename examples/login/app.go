package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/session"
)

// visit is what a session holds. Whose it is says the session itself.
type visit struct {
	Username  string    `json:"username"`
	Role      string    `json:"role"`
	LoginTime time.Time `json:"login_time"`
}

type app struct {
	redis    *madcrow.Redis
	users    *users
	sessions *session.Manager[visit]
	// logins counts by name and address: a stranger who guesses locks himself
	// out, and not the owner of the account.
	logins *ratelimit.Login
	// addresses counts all logins of an address.
	addresses *ratelimit.Limiter
	clients   clientip.Policy
	hasher    *hasher
	log       *slog.Logger
	tls       bool
}

func newApp(cfg config, r *madcrow.Redis, accounts *users, log *slog.Logger) (*app, error) {
	a := &app{redis: r, users: accounts, hasher: newHasher(), log: log, tls: !cfg.dev, clients: clientip.RemoteAddr()}
	if cfg.proxies > 0 {
		var err error
		if a.clients, err = clientip.TrustedProxies(cfg.proxies); err != nil {
			return nil, err
		}
	}
	secret, err := cfg.secret()
	if err != nil {
		return nil, err
	}
	a.sessions, err = session.New(r, "web", session.Options[visit]{
		Secret: secret, Client: a.clients, InsecureCookie: cfg.dev,
		MaxPerUser: 50, // what the page of sessions can show, and people can read
		// A page here is one request, so none is under way beside a change of
		// the password; and a stolen identifier is to read nothing after it.
		RotationGrace: -1,
	})
	if err != nil {
		return nil, err
	}
	limits, err := ratelimit.LoginOptionsFromEnv(madcrow.Env{})
	if err != nil {
		return nil, err
	}
	// Closed: without Redis there is no session to be had anyway, and guesses
	// that are not counted are the last thing to admit.
	limits.FailPolicy = madcrow.FailClosed
	if a.logins, err = ratelimit.NewLogin(r, "login", limits); err != nil {
		return nil, err
	}
	a.addresses, err = ratelimit.New(r, "login_address", ratelimit.Options{Rate: ratelimit.PerMinute(60), FailPolicy: madcrow.FailClosed})
	return a, err
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	closed, copied := a.sessions.Middleware(madcrow.FailClosed), a.sessions.Middleware(madcrow.FailStale)
	mux.HandleFunc("GET /style.css", style)
	mux.Handle("GET /{$}", http.RedirectHandler("/profile", http.StatusSeeOther))
	mux.Handle("GET /login", closed(a.handle(a.loginPage)))
	mux.Handle("POST /login", closed(a.handle(a.login)))
	mux.Handle("POST /logout", closed(a.handle(a.logout)))
	mux.Handle("GET /profile", copied(a.handle(a.known(a.profile))))
	mux.Handle("POST /password", closed(a.handle(a.known(a.changePassword))))
	mux.Handle("GET /sessions", closed(a.handle(a.known(a.list))))
	mux.Handle("POST /sessions/end", closed(a.handle(a.known(a.end))))
	mux.Handle("/", a.handle(func(http.ResponseWriter, *http.Request) error {
		return problem.New(http.StatusNotFound, "NOT_FOUND", "There is no such page")
	}))

	// Every request that changes something is a POST, so this is all that
	// keeps other sites from sending one with the user's cookie.
	csrf := http.NewCrossOriginProtection()
	csrf.SetDenyHandler(a.handle(func(http.ResponseWriter, *http.Request) error {
		return problem.New(http.StatusForbidden, "CROSS_ORIGIN", "Another site sent this form, so nothing was done")
	}))
	return problem.Recover(a.log)(a.guarded(csrf.Handler(mux)))
}

// guarded sets the headers of every answer.
func (a *app) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // pages are somebody's own
		if a.tls {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// maxForm is more than any form of ours has.
const maxForm = 8 << 10

// handle answers the error of a handler, and reads the form before it.
func (a *app) handle(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		err := r.ParseForm()
		if err != nil {
			err = problem.New(http.StatusBadRequest, "FORM_INVALID", "The form cannot be read")
		} else {
			err = h(w, r)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	})
}

// member is a session somebody is logged in to.
type member struct {
	*session.Session[visit]
	user string // the number of the account
}

// known lets through who is logged in; others are sent to the login.
func (a *app) known(h func(http.ResponseWriter, *http.Request, member) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		s := a.sessions.From(r.Context())
		user, err := s.User(r.Context())
		switch {
		case err != nil:
			return err
		case user != "":
			return h(w, r, member{s, user})
		case wantsJSON(r) || r.Method != http.MethodGet:
			return session.ErrNoUser
		}
		// The cookie stays: this may be a late request of before a rotation,
		// and would take the new one with it.
		http.Redirect(w, r, "/login?next="+r.URL.Path, http.StatusSeeOther)
		return nil
	}
}
