package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
)

// legacyStore is the store of Options.FastAPILayout: session:{id} is one JSON
// object, stored with SETEX. The layout has no version, so the last writer wins,
// and no users.
type legacyStore struct {
	r      *madcrow.Redis
	prefix string
	idle   time.Duration
}

func newLegacyStore(r *madcrow.Redis, idle time.Duration) *legacyStore {
	return &legacyStore{r: r, prefix: r.Config().KeyPrefix + "session:", idle: idle}
}

// maxLegacyID is the longest id that FastAPI Madcrow's routes accept.
const maxLegacyID = 255

func (s *legacyStore) extended() error { return ErrFastAPILayout }

func (s *legacyStore) parseID(token string) (ident, bool) {
	if token == "" || len(token) > maxLegacyID || strings.IndexFunc(token, func(c rune) bool { return c < '!' || c > '~' }) >= 0 {
		return ident{}, false
	}
	return legacyID(token), true
}

func legacyID(token string) ident {
	sum := sha256.Sum256([]byte(token))
	return ident{token: token, member: base64.RawURLEncoding.EncodeToString(sum[:])}
}

func (s *legacyStore) newID(string) ident { return legacyID(rand.Text()) }

func (s *legacyStore) nextID(ident) ident { return legacyID(rand.Text()) }

func (s *legacyStore) handle(ident) string { return "" }

func (s *legacyStore) load(ctx context.Context, id ident) (rep reply, err error) {
	key := s.prefix + id.token
	res, err := s.r.DoMulti(ctx, s.r.B().Get().Key(key).Build(), s.r.B().Pttl().Key(key).Build())
	if err != nil {
		return rep, err
	}
	if res[0].IsNil() {
		return reply{status: statusNone, reason: reasonMissing}, nil
	}
	rec := record{}
	if rec.data, _, err = res[0].Text(); err != nil {
		return rep, err
	}
	left, _, err := res[1].Int()
	if rec.left = time.Duration(left) * time.Millisecond; left < 0 {
		rec.left = s.idle
	}
	rec.ends = rec.left
	return reply{status: statusRecord, rec: rec}, err
}

func (s *legacyStore) classify(ctx context.Context, ids []ident) (valid, replaced []ident, err error) {
	var cmds []madcrow.Command
	for _, id := range ids {
		cmds = append(cmds, s.r.B().Get().Key(s.prefix+id.token).Build())
	}
	res, err := s.r.DoMulti(ctx, cmds...)
	for i := range res {
		if err == nil && !res[i].IsNil() {
			valid = append(valid, ids[i])
		}
	}
	return valid, nil, err
}

func (s *legacyStore) create(ctx context.Context, n newSession) ([]string, error) {
	key := s.prefix + n.id.token
	err := s.r.Do(ctx, s.r.B().Setex().Key(key).Seconds(int64(s.idle.Seconds())).Value(n.data).Build()).Err()
	return nil, err
}

// commit overwrites any version.
func (s *legacyStore) commit(ctx context.Context, id ident, _, data string) (reply, error) {
	key := s.prefix + id.token
	msg, err := s.r.Do(ctx, s.r.B().Set().Key(key).Value(data).Xx().ExSeconds(int64(s.idle.Seconds())).Build()).Message()
	switch {
	case err != nil:
		return reply{}, err
	case msg.IsNil():
		return reply{status: statusNone, reason: reasonMissing}, nil
	}
	return reply{status: statusDone, rec: record{data: data}}, nil
}

// rotate only writes the session under to: it cannot move one. The session under
// the old identifier is the client's until it has its cookie.
func (s *legacyStore) rotate(ctx context.Context, _, to ident, _, data string) (reply, error) {
	if _, err := s.create(ctx, newSession{id: to, data: data}); err != nil {
		return reply{}, err
	}
	return reply{status: statusDone, ends: s.idle, copied: true}, nil
}

func (s *legacyStore) destroy(ctx context.Context, id ident) (reply, error) {
	key := s.prefix + id.token
	err := s.r.Do(ctx, s.r.B().Del().Key(key).Build()).Err()
	return reply{status: statusDone}, err
}

func (s *legacyStore) inspect(ctx context.Context, user, handle string) (d Details, data string, found bool, err error) {
	if user != "" {
		return d, "", false, ErrFastAPILayout
	}
	id, ok := s.parseID(handle)
	if !ok {
		return d, "", false, nil
	}
	rep, err := s.load(ctx, id)
	if err != nil || rep.status == statusNone {
		return d, "", false, err
	}
	d.Handle, d.Left = handle, rep.rec.left
	return d, rep.rec.data, true, nil
}

func (s *legacyStore) supersede(context.Context, ident, string) (reply, error) {
	return reply{}, ErrFastAPILayout
}

func (s *legacyStore) list(context.Context, string) ([]Info, error) { return nil, ErrFastAPILayout }

func (s *legacyStore) revoke(context.Context, string, string) (reply, error) {
	return reply{}, ErrFastAPILayout
}

func (s *legacyStore) revokeAll(context.Context, string) (reply, error) {
	return reply{}, ErrFastAPILayout
}

func (s *legacyStore) revokeOthers(context.Context, ident) (reply, error) {
	return reply{}, ErrFastAPILayout
}
