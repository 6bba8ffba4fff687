package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
)

// The sessions of FastAPI Madcrow: session:{id} is one JSON object, stored
// with SETEX. There is no version, so the last writer wins.

// maxLegacyID is the longest id that FastAPI Madcrow's routes accept.
const maxLegacyID = 255

func validLegacyID(token string) bool {
	return token != "" && len(token) <= maxLegacyID && strings.IndexFunc(token, func(c rune) bool { return c < '!' || c > '~' }) < 0
}

func legacyIdent(token string) ident {
	sum := sha256.Sum256([]byte(token))
	return ident{token: token, member: base64.RawURLEncoding.EncodeToString(sum[:])}
}

func (m *Manager[T]) fetchLegacy(ctx context.Context, id ident) (rec record, why string, err error) {
	key := m.prefix + id.token
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{b.Get().Key(key).Build(), b.Pttl().Key(key).Build()}
	})
	if err != nil {
		return rec, "", err
	}
	if res[0].Message.IsNil() {
		return rec, "missing", nil
	}
	if rec.data, err = res[0].Message.ToString(); err != nil {
		return rec, "", err
	}
	left, err := res[1].Message.AsInt64()
	if rec.left = time.Duration(left) * time.Millisecond; left < 0 {
		rec.left = m.opt.Idle
	}
	rec.ends, rec.legacy = rec.left, true
	return rec, "", err
}

func (s *Session[T]) createLegacy(ctx context.Context, c content[T]) error {
	id := legacyIdent(rand.Text())
	rec, _, err := s.m.setLegacy(ctx, id, c, false)
	if err != nil {
		return err
	}
	s.setLoaded(id, rec, c)
	s.endRivals(ctx)
	return wrap("create", s.send())
}

// storeLegacy writes a session that was there. One that has ended meanwhile
// is not made again.
func (s *Session[T]) storeLegacy(ctx context.Context, c content[T]) error {
	rec, done, err := s.m.setLegacy(ctx, s.id, c, true)
	if err != nil {
		if !invalid(err) {
			s.loaded = false // it may have been stored
		}
		return err
	}
	if !done {
		return s.refused("commit", "missing")
	}
	s.rec, s.now = rec, c
	return nil
}

func (m *Manager[T]) setLegacy(ctx context.Context, id ident, c content[T], there bool) (rec record, done bool, err error) {
	data, err := m.encode(c, "", id)
	if err != nil {
		return rec, false, err
	}
	key, seconds := m.prefix+id.token, int64(m.opt.Idle.Seconds())
	msg, err := m.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		if there {
			return b.Set().Key(key).Value(data).Xx().ExSeconds(seconds).Build()
		}
		return b.Setex().Key(key).Seconds(seconds).Value(data).Build()
	})
	if err != nil {
		return rec, false, &Error{Op: "commit", Err: err}
	}
	return record{data: data, left: m.opt.Idle, ends: m.opt.Idle, legacy: true}, !msg.IsNil(), nil
}

func (s *Session[T]) rotateLegacy(ctx context.Context) error {
	old := s.id
	if err := s.createLegacy(ctx, s.now); err != nil {
		return err
	}
	err := s.m.end(ctx, old)
	if err != nil {
		s.olds = append(s.olds, old)
	}
	return wrap("rotate", err)
}

func (m *Manager[T]) endLegacy(ctx context.Context, id ident) error {
	key := m.prefix + id.token
	_, err := m.r.Do(ctx, func(b madcrow.Builder) madcrow.Command { return b.Del().Key(key).Build() })
	return err
}

// encodeLegacy writes the data alone, as FastAPI Madcrow does: an object.
func encodeLegacy[T any](c content[T]) (string, error) {
	plain, err := json.Marshal(c.Data)
	if err != nil || len(plain) == 0 || plain[0] != '{' {
		return "", &ValidationError{Field: "data", Message: fmt.Sprintf("must become a JSON object: %T", c.Data)}
	}
	return string(plain), nil
}
