package codec

import (
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/madcrow-go/madcrow"
)

const idZstd = 11

// Zstd compresses with Zstandard (RFC 8878) what the inner codec writes; nil is
// the default of the value's type. It makes text some times smaller.
func Zstd[T any](inner madcrow.Codec[T], opts ...Option) madcrow.Codec[T] {
	return newCompressed(inner, opts, func(l Level) method {
		return method{id: idZstd, pack: packZstd[l], unpack: unpackZstd}
	})
}

// window is how far back a repetition is found. A larger one costs each
// processor that much memory, and values are seldom larger.
const window = 1 << 20

// packZstd has for each level one encoder, for all caches: it serves as many at
// a time as there are processors, and has its memory from the first use on.
var packZstd = [...]func(dst, src []byte) []byte{
	Normal: encoder(zstd.SpeedDefault),
	Better: encoder(zstd.SpeedBetterCompression),
	Best:   encoder(zstd.SpeedBestCompression),
}

func encoder(level zstd.EncoderLevel) func(dst, src []byte) []byte {
	get := sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // an option is wrong: the tests would see it
		}
		return e
	})
	return func(dst, src []byte) []byte { return get().EncodeAll(src, dst) }
}

// decoder serves as many at a time as there are processors. It fills what it is
// given and no more.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // as above
	}
	return d
})

func unpackZstd(dst, src []byte) ([]byte, error) { return decoder().DecodeAll(src, dst) }
