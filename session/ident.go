package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"
	"sync"
)

// The cookie holds an identifier: a handle of the user, 10 bytes (random before a
// login), and 32 random bytes, in base64url. The first two bytes of the handle
// are the slot tag.
const (
	tagSize    = 2
	handleSize = 10
	identSize  = handleSize + 32
)

type ident struct {
	token  string // in the cookie
	member string // SHA-256 of the identifier, in Redis
	handle [handleSize]byte
}

// newIdent makes an identifier under a handle. Its member, which is the public Handle,
// does not begin with '-': on a command line it would be an option.
func newIdent(handle [handleSize]byte) ident {
	var raw [identSize]byte
	copy(raw[:], handle[:])
	for {
		_, _ = rand.Read(raw[handleSize:]) // never fails: crypto/rand ends the program instead
		if id := identFromBytes(raw); id.member[0] != '-' {
			return id
		}
	}
}

// Lengths in base64url.
const (
	tokenLength  = (identSize*8 + 5) / 6
	memberLength = (sha256.Size*8 + 5) / 6
)

// identFromBytes returns the identifier of raw. Token and member share one allocation.
func identFromBytes(raw [identSize]byte) ident {
	sum := sha256.Sum256(raw[:])
	var text [tokenLength + memberLength]byte
	base64.RawURLEncoding.Encode(text[:], raw[:])
	base64.RawURLEncoding.Encode(text[tokenLength:], sum[:])
	both := string(text[:])
	return ident{token: both[:tokenLength], member: both[tokenLength:], handle: [handleSize]byte(raw[:handleSize])}
}

// strict accepts exactly one text for the same bytes.
var strict = base64.RawURLEncoding.Strict()

// parseIdent decodes a cookie; false for a value that this package cannot have made.
func parseIdent(token string) (id ident, ok bool) {
	var raw [identSize]byte
	var text [tokenLength]byte
	if copy(text[:], token) != len(text) || len(token) != len(text) {
		return id, false
	}
	if n, err := strict.Decode(raw[:], text[:]); err != nil || n != identSize {
		return id, false
	}
	// The text is encoded again instead of kept, because some servers reuse the
	// memory of a request. Strict decoding guarantees that it is the same text.
	return identFromBytes(raw), true
}

func randomHandle() (h [handleSize]byte) {
	_, _ = rand.Read(h[:]) // as above
	return h
}

// handles computes the handles of users by a keyed hash. Hashes are pooled: each
// load of a user's session needs one.
type handles struct{ pool sync.Pool }

type handleHash struct {
	mac hash.Hash
	in  []byte
	sum []byte
}

func newHandles(secret []byte) *handles {
	secret = secretOr(secret)
	return &handles{sync.Pool{New: func() any { return &handleHash{mac: hmac.New(sha256.New, secret)} }}}
}

// secretOr returns the key of a hash, which is public without a secret.
func secretOr(secret []byte) []byte {
	if len(secret) == 0 {
		return []byte("madcrow session handle")
	}
	return secret
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

// sessionKeys are the keys of a session, all in one slot.
type sessionKeys struct{ session, epoch, index string }

func (k sessionKeys) list() []string { return []string{k.session, k.epoch, k.index} }

// validMember reports whether member has the form of a session's hash.
func validMember(member string) bool {
	if len(member) != memberLength {
		return false
	}
	_, err := strict.DecodeString(member)
	return err == nil
}

func keysOf(prefix string, handle [handleSize]byte, member string) sessionKeys {
	var tag [2 * tagSize]byte
	hex.Encode(tag[:], handle[:tagSize])
	var user [2 * (handleSize - tagSize)]byte
	hex.Encode(user[:], handle[tagSize:])
	// All three keys share one allocation: every request computes them.
	slot := len(prefix) + len(tag) + 3
	ofUser := slot + 2 + len(user)
	var text strings.Builder
	text.Grow(slot + 2 + len(member) + 2*ofUser)
	for _, kind := range [...]string{"s:", "e:", "i:"} {
		text.WriteString(prefix)
		text.WriteByte('{')
		text.Write(tag[:])
		text.WriteString("}:")
		text.WriteString(kind)
		if kind == "s:" {
			text.WriteString(member)
		} else {
			text.Write(user[:])
		}
	}
	all := text.String()
	first, second := slot+2+len(member), slot+2+len(member)+ofUser
	return sessionKeys{all[:first], all[first:second], all[second:]}
}
