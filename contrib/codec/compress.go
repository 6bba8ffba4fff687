package codec

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/madcrow-go/madcrow"
)

const (
	defaultMinSize = 512
	defaultMaxSize = madcrow.DefaultMaxValueSize
	largestMaxSize = 1 << 30
)

// Option changes how [Zstd] and [S2] compress.
type Option func(*settings)

type settings struct {
	min, max int
	level    Level
}

// WithMinSize leaves values of less than so many bytes as they are: short ones
// hardly become shorter. Defaults to 512; 0 tries with all.
func WithMinSize(bytes int) Option { return func(s *settings) { s.min = bytes } }

// WithMaxSize is the most bytes that a value may have before compression, from
// 1 to 1 GiB. A larger one is not stored, and one that would become larger when
// it is read is a miss, before memory is taken for it: a few bytes in Redis can
// stand for gigabytes. Defaults to 64 MiB, as Config.MaxValueSize.
func WithMaxSize(bytes int) Option { return func(s *settings) { s.max = bytes } }

// Level says how hard to compress. Any level reads what any other wrote.
type Level int

// The levels: each next one makes values smaller, and takes longer to do it.
// Reading is equally fast.
const (
	Normal Level = iota
	Better
	Best
)

// WithLevel sets the level. Defaults to [Normal].
func WithLevel(l Level) Option { return func(s *settings) { s.level = l } }

// newSettings fills in what was not said, or cannot be meant.
func newSettings(opts []Option) settings {
	s := settings{min: defaultMinSize, max: defaultMaxSize}
	for _, o := range opts {
		o(&s)
	}
	if s.max < 1 || s.max > largestMaxSize {
		s.max = defaultMaxSize
	}
	s.level = min(max(s.level, Normal), Best)
	return s
}

// The forms of what follows the mark.
const (
	formPlain byte = iota
	formPacked
)

// markSize is the inner codec's id and the form.
const markSize = 2

// method is a way to compress. Both functions append.
type method struct {
	id     byte
	pack   func(dst, src []byte) []byte
	unpack func(dst, src []byte) ([]byte, error) // no more than dst has room for
}

// compressed is a codec around another one.
type compressed[T any] struct {
	inner madcrow.Codec[T]
	settings
	method
}

func newCompressed[T any](inner madcrow.Codec[T], opts []Option, choose func(Level) method) madcrow.Codec[T] {
	if inner == nil {
		inner = usual[T]()
	}
	s := newSettings(opts)
	return &compressed[T]{inner, s, choose(s.level)}
}

// usual is the codec that is used where none is given.
func usual[T any]() madcrow.Codec[T] {
	if c, ok := any(madcrow.Text()).(madcrow.Codec[T]); ok {
		return c
	}
	if c, ok := any(madcrow.Bytes()).(madcrow.Codec[T]); ok {
		return c
	}
	return madcrow.JSON[T]()
}

func (c *compressed[T]) ID() byte { return c.id }

func (c *compressed[T]) Append(dst []byte, v T) ([]byte, error) {
	at := len(dst) + markSize
	dst, err := c.inner.Append(append(dst, c.inner.ID(), formPlain), v)
	if err != nil {
		return nil, err
	}
	plain := dst[at:]
	switch {
	case len(plain) > c.max:
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", madcrow.ErrTooLarge, len(plain), c.max)
	case len(plain) < c.min:
		return dst, nil
	}
	b := getBuffer(0)
	defer b.giveBack()
	b.of = c.pack(b.of[:0], plain)
	if len(b.of)+binary.MaxVarintLen32 >= len(plain) {
		return dst, nil // nothing is won
	}
	dst[at-1] = formPacked
	dst = binary.AppendUvarint(dst[:at], uint64(len(plain)))
	return append(dst, b.of...), nil
}

func (c *compressed[T]) Decode(data []byte) (v T, err error) {
	if len(data) < markSize || data[0] != c.inner.ID() {
		return v, errFormat
	}
	form, data := data[1], data[markSize:]
	if form == formPlain {
		return c.inner.Decode(data)
	}
	size, n := binary.Uvarint(data)
	if form != formPacked || n <= 0 {
		return v, errFormat
	}
	if size > uint64(c.max) {
		return v, fmt.Errorf("%w: %d bytes, at most %d are allowed", madcrow.ErrTooLarge, size, c.max)
	}
	b := getBuffer(int(size))
	defer b.giveBack()
	plain, err := c.unpack(b.of[:0], data[n:])
	if err != nil {
		return v, err
	}
	if uint64(len(plain)) != size {
		return v, errFormat
	}
	return c.inner.Decode(plain) // which keeps nothing of it
}

// buffer is memory that is used again.
type buffer struct{ of []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

const (
	// extraSpace is what the decoder of Zstandard wants behind the end, to be
	// fast.
	extraSpace = 16
	// largestKept keeps one huge value from holding its memory for ever.
	largestKept = 1 << 20
)

// getBuffer returns a buffer with space for size bytes. One that was used before may
// have more.
func getBuffer(size int) *buffer {
	b, _ := buffers.Get().(*buffer)
	if cap(b.of) < size+extraSpace {
		b.of = make([]byte, 0, size+extraSpace)
	}
	return b
}

func (b *buffer) giveBack() {
	if cap(b.of) <= largestKept {
		buffers.Put(b)
	}
}
