package cli

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// payload is text of others, as JSON: what is no UTF-8 would be changed in a
// string.
type payload struct {
	Text   *string `json:"message,omitempty"`
	Base64 []byte  `json:"message_base64,omitempty"`
}

func payloadOf(s string) payload {
	if utf8.ValidString(s) {
		return payload{Text: &s}
	}
	return payload{Base64: []byte(s)}
}

// oneLine shows text of others on a terminal: as one line, and without what
// would steer the terminal.
func oneLine(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, steers) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + hex2(s[0]))
		case steers(r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

func hex2(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

// cutText bounds text to some bytes, 0 for all of it, and splits no character.
func cutText(s string, most int) (text string, cut bool) {
	if most == 0 || len(s) <= most {
		return s, false
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most], true
}
