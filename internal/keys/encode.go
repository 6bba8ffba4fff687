// Package keys puts text of users into Redis keys: it can neither change the
// slot in a cluster nor meet another text, and it has a bounded length. It also
// checks names, and knows the reserved beginnings of keys and channels.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// Hashed begins every encoded text that is a hash. No text that stands
// unencoded begins with it, so the two never meet.
const Hashed = "~"

// Encoding says which texts stand in a key unencoded: those of at most so many
// bytes of a set. All others stand as a hash. Stored keys depend on it, so an
// Encoding never changes.
type Encoding struct {
	minBytes, maxBytes int
	plain              [256]bool
}

var (
	// Default is for the keys of caches, topics and streams.
	Default = newEncoding(1, 128, alphanumeric+"-_.:@/+=,|")
	// Subject is for the subjects of limits. It leaves out '|' and is shorter.
	Subject = newEncoding(1, 96, alphanumeric+"-_.:@/+=,")
	// Login is for the identifiers of logins. The FastAPI layout keeps them as
	// they are, so all bytes but braces are allowed.
	Login = loginEncoding()
)

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func newEncoding(minBytes, maxBytes int, plain string) *Encoding {
	e := &Encoding{minBytes: minBytes, maxBytes: maxBytes}
	for i := range len(plain) {
		e.plain[plain[i]] = true
	}
	return e
}

func loginEncoding() *Encoding {
	e := newEncoding(0, 255, "")
	for c := range e.plain {
		e.plain[c] = c != '{' && c != '}'
	}
	return e
}

// MaxPlain is the length of the longest text that stands unencoded.
func (e *Encoding) MaxPlain() int { return e.maxBytes }

// IsPlain reports whether text stands in its key unencoded.
func (e *Encoding) IsPlain(text string) bool {
	if len(text) < e.minBytes || len(text) > e.maxBytes {
		return false
	}
	for i := range len(text) {
		if !e.plain[text[i]] {
			return false
		}
	}
	return text == "" || text[0] != Hashed[0]
}

// Encode returns the text as it stands in a key: unencoded, or its hash.
func (e *Encoding) Encode(text string) string {
	if e.IsPlain(text) {
		return text
	}
	return Hashed + Digest(text)
}

// Encode is Default.Encode.
func Encode(text string) string { return Default.Encode(text) }

// Digest is the SHA-256 of a text in 43 characters, all of them plain.
func Digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Nonce returns 60 random bits in 12 characters. Each member of a sorted set
// carries one: all of [rand.Text] would cost a third more memory there.
func Nonce() string { return rand.Text()[:12] }

// maxName bounds the name of a cache, limit or session, in bytes.
const maxName = 64

// NameRule says what [ValidName] accepts, for the errors of constructors.
var NameRule = fmt.Sprintf("must be 1 to %d letters, digits, '-', '_' or '.'", maxName)

// ValidName reports whether a name is safe in a key, a header and a log.
func ValidName(name string) bool {
	return name != "" && len(name) <= maxName && strings.Trim(name, alphanumeric+"-_.") == ""
}
