// Package scriptsha names Lua scripts as Redis does, by their SHA-1. It is a
// name in a protocol and protects nothing, so it is not a matter of crypto/sha1,
// which ends a program that runs with GODEBUG=fips140=only.
package scriptsha

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// Name returns the name that EVALSHA takes for a script.
func Name(source string) string {
	sum := sum([]byte(source))
	return hex.EncodeToString(sum[:])
}

// sum is SHA-1 (FIPS 180-4, section 6.1).
func sum(text []byte) (digest [20]byte) {
	size := uint64(len(text)) * 8
	text = append(text[:len(text):len(text)], 0x80)
	for len(text)%64 != 56 {
		text = append(text, 0)
	}
	text = binary.BigEndian.AppendUint64(text, size)

	h := [5]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}
	var w [80]uint32
	for ; len(text) > 0; text = text[64:] {
		for i := range 16 {
			w[i] = binary.BigEndian.Uint32(text[4*i:])
		}
		for i := 16; i < 80; i++ {
			w[i] = bits.RotateLeft32(w[i-3]^w[i-8]^w[i-14]^w[i-16], 1)
		}
		a, b, c, d, e := h[0], h[1], h[2], h[3], h[4]
		for i := range w {
			var f, k uint32
			switch i / 20 {
			case 0:
				f, k = b&c|^b&d, 0x5a827999
			case 1:
				f, k = b^c^d, 0x6ed9eba1
			case 2:
				f, k = b&c|b&d|c&d, 0x8f1bbcdc
			case 3:
				f, k = b^c^d, 0xca62c1d6
			}
			a, b, c, d, e = bits.RotateLeft32(a, 5)+f+e+k+w[i], a, bits.RotateLeft32(b, 30), c, d
		}
		for i, v := range [5]uint32{a, b, c, d, e} {
			h[i] += v
		}
	}
	for i, v := range h {
		binary.BigEndian.PutUint32(digest[4*i:], v)
	}
	return digest
}
