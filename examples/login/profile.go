package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

func (a *app) profile(w http.ResponseWriter, r *http.Request, m member) error {
	v, _, err := m.Get(r.Context())
	if err != nil {
		return err
	}
	if wantsJSON(r) {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]visit{"user": v})
	}
	return a.show(w, r, http.StatusOK, "profile", "Profile", v)
}

// changePassword also ends the other sessions: whoever had the old password is
// out.
func (a *app) changePassword(w http.ResponseWriter, r *http.Request, m member) error {
	ctx := r.Context()
	account, found, err := a.users.byID(ctx, m.user)
	if err != nil {
		return err
	}
	if !found { // the account is gone, and with it its sessions
		if _, err := a.sessions.RevokeAll(ctx, m.user); err != nil {
			return err
		}
		return session.ErrEnded
	}
	old, password := r.PostFormValue("old"), r.PostFormValue("new")
	if password != r.PostFormValue("again") {
		return a.refuse(w, r, m, "The two new passwords are not the same.")
	}
	if text := weakness(password, account.name); text != "" {
		return a.refuse(w, r, m, text)
	}
	// A stolen session must not become a place to guess at.
	try, err := a.admit(r, account.name)
	if err != nil {
		return err
	}
	right, err := a.hasher.matches(ctx, account.hash, old)
	if err != nil {
		return err
	}
	if !right {
		return a.refuse(w, r, m, "The current password is wrong. "+try.left())
	}
	try.forget()
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = a.users.setHash(ctx, account.id, account.hash, hash)
	if errors.Is(err, errChanged) {
		return problem.New(http.StatusConflict, "ACCOUNT_CHANGED", "The account was changed elsewhere at the same time, so nothing was changed here")
	}
	if err != nil {
		return err
	}
	return a.renew(w, r, m)
}

// renew gives this session a new identifier and ends the others.
func (a *app) renew(w http.ResponseWriter, r *http.Request, m member) error {
	ctx := r.Context()
	err := m.Rotate(ctx)
	n := 0
	if err == nil {
		n, err = m.RevokeOthers(ctx)
	}
	if err != nil {
		a.log.ErrorContext(ctx, "sessions outlive a change of the password", "user", m.user, "reason", err)
		p := problem.From(err)
		return problem.With(problem.Problem{
			Status: p.Status, Code: p.Code, RetryAfter: p.RetryAfter,
			Message: "The password is changed, but sessions elsewhere could not be ended. End them on the page of your sessions",
		})
	}
	return a.say(w, r, m, "/profile", "ok", "The password is changed. "+othersEnded(n))
}

func othersEnded(n int) string {
	switch n {
	case 0:
		return "No other session was open."
	case 1:
		return "One other session was ended."
	}
	return strconv.Itoa(n) + " other sessions were ended."
}

// refuse says on the profile what is wrong with a form.
func (a *app) refuse(w http.ResponseWriter, r *http.Request, m member, text string) error {
	if wantsJSON(r) {
		return problem.New(http.StatusUnprocessableEntity, problem.CodeValidation, text)
	}
	return a.say(w, r, m, "/profile", "error", text)
}

// say keeps a message for the next page, and goes there.
func (a *app) say(w http.ResponseWriter, r *http.Request, m member, page, kind, text string) error {
	if wantsJSON(r) {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]string{"message": text})
	}
	if err := m.AddFlash(r.Context(), kind, text); err != nil {
		return err
	}
	http.Redirect(w, r, page, http.StatusSeeOther)
	return nil
}
