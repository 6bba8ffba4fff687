package pubsub

import (
	"crypto/sha1" //nolint:gosec // see secret.verifies
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// parseLive reads what lua/publish.lua sends.
func parseLive(text string) (m historyMessage, ok bool) {
	rest, ok := strings.CutPrefix(text, "r1 ")
	if !ok {
		return m, false
	}
	line, payload, ok := strings.Cut(rest, "\n")
	if !ok || len(line) > maxEnvelope {
		return m, false
	}
	parts := strings.SplitN(line, " ", 6)
	if len(parts) != 5 || parts[0] == "" || parts[2] == "" {
		return m, false
	}
	n, ok := parseNumber(parts[1])
	head := text[:len(text)-len(payload)-len("\n")-len(parts[4])-len(" ")]
	return historyMessage{at: Position{parts[0], n, parts[2]}, previous: parts[3], payload: payload, head: head, seal: parts[4]}, ok
}

// sealSize is the length of a seal, in hexadecimal digits.
const sealSize = 2 * sha1.Size

// secret makes the seals of a history. It is stored beside the history, so that a
// client that may not read there cannot make a seal.
type secret struct{ epoch, text string }

// verifies says whether a message was sent by lua/publish.lua of this history.
func (s secret) verifies(m historyMessage, digest *[sha256.Size]byte) bool {
	if s.text == "" || m.at.Epoch != s.epoch || len(m.seal) != sealSize || !mayHash {
		return false
	}
	var room [512]byte
	text := append(append(append(room[:0], 'i'), s.text...), m.head...)
	text = hex.AppendEncode(append(text, ' '), digest[:])
	inner := sha1.Sum(text) //nolint:gosec // the hash that Redis has; in this use it is sound
	text = append(append(room[:0], 'o'), s.text...)
	outer := sha1.Sum(hex.AppendEncode(text, inner[:])) //nolint:gosec // as above
	text = hex.AppendEncode(room[:0], outer[:])
	differ := byte(0)
	for i, c := range text {
		differ |= c ^ m.seal[i]
	}
	return differ == 0
}

// mayHash is false where SHA-1 is forbidden (GODEBUG=fips140=only). Then every
// message is read from the history.
var mayHash = func() (may bool) {
	defer func() { may = recover() == nil }()
	sha1.Sum(nil) //nolint:gosec // as above
	return true
}()

// digest is the hash of the payload, made once for all subscribers.
func (m *message) digest(payload string) *[sha256.Size]byte {
	if sum := m.sum.Load(); sum != nil {
		return sum
	}
	sum := sha256.Sum256([]byte(payload))
	m.sum.Store(&sum)
	return &sum
}
