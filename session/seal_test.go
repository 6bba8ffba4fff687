package session_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func field(t testing.TB, r *madcrow.Redis, key, name string) string {
	t.Helper()
	msg, err := r.Do(t.Context(), r.B().Hget().Key(key).Field(name).Build()).Message()
	must(t, err)
	s, _ := msg.ToString()
	return s
}

func setField(t testing.TB, r *madcrow.Redis, key, name, value string) {
	t.Helper()
	err := r.Do(t.Context(), r.B().Hset().Key(key).FieldValue().FieldValue(name, value).Build()).Err()
	must(t, err)
}

func TestSealed_NothingOfTheDataIsInRedis(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{EncryptionKeys: [][]byte{key(1)}})
	s := stored(t, m, "a word that is secret")
	must(t, s.AddFlash(t.Context(), "info", "another secret"))
	must(t, s.Login(t.Context(), "alice"))
	must(t, s.Rotate(t.Context()))
	session, _, _ := m.KeysOf(s.Token())
	if d := field(t, r, session, "d"); d == "" || strings.Contains(d, "secret") {
		t.Errorf("%q", d)
	}
	if c, found, err := m.Open(s.Token()).Get(t.Context()); !found || err != nil || c.N != 1 {
		t.Errorf("%+v %v %v", c, found, err)
	}
}

// A new key is added behind the old one, then it is the first, then the old one
// goes: processes of one step and the next read what each other wrote.
func TestSealed_KeysCanBeChanged(t *testing.T) {
	r := open(t)
	old := newManager(t, r, options{EncryptionKeys: [][]byte{key(1)}})
	added := newManager(t, r, options{EncryptionKeys: [][]byte{key(1), key(2)}})
	both := newManager(t, r, options{EncryptionKeys: [][]byte{key(2), key(1)}})
	late := newManager(t, r, options{EncryptionKeys: [][]byte{key(2)}, OnUndecodable: func(context.Context, error) {}})
	token := stored(t, old, "x").Token()
	if alive(t, late, token) {
		t.Error("read without its key")
	}
	must(t, added.Open(token).Update(t.Context(), add("w")))
	if !alive(t, old, token) {
		t.Error("written with the old key, and not read where there is no other")
	}
	must(t, both.Open(token).Update(t.Context(), add("y")))
	if !alive(t, added, token) {
		t.Error("written with the new key, and not read where it is the second")
	}
	if c, found, err := late.Open(token).Get(t.Context()); !found || err != nil || c.N != 3 {
		t.Errorf("written with the new key: %+v %v %v", c, found, err)
	}
}

// Who can write in Redis, but has no key, can neither become somebody nor give
// anybody another's data.
func TestSealed_DataIsBoundToItsSessionAndUser(t *testing.T) {
	r := open(t)
	var undecodable int
	m := newManager(t, r, options{EncryptionKeys: [][]byte{key(1)}, OnUndecodable: func(context.Context, error) { undecodable++ }})
	alice, again := login(t, m, "alice"), login(t, m, "alice")
	bob, anonymous, other := login(t, m, "bob"), stored(t, m, "x"), stored(t, m, "y")
	put := func(name string, from, to *session.Session[cart]) {
		t.Helper()
		source, _, _ := m.KeysOf(from.Token())
		target, _, _ := m.KeysOf(to.Token())
		mine := field(t, r, target, "d")
		defer setField(t, r, target, "d", mine)
		setField(t, r, target, "d", field(t, r, source, "d"))
		if alive(t, m, to.Token()) {
			t.Errorf("%s: the data of another session was read", name)
		}
	}
	put("from user to user", alice, bob)
	put("from one session of a user to another", alice, again)
	put("from no user to no user", anonymous, other)
	put("from no user to a user", anonymous, alice)

	target, _, _ := m.KeysOf(bob.Token())
	setField(t, r, target, "u", "alice")
	if user, err := m.Open(bob.Token()).User(t.Context()); user != "" || err != nil {
		t.Errorf("bob became %q, %v", user, err)
	}
	setField(t, r, target, "u", "bob")
	setField(t, r, target, "d", `0{"d":{"n":7}}`)
	if alive(t, m, bob.Token()) {
		t.Error("plain data was read although there are keys")
	}
	for _, d := range []string{"", "0", "1", "1short", "1" + strings.Repeat("x", 100), "2{}"} {
		setField(t, r, target, "d", d)
		if alive(t, m, bob.Token()) {
			t.Errorf("%q was read", d)
		}
	}
	if undecodable != 11 {
		t.Errorf("reported %d times", undecodable)
	}
}

func TestSealed_EqualDataIsSealedDifferently(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{EncryptionKeys: [][]byte{key(1)}})
	s := stored(t, m, "x")
	at, _, _ := m.KeysOf(s.Token())
	seen := map[string]bool{}
	for range 20 {
		must(t, s.Update(t.Context(), func(*cart) error { return nil }))
		seen[field(t, r, at, "d")[:13]] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d nonces of 20", len(seen))
	}
}

func TestOptions_SecretsAreNotShared(t *testing.T) {
	secret, k := bytes.Repeat([]byte{7}, 32), key(1)
	m := newManager(t, open(t), options{Secret: secret, EncryptionKeys: [][]byte{k}})
	s := login(t, m, "alice")
	clear(secret)
	clear(k)
	if list, err := m.List(t.Context(), "alice"); err != nil || len(list) != 1 || !alive(t, m, s.Token()) {
		t.Errorf("%v %v", list, err)
	}
}

// With a secret, an identifier does not tell whose it is.
func TestOptions_SecretHidesTheUser(t *testing.T) {
	r := open(t)
	with, without := newManager(t, r, options{Secret: key(7)}), newManager(t, r, options{})
	a, b := login(t, with, "alice"), login(t, without, "alice")
	_, epochA, _ := with.KeysOf(a.Token())
	_, epochB, _ := without.KeysOf(b.Token())
	if epochA == epochB {
		t.Error("the secret changes nothing")
	}
}
