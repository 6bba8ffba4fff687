package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

const (
	nextPassword = "staple staple battery"
	lastPassword = "a third one, of words"
)

// pair is two servers on one Redis and one file of accounts, with the account
// ada. On the slow one a test says when a password has its turn.
type pair struct {
	t          *testing.T
	accounts   *users
	slow, fast *site
	turn       chan struct{}
}

func openPair(t *testing.T, hash string) *pair {
	t.Helper()
	p := &pair{t: t, turn: make(chan struct{})}
	db := t.TempDir() + "/users.db"
	redis := madcrowtest.StartRedis(t)
	serve := func() (*app, *site) {
		cfg := redis.Config()
		cfg.Require = true
		r, err := madcrow.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close(context.Background()) })
		accounts, err := openUsers(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(accounts.close)
		a, err := newApp(config{dev: true, secretFile: "kit_test.go"}, r, accounts, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(a.handler())
		t.Cleanup(srv.Close)
		return a, &site{t: t, url: srv.URL}
	}
	var a *app
	_, p.fast = serve()
	a, p.slow = serve()
	a.hasher.slots = p.turn // unbuffered: an entry and an end both wait for the test
	p.accounts = a.users
	if err := p.accounts.add(t.Context(), "ada", "editor", hash); err != nil {
		t.Fatal(err)
	}
	return p
}

// meanwhile runs ask on the slow server, and do on the fast one while the first
// password of ask has its turn: the account was read before.
func (p *pair) meanwhile(ask func() answer, do func()) (a answer) {
	p.t.Helper()
	answered := make(chan answer, 1)
	go func() {
		defer close(answered) // also where the test ends in ask
		answered <- ask()
	}()
	select {
	case <-p.turn:
	case a = <-answered:
		p.t.Fatalf("no password had its turn: %v", a)
	}
	defer func() { // also where the test ends in do
		for {
			select {
			case p.turn <- struct{}{}: // the end of a turn
			case <-p.turn: // the next one
			case a = <-answered:
				return
			}
		}
	}()
	do()
	return a
}

func (p *pair) hash() string {
	p.t.Helper()
	ada, found, err := p.accounts.byName(p.t.Context(), "ada")
	if err != nil || !found {
		p.t.Fatal(found, err)
	}
	return ada.hash
}

// has looks whether ada's password is that one.
func (p *pair) has(want string) {
	p.t.Helper()
	for _, text := range []string{password, nextPassword, lastPassword} {
		if ok, err := sameHash(p.hash(), text); ok != (text == want) || err != nil {
			p.t.Errorf("the password is %q: %v, %v", text, ok, err)
		}
	}
}

func (b *browser) change(old, to string) answer {
	b.t.Helper()
	return b.post("/password", "old", old, "new", to, "again", to)
}

// weakHash has parameters of another day.
func weakHash(password string) string {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt)
	sum := argon2.IDKey([]byte(password), salt, 1, 8*1024, 1, hashSize)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=1,p=1$", argon2.Version, 8*1024) +
		base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(sum)
}

// A login that has read the account before the password was changed is one with
// a wrong password, and does not bring the old one back.
func TestLogin_TheOldPasswordDoesNotOutliveAChange(t *testing.T) {
	for name, hash := range map[string]string{"today's hash": encodeHash(password), "an outdated hash": weakHash(password)} {
		t.Run(name, func(t *testing.T) {
			p := openPair(t, hash)
			owner, thief := p.fast.browser(firefox), p.slow.browser(iphone)
			owner.login("ada")
			// As it was: a login on the fast server has hashed it again.
			if err := p.accounts.setHash(t.Context(), 1, p.hash(), hash); err != nil {
				t.Fatal(err)
			}
			a := p.meanwhile(func() answer { return thief.post("/login", "name", "ada", "password", password) }, func() {
				if a := owner.change(password, nextPassword); a.to != "/profile" {
					t.Error(a)
				}
			})
			if a.code != http.StatusUnauthorized || !a.has("The name or the password is wrong. ") {
				t.Error(a)
			}
			if thief.in("ada") || !owner.in("ada") {
				t.Error("the thief is in, or the owner is not")
			}
			if a := owner.get("/sessions"); !a.has("this one") || a.has("iPhone") {
				t.Error(a)
			}
			p.has(nextPassword)
		})
	}
}

// Of two logins at the same time the other one has hashed the password again: it
// is right all the same.
func TestLogin_AHashMadeAgainMeanwhileIsNoWrongPassword(t *testing.T) {
	p := openPair(t, weakHash(password))
	one, two := p.slow.browser(firefox), p.fast.browser(iphone)
	a := p.meanwhile(func() answer { return one.post("/login", "name", "ada", "password", password) }, func() { two.login("ada") })
	if a.code != http.StatusSeeOther || !one.in("ada") || !two.in("ada") {
		t.Error(a)
	}
	if outdated(p.hash()) {
		t.Error("the hash is outdated")
	}
	p.has(password)
}

func TestPassword_OfTwoChangesAtOnceTheFirstHolds(t *testing.T) {
	p := openPair(t, encodeHash(password))
	owner, thief := p.fast.browser(firefox), p.fast.browser(iphone)
	owner.login("ada")
	thief.login("ada")
	thief.site = p.slow // cookies do not tell ports apart
	a := p.meanwhile(func() answer { return thief.change(password, lastPassword) }, func() {
		if a := owner.change(password, nextPassword); a.to != "/profile" {
			t.Error(a)
		}
	})
	if a.code != http.StatusConflict || !a.has("changed elsewhere") {
		t.Error(a)
	}
	if thief.in("ada") || !owner.in("ada") {
		t.Error("the thief is in, or the owner is not")
	}
	p.has(nextPassword)
}
