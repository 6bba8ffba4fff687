package codec

import "errors"

// errFormat is a value that was not written by this package, or not in whole.
var errFormat = errors.New("not a value of this codec")

// maxDepth is how deep arrays and maps may stand in one another, as in
// encoding/json.
const maxDepth = 10000

// span is where the content of an extension stands.
type span struct{ from, to int }

// wellFormed says whether data is MessagePack: values that are whole, no deeper
// than maxDepth, in which no length promises more than there is. There may be
// several: a type's own EncodeMsgpack may write more than one. It appends where
// contents of extensions stand.
func wellFormed(data []byte, opaque []span) ([]span, error) {
	// What is still to come in each array or map around; on the goroutine's
	// stack in all but strange cases.
	open := make([]uint64, 0, 32)
	var left, owed uint64 // in the innermost, and in all of them
	at := 0
	for at < len(data) || at == 0 {
		for left == 0 && len(open) > 0 {
			open, left = open[:len(open)-1], open[len(open)-1]
		}
		if left == 0 {
			left, owed = 1, 1 // another value
		}
		size, items := item(data[at:])
		if size > uint64(len(data)-at) {
			return opaque, errFormat
		}
		if head := extension(data[at]); head > 0 {
			opaque = append(opaque, span{at + head, at + int(size)})
		}
		at += int(size)
		left, owed = left-1, owed-1+items
		if owed > uint64(len(data)-at) { // each takes a byte at least
			return opaque, errFormat
		}
		if items > 0 {
			if len(open) == maxDepth {
				return opaque, errFormat
			}
			open, left = append(open, left), items
		}
	}
	return opaque, nil // at the end of data nothing is owed
}

// extension is how long the head of an extension is, 0 for all other values.
func extension(c byte) int {
	switch {
	case c >= 0xc7 && c <= 0xc9:
		return 2 + 1<<(c-0xc7)
	case c >= 0xd4 && c <= 0xd8:
		return 2
	}
	return 0
}

// tooMuch is a size that no value has.
const tooMuch = 1 << 40

// item reads the head of a value: how many bytes it takes, and how many values
// follow that belong to it.
func item(data []byte) (size, items uint64) {
	if len(data) == 0 {
		return tooMuch, 0
	}
	switch c := data[0]; {
	case c < 0x80, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // small numbers, nil, false, true
		return 1, 0
	case c < 0x90: // short map
		return 1, 2 * uint64(c&0x0f)
	case c < 0xa0: // short array
		return 1, uint64(c & 0x0f)
	case c < 0xc0: // short text
		return 1 + uint64(c&0x1f), 0
	case c >= 0xc4 && c <= 0xc6: // binary
		return sized(data, 1<<(c-0xc4)), 0
	case c >= 0xc7 && c <= 0xc9: // extension, with a byte for its type
		return 1 + sized(data, 1<<(c-0xc7)), 0
	case c == 0xca, c == 0xcb: // floats
		return 1 + 4<<(c-0xca), 0
	case c >= 0xcc && c <= 0xd3: // numbers without a sign, then with one
		return 1 + 1<<((c-0xcc)%4), 0
	case c >= 0xd4 && c <= 0xd8: // extensions of 1, 2, 4, 8 and 16 bytes
		return 2 + 1<<(c-0xd4), 0
	case c >= 0xd9 && c <= 0xdb: // text
		return sized(data, 1<<(c-0xd9)), 0
	case c == 0xdc, c == 0xdd: // array
		width := 2 << (c - 0xdc)
		return 1 + uint64(width), number(data, width)
	case c == 0xde, c == 0xdf: // map
		width := 2 << (c - 0xde)
		return 1 + uint64(width), 2 * number(data, width)
	}
	return tooMuch, 0
}

// sized is the size of a value that tells it in the width bytes after the first.
func sized(data []byte, width int) uint64 { return 1 + uint64(width) + number(data, width) }

// number reads width bytes after the first.
func number(data []byte, width int) (n uint64) {
	if len(data) <= width {
		return tooMuch
	}
	for _, c := range data[1 : 1+width] {
		n = n<<8 | uint64(c)
	}
	return n
}
