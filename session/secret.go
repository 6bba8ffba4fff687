package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/clock"
)

const (
	// secretEvery is how often a process compares its Secret.
	secretEvery = time.Minute
	// secretWithin bounds what a comparison adds to a login.
	secretWithin = 100 * time.Millisecond
)

// secretWatch notices that sessions of one name are made with different Secrets: by a
// deploy that changes it, which ends the sessions of all users, or by two deployments
// that disagree. The last login leaves the fingerprint of its Secret in Redis.
type secretWatch struct {
	r         *madcrow.Redis
	log       *slog.Logger
	name, key string
	mine      string        // the fingerprint
	life      time.Duration // of the longest session
	due       atomic.Int64  // when the next comparison is due, by clock.Now
	putDue    atomic.Int64  // and when that of a login is: requests must not take its turn

	mu     sync.Mutex
	since  time.Time // of the first other fingerprint; zero for none
	others int       // comparisons since then that found another one
}

func newSecretWatch(r *madcrow.Redis, name string, secret []byte, life time.Duration, log *slog.Logger) *secretWatch {
	return &secretWatch{
		r: r, log: log, name: name, key: keyPrefix(r, name) + "secret", mine: fingerprint(secret), life: life,
	}
}

// fingerprint identifies a secret, and does not reveal it.
func fingerprint(secret []byte) string {
	mac := hmac.New(sha256.New, secretOr(secret))
	mac.Write([]byte("madcrow session secret fingerprint"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// stored returns the fingerprint in Redis, "" for none, and replaces it if put is set.
func (w *secretWatch) stored(ctx context.Context, put bool) (string, error) {
	cmds := []madcrow.Command{w.r.B().Get().Key(w.key).Build()}
	if put {
		cmds = append(cmds, w.r.B().Set().Key(w.key).Value(w.mine).PxMilliseconds(w.life.Milliseconds()).Build())
	}
	res, err := w.r.DoMulti(ctx, cmds...)
	if err != nil || res[0].IsNil() {
		return "", err
	}
	text, _, err := res[0].Text()
	return text, err
}

// compare compares the Secrets, at most once a minute. A login puts its own, at most
// once a minute too. Where Redis fails nothing is said: the caller's own call says it.
func (w *secretWatch) compare(ctx context.Context, put bool) {
	if w == nil {
		return
	}
	turn := &w.due
	if put {
		turn = &w.putDue
	}
	now, due := clock.Now(), turn.Load()
	next := now + int64(secretEvery)
	if now < due || !turn.CompareAndSwap(due, next) {
		return
	}
	if put { // it compares, too
		w.due.Store(next)
	}
	ctx, cancel := context.WithTimeout(ctx, secretWithin)
	defer cancel()
	found, err := w.stored(ctx, put)
	if err != nil {
		return
	}
	w.note(ctx, found == "" || found == w.mine)
}

// note logs the first difference, and the end of it.
func (w *secretWatch) note(ctx context.Context, same bool) {
	w.mu.Lock()
	since, others := w.since, w.others
	switch {
	case same:
		w.since, w.others = time.Time{}, 0
	default:
		if w.others++; w.since.IsZero() {
			w.since = time.Now()
		}
	}
	w.mu.Unlock()
	switch {
	case !same && since.IsZero():
		w.log.WarnContext(ctx, "the last login of these sessions was made with another Secret: users who logged in with it are logged out here, and no revocation here ends their sessions; after a deliberate change that is expected, otherwise give all processes the same Options.Secret", "name", w.name)
	case same && !since.IsZero():
		w.log.InfoContext(ctx, "the last login of these sessions was made with this Secret again", "name", w.name, "after", time.Since(since).Round(time.Second), "differences", others)
	}
}

// CheckSecret compares Options.Secret with the one of the last login under the
// manager's name, in any process. It returns [ErrOtherSecret] if they differ: this
// manager does not find the sessions of users then, and its List, Revoke and
// RevokeAll find none. known is false if Redis knows of no login in the longest
// lifetime of a session.
//
// Call it where a wrong Secret must be noticed: at the start of a program, or in a
// tool, before "no sessions" is believed. It takes one round trip and changes
// nothing. Other errors are those of Redis, and [ErrFastAPILayout].
func (m *Manager[T]) CheckSecret(ctx context.Context) (known bool, err error) {
	const op = "check secret"
	if err := m.store.extended(); err != nil {
		return false, m.wrap(op, err)
	}
	found, err := m.secret.stored(ctx, false)
	if err == nil && found != "" && found != m.secret.mine {
		err = ErrOtherSecret
	}
	return found != "", m.wrap(op, err)
}
