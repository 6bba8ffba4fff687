package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/session"
)

// loginForm is what the page of the login shows.
type loginForm struct {
	Name, Next, Wrong, Out string
	Remember               bool
}

// nextPage is where to go after a login. Only pages of ours, so that a link to
// the login leads nowhere else.
func nextPage(r *http.Request) string {
	if next := r.FormValue("next"); next == "/sessions" {
		return next
	}
	return "/profile"
}

func (a *app) loginPage(w http.ResponseWriter, r *http.Request) error {
	// Better said now than after the password was typed.
	if err := a.redis.Err(); err != nil {
		return err
	}
	user, err := a.sessions.From(r.Context()).User(r.Context())
	if err != nil {
		return err
	}
	if user != "" {
		http.Redirect(w, r, nextPage(r), http.StatusSeeOther)
		return nil
	}
	return a.show(w, r, http.StatusOK, "login", "Log in", loginForm{Next: nextPage(r), Out: r.FormValue("out")})
}

func (a *app) login(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form := loginForm{Name: cleanName(r.PostFormValue("name")), Next: nextPage(r), Remember: r.PostFormValue("remember") != ""}
	try, err := a.admit(r, form.Name)
	if err != nil {
		return err
	}
	// From here on an unknown name goes the way of a wrong password.
	account, _, err := a.users.byName(ctx, form.Name)
	if err != nil {
		return err
	}
	password := r.PostFormValue("password")
	right, err := a.hasher.matches(ctx, account.hash, password)
	if err != nil {
		return err
	}
	if right {
		if account, right, err = a.begin(ctx, account, password, form.Remember); err != nil {
			return err
		}
	}
	if !right {
		// Not the name: now and then it is a password, in the wrong field.
		a.log.InfoContext(ctx, "login failed", "account", account.id, "client", try.client)
		form.Wrong = "The name or the password is wrong. " + try.left()
		if wantsJSON(r) {
			return problem.New(http.StatusUnauthorized, "LOGIN_FAILED", form.Wrong)
		}
		return a.show(w, r, http.StatusUnauthorized, "login", "Log in", form)
	}
	try.forget()
	a.log.InfoContext(ctx, "logged in", "account", account.id, "client", try.client)
	if outdated(account.hash) {
		a.rehash(ctx, account, password)
	}
	if wantsJSON(r) {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]string{"user": account.name})
	}
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
	return nil
}

// try is an admitted guess of a password.
type try struct {
	client string
	free   int64  // how many more are
	forget func() // the guesses so far, after a right one
}

// admit counts a guess of a password. An error is the answer: too many, or
// not known.
func (a *app) admit(r *http.Request, name string) (try, error) {
	ctx := r.Context()
	addr, err := a.clients.Addr(r)
	if err != nil {
		return try{}, problem.New(http.StatusBadRequest, "CLIENT_UNKNOWN", "Your address cannot be determined")
	}
	client, err := a.clients.Key(r)
	if err != nil {
		return try{}, err
	}
	d, err := a.addresses.Allow(ctx, client)
	if err == nil {
		err = d.Err() // 429 for too many; what was not decided is a 503 or 504
	}
	if err != nil {
		return try{}, err
	}
	id := ratelimit.LoginKey(name, addr)
	if d, err = a.logins.Attempt(ctx, id); err == nil {
		err = d.Err()
	}
	if err != nil {
		return try{}, err
	}
	return try{client, d.Remaining, func() {
		if err := a.logins.Reset(ctx, id); err != nil {
			a.log.WarnContext(ctx, "the failed logins are not forgotten", "reason", err) // they leave by age
		}
	}}, nil
}

func (t try) left() string {
	switch t.free {
	case 0:
		return "This was the last try for now."
	case 1:
		return "One try is left."
	}
	return strconv.FormatInt(t.free, 10) + " tries are left."
}

// begin logs an account in, and returns it as it is then. False is for a
// password that is not the account's any more: it waited for its turn, and was
// changed meanwhile. A change after this look ends the session itself.
func (a *app) begin(ctx context.Context, account user, password string, remember bool) (user, bool, error) {
	if err := a.enter(ctx, account, remember); err != nil {
		return account, false, err
	}
	now, _, err := a.users.byID(ctx, strconv.FormatInt(account.id, 10))
	right := now.hash == account.hash
	if err == nil && !right {
		right, err = a.hasher.matches(ctx, now.hash, password) // another login may have hashed it again
	}
	if err != nil || !right {
		return account, false, errors.Join(err, a.sessions.From(ctx).Logout(ctx))
	}
	return now, true, nil
}

// enter makes the session.
func (a *app) enter(ctx context.Context, account user, remember bool) error {
	s := a.sessions.From(ctx)
	var opts []session.LoginOption
	if remember {
		opts = append(opts, session.Remember())
	}
	// The number, and not the name: that may change hands.
	if err := s.Login(ctx, strconv.FormatInt(account.id, 10), opts...); err != nil {
		return err
	}
	err := s.Update(ctx, func(v *visit) error {
		*v = visit{Username: account.name, Role: account.role, LoginTime: time.Now().UTC()}
		return nil
	})
	if err != nil {
		// Half a login is none: the cookie goes, whatever comes of the rest.
		return errors.Join(err, s.Logout(ctx))
	}
	return nil
}

// rehash stores a password with the parameters of today, the only moment that
// it is known.
func (a *app) rehash(ctx context.Context, account user, password string) {
	hash, err := a.hasher.hash(ctx, password)
	if err == nil {
		err = a.users.setHash(ctx, account.id, account.hash, hash)
	}
	if err != nil {
		a.log.WarnContext(ctx, "the hash stays as it was", "account", account.id, "reason", err)
	}
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) error {
	session.ClearSiteData(w.Header()) // whatever comes: this browser is to forget
	if err := a.sessions.From(r.Context()).Logout(r.Context()); err != nil {
		return err
	}
	leave(w, r, "here")
	return nil
}

// leave sends to the login, with a word of what was ended: a flash message would
// need a session.
func leave(w http.ResponseWriter, r *http.Request, what string) {
	if wantsJSON(r) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Redirect(w, r, "/login?out="+what, http.StatusSeeOther)
}
