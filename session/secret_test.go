package session_test

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/madcrow-go/madcrow/session"
)

// A deploy that changed the Secret ended the sessions of all users, and looked like a
// revocation; a tool with another Secret found "no sessions".
func TestSecret_ADifferenceIsSaidOnceAndWhenItIsOver(t *testing.T) {
	r := open(t)
	var old, changed lines
	logTo := func(l *lines) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
	before := newManager(t, r, options{Secret: key(1), Logger: logTo(&old)})
	after := newManager(t, r, options{Secret: key(2), Logger: logTo(&changed)})
	const differs, over = "another Secret", "this Secret again"
	login(t, before, "alice")
	if old.count("Secret") != 0 {
		t.Error("the first login said something")
	}
	for range 3 { // two deployments that disagree
		for _, m := range []*session.Manager[cart]{after, before} {
			m.CompareSecretSoon()
			login(t, m, "alice")
		}
	}
	if old.count(differs) != 1 || changed.count(differs) != 1 || old.count(over)+changed.count(over) != 0 {
		t.Errorf("%d and %d lines, and %d of the end", old.count(differs), changed.count(differs), old.count(over)+changed.count(over))
	}
	for range 3 { // the old one has ended
		after.CompareSecretSoon()
		login(t, after, "bob")
	}
	if changed.count(over) != 1 || old.count(over) != 0 {
		t.Errorf("the end was said %d and %d times", changed.count(over), old.count(over))
	}
}

// Whoever only reads, or finds nothing to revoke, notices it too.
func TestSecret_ADifferenceIsNoticedWhereSessionsAreNotFound(t *testing.T) {
	r := open(t)
	token := login(t, newManager(t, r, options{Secret: key(1)}), "alice").Token()
	for name, use := range map[string]func(m *session.Manager[cart]){
		"read":       func(m *session.Manager[cart]) { alive(t, m, token) },
		"list":       func(m *session.Manager[cart]) { _, err := m.List(t.Context(), "alice"); must(t, err) },
		"revoke all": func(m *session.Manager[cart]) { _, err := m.RevokeAll(t.Context(), "alice"); must(t, err) },
	} {
		var log lines
		use(newManager(t, r, options{Secret: key(2), Logger: slog.New(slog.NewTextHandler(&log, nil))}))
		if log.count("another Secret") != 1 {
			t.Errorf("%s: nothing was said", name)
		}
	}
}

func TestCheckSecret_TellsAWrongSecretFromNoSessions(t *testing.T) {
	r := open(t)
	right, wrong, none := newManager(t, r, options{Secret: key(1)}), newManager(t, r, options{Secret: key(2)}), newManager(t, r, options{})
	if known, err := wrong.CheckSecret(t.Context()); known || err != nil {
		t.Errorf("without a login: %v, %v", known, err)
	}
	login(t, right, "alice")
	if known, err := right.CheckSecret(t.Context()); !known || err != nil {
		t.Errorf("%v, %v", known, err)
	}
	for _, m := range []*session.Manager[cart]{wrong, none} {
		if known, err := m.CheckSecret(t.Context()); !known || !errors.Is(err, session.ErrOtherSecret) {
			t.Errorf("%v, %v", known, err)
		}
	}
	if known, err := newNamed(t, r, "other", options{}).CheckSecret(t.Context()); known || err != nil {
		t.Errorf("of another name: %v, %v", known, err)
	}
	key := t.Name() + ":m1:session:web:secret"
	ttl, err := r.Do(t.Context(), r.B().Pttl().Key(key).Build()).Message()
	must(t, err)
	if n, _ := ttl.AsInt64(); n <= 0 {
		t.Errorf("the fingerprint stays for %d ms", n)
	}
}

// After a change of the Secret, requests with old cookies took each turn to compare,
// and no login left the new fingerprint: CheckSecret called the right Secret wrong.
func TestCheckSecret_KnowsTheNewSecretFromItsFirstLoginOn(t *testing.T) {
	r := open(t)
	token := login(t, newManager(t, r, options{Secret: key(1)}), "alice").Token()
	after := newManager(t, r, options{Secret: key(2)})
	alive(t, after, token)
	login(t, after, "alice")
	if known, err := after.CheckSecret(t.Context()); !known || err != nil {
		t.Errorf("%v, %v", known, err)
	}
}
