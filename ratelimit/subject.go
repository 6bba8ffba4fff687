package ratelimit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// maxPlain is the length up to which a harmless subject stands in its key
// unencoded.
const maxPlain = 96

// subjectKey is the key of a subject: unencoded if it is harmless, hashed
// otherwise. '~' is not harmless, so the two never meet.
func subjectKey(prefix, subject string) string {
	if isPlain(subject) {
		return prefix + subject + "}"
	}
	sum := sha256.Sum256([]byte(subject))
	return prefix + "~" + base64.RawURLEncoding.EncodeToString(sum[:]) + "}"
}

func isPlain(s string) bool {
	if s == "" || len(s) > maxPlain {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.', c == ':', c == '@', c == '/', c == '+', c == '=', c == ',':
		default:
			return false
		}
	}
	return true
}

// newNonce is 72 random bits, for the members of a sorted set.
func newNonce() string {
	var raw [9]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(raw[:])
}
