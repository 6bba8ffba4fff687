package codec

import (
	"github.com/klauspost/compress/s2"

	"github.com/madcrow-go/madcrow"
)

const idS2 = 12

// S2 compresses with S2, an extension of Snappy, what the inner codec writes;
// nil is the default of the value's type. It is faster than
// [Zstd], and makes values less small.
func S2[T any](inner madcrow.Codec[T], opts ...Option) madcrow.Codec[T] {
	return newCompressed(inner, opts, func(l Level) method {
		return method{id: idS2, pack: packS2[l], unpack: unpackS2}
	})
}

var packS2 = [...]func(dst, src []byte) []byte{
	Normal: s2.Encode,
	Better: s2.EncodeBetter,
	Best:   s2.EncodeBest,
}

func unpackS2(dst, src []byte) ([]byte, error) {
	// It would make room for any length that the block tells.
	if n, err := s2.DecodedLen(src); err != nil || n > cap(dst) {
		return nil, errFormat
	}
	return s2.Decode(dst[:0:cap(dst)], src)
}
