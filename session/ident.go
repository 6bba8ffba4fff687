package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"sync"
)

// An identifier is what the cookie holds: a handle of the user, 10 bytes (at
// random before a login), and 32 random bytes, in base64url. The first two
// bytes of the handle are the slot tag.
const (
	tagSize    = 2
	handleSize = 10
	identSize  = handleSize + 32
)

type ident struct {
	token  string // what the cookie holds
	member string // its hash: what Redis holds
	handle [handleSize]byte
}

// newIdent makes an identifier under a handle.
func newIdent(handle [handleSize]byte) ident {
	var raw [identSize]byte
	copy(raw[:], handle[:])
	_, _ = rand.Read(raw[handleSize:]) // never fails: crypto/rand ends the program instead
	return identOf(raw)
}

func identOf(raw [identSize]byte) ident {
	sum := sha256.Sum256(raw[:])
	return ident{
		token:  base64.RawURLEncoding.EncodeToString(raw[:]),
		member: base64.RawURLEncoding.EncodeToString(sum[:]),
		handle: [handleSize]byte(raw[:handleSize]),
	}
}

// parseIdent reads a cookie; false for what this package never made.
func parseIdent(token string) (id ident, ok bool) {
	var raw [identSize]byte
	if base64.RawURLEncoding.EncodedLen(identSize) != len(token) {
		return id, false
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(token)); err != nil || n != identSize {
		return id, false
	}
	return identOf(raw), true
}

func randomHandle() (h [handleSize]byte) {
	_, _ = rand.Read(h[:]) // as above
	return h
}

// handles makes the handles of users, by a keyed hash. It is asked at each load.
type handles struct{ pool sync.Pool }

type handleHash struct {
	mac hash.Hash
	in  []byte
	sum []byte
}

func newHandles(secret []byte) *handles {
	if len(secret) == 0 {
		secret = []byte("madcrow session handle")
	}
	return &handles{sync.Pool{New: func() any { return &handleHash{mac: hmac.New(sha256.New, secret)} }}}
}

func (h *handles) of(user string) (handle [handleSize]byte) {
	x, _ := h.pool.Get().(*handleHash)
	x.mac.Reset()
	x.in = append(x.in[:0], user...)
	x.mac.Write(x.in)
	x.sum = x.mac.Sum(x.sum[:0])
	copy(handle[:], x.sum)
	h.pool.Put(x)
	return handle
}

// places are the keys of a session, all in one slot.
type places struct{ session, epoch, index string }

func (p places) keys() []string { return []string{p.session, p.epoch, p.index} }

func (m *Manager[T]) placesOf(id ident) places { return placesOf(m.prefix, id.handle, id.member) }

// validMember says whether a text can be the member of a session.
func validMember(member string) bool {
	if len(member) != base64.RawURLEncoding.EncodedLen(sha256.Size) {
		return false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(member)
	return err == nil
}

func placesOf(prefix string, handle [handleSize]byte, member string) places {
	slot := prefix + "{" + hex.EncodeToString(handle[:tagSize]) + "}:"
	user := hex.EncodeToString(handle[tagSize:])
	return places{slot + "s:" + member, slot + "e:" + user, slot + "i:" + user}
}
