package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/madcrow-go/madcrow"
)

// The sessions of the Python original: session:{id} is one JSON object, stored
// with SETEX. There is no version, so the last writer wins.

// maxOriginal is what the original's routes take.
const maxOriginal = 255

func validOriginal(token string) bool {
	return token != "" && len(token) <= maxOriginal && strings.IndexFunc(token, func(c rune) bool { return c < '!' || c > '~' }) < 0
}

func (m *Manager[T]) fetchOriginal(ctx context.Context, id ident) (rec record, found bool, err error) {
	key := m.prefix + id.token
	res, err := m.r.DoMulti(ctx, func(b madcrow.Builder) []madcrow.Command {
		return []madcrow.Command{b.Get().Key(key).Build(), b.Pttl().Key(key).Build()}
	})
	if err != nil || res[0].Message.IsNil() {
		return rec, false, err
	}
	if rec.data, err = res[0].Message.ToString(); err != nil {
		return rec, false, err
	}
	rec.left, rec.ends = m.opt.Idle, m.opt.Idle
	rec.original = true
	return rec, true, nil
}

func (s *Session[T]) createOriginal(ctx context.Context, c content[T]) error {
	if s.carrier != nil {
		if err := s.carrier.set("", 0); err != nil {
			return &Error{Op: "create", Err: err}
		}
	}
	token := rand.Text()
	s.id, s.has = ident{token: token, member: token}, true
	data, err := s.m.encode(c, "")
	if err != nil {
		return err
	}
	if err := s.storeOriginal(ctx, data, c); err != nil {
		s.has = false
		return err
	}
	if s.carrier != nil {
		return wrap("create", s.carrier.set(token, 0))
	}
	return nil
}

func (s *Session[T]) storeOriginal(ctx context.Context, data string, c content[T]) error {
	key := s.m.prefix + s.id.token
	_, err := s.m.r.Do(ctx, func(b madcrow.Builder) madcrow.Command {
		return b.Setex().Key(key).Seconds(int64(s.m.opt.Idle.Seconds())).Value(data).Build()
	})
	if err != nil {
		s.loaded = false
		return &Error{Op: "commit", Err: err}
	}
	s.loaded, s.exists, s.now = true, true, c
	s.rec = record{data: data, left: s.m.opt.Idle, ends: s.m.opt.Idle, original: true}
	return nil
}

func (s *Session[T]) rotateOriginal(ctx context.Context) error {
	old := s.id
	if err := s.createOriginal(ctx, s.now); err != nil {
		return err
	}
	return wrap("rotate", s.m.endOriginal(ctx, old))
}

func (m *Manager[T]) endOriginal(ctx context.Context, id ident) error {
	m.copies.drop(id.member)
	key := m.prefix + id.token
	_, err := m.r.Do(ctx, func(b madcrow.Builder) madcrow.Command { return b.Del().Key(key).Build() })
	return err
}

// encodeOriginal writes the data alone, as the original does: an object.
func encodeOriginal[T any](c content[T]) (string, error) {
	plain, err := json.Marshal(c.Data)
	if err != nil || len(plain) == 0 || plain[0] != '{' {
		return "", &ValidationError{Field: "data", Message: fmt.Sprintf("must become a JSON object: %T", c.Data)}
	}
	return string(plain), nil
}
