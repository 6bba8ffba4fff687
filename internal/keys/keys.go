// Package keys puts text of users into Redis keys, where it can neither break a
// cluster's slot nor meet another text.
package keys

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// maxPlain is the length up to which harmless text stands in a key as it is.
const maxPlain = 128

// Hashed begins the form of what is not harmless. It is not harmless itself,
// so the two forms never meet.
const Hashed = "~"

// Plain says whether text stands in its key as it is: letters, digits and a few
// signs, none of which means anything in a hash tag.
func Plain(s string) bool {
	if s == "" || len(s) > maxPlain {
		return false
	}
	for i := range len(s) {
		if !harmless[s[i]] {
			return false
		}
	}
	return true
}

var harmless = func() (set [256]bool) {
	for c := range 256 {
		set[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("-_.:@/+=,|", byte(c)) >= 0
	}
	return set
}()

// Form is what stands in the key for a text: itself, or its hash.
func Form(s string) string {
	if Plain(s) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return Hashed + base64.RawURLEncoding.EncodeToString(sum[:])
}
