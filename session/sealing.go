package session

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow/internal/exactjson"
)

// content is what the data of a session holds.
type content[T any] struct {
	Data  T       `json:"d"`
	Flash []Flash `json:"f,omitempty"`
}

// encode makes the data of a session.
func (m *Manager[T]) encode(c content[T], user string, id ident) (string, error) {
	if m.opt.FastAPILayout {
		return encodeLegacy(c)
	}
	plain, err := json.Marshal(c)
	if err != nil {
		return "", &ValidationError{Field: "data", Message: fmt.Sprintf("cannot be stored as JSON: %T", c.Data)}
	}
	return string(m.seal.close(plain, bound(user, id))), nil
}

func (m *Manager[T]) decode(rec record, id ident) (c content[T], err error) {
	if rec.legacy {
		err = exactjson.Unmarshal([]byte(rec.data), &c.Data)
		return c, err
	}
	plain, err := m.seal.open(rec.data, bound(rec.user, id))
	if err == nil {
		err = exactjson.Unmarshal(plain, &c)
	}
	if err != nil {
		return content[T]{}, err
	}
	return c, nil
}

// reseal is the same data for another identifier.
func (m *Manager[T]) reseal(rec record, from, to ident) (string, error) {
	plain, err := m.seal.open(rec.data, bound(rec.user, from))
	if err != nil {
		return "", err
	}
	return string(m.seal.close(plain, bound(rec.user, to))), nil
}

// binding is what sealed data is bound to: all members have one length.
type binding struct{ member, user string }

func bound(user string, id ident) binding { return binding{id.member, user} }

func (b binding) bytes() []byte { return []byte(b.member + b.user) }

func (m *Manager[T]) undecodable(ctx context.Context, err error) {
	m.event("undecodable")
	if m.opt.OnUndecodable != nil {
		m.opt.OnUndecodable(ctx, err)
		return
	}
	if m.unread.First(err) { // it may be so for all of them
		m.log.WarnContext(ctx, "a session cannot be read and is taken for none", "reason", err)
	}
}

// seal encrypts at rest: the first key encrypts, all decrypt. What is sealed is
// bound to its session and user, so that it cannot be put in another place.
type seal struct{ keys []cipher.AEAD }

func newSeal(keys [][]byte) (seal, error) {
	var s seal
	for _, k := range keys {
		block, err := aes.NewCipher(k)
		if err != nil {
			return s, fmt.Errorf("session: %w", err)
		}
		// Each value gets a nonce of its own, which stands before it.
		gcm, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return s, fmt.Errorf("session: %w", err)
		}
		s.keys = append(s.keys, gcm)
	}
	return s, nil
}

// The first byte of what is stored.
const (
	plainData  = '0'
	sealedData = '1'
)

func (s seal) close(plain []byte, to binding) []byte {
	if len(s.keys) == 0 {
		return append([]byte{plainData}, plain...)
	}
	gcm := s.keys[0]
	out := make([]byte, 1, 1+len(plain)+gcm.Overhead())
	out[0] = sealedData
	return gcm.Seal(out, nil, plain, to.bytes())
}

var errSealed = errors.New("the data cannot be decrypted with any of the keys")

func (s seal) open(stored string, to binding) ([]byte, error) {
	switch {
	case stored == "":
		return nil, errSealed
	case stored[0] == plainData && len(s.keys) == 0:
		return []byte(stored[1:]), nil
	case stored[0] != sealedData:
		return nil, errSealed
	}
	bound := to.bytes()
	for _, gcm := range s.keys {
		if plain, err := gcm.Open(nil, nil, []byte(stored[1:]), bound); err == nil {
			return plain, nil
		}
	}
	return nil, errSealed
}
