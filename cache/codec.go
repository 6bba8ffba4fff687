package cache

import (
	"bytes"
	"encoding/json"
	"unsafe"

	"github.com/madcrow-go/madcrow/internal/exactjson"
)

// Codec turns values into bytes and back. It must be safe for concurrent use.
type Codec[T any] interface {
	// ID marks entries, so that a reader with another codec takes them for a
	// miss: 1 to 9 are those of this module (4 is that of the responses of package
	// httpcache), 10 to 31 those of contrib/codec, 128 to 255 are free for anybody.
	ID() byte
	// Append encodes v behind dst.
	Append(dst []byte, v T) ([]byte, error)
	// Decode must not keep data. An error is a miss, and counted.
	Decode(data []byte) (T, error)
}

// JSON is the codec of encoding/json, without escapes for HTML. It is the
// default for everything but strings and byte slices. A whole number of more
// than 15 digits in an any is read as a json.Number, every other one as a
// float64.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) ID() byte { return 1 }

func (jsonCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	out := b.Bytes()
	return out[:len(out)-1], nil // the encoder's newline
}

func (jsonCodec[T]) Decode(data []byte) (v T, err error) {
	err = exactjson.Unmarshal(data, &v)
	return v, err
}

// Text stores strings as they are. It is the default for them.
func Text() Codec[string] { return textCodec{} }

type textCodec struct{}

func (textCodec) ID() byte { return 2 }

func (textCodec) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }

func (textCodec) Decode(data []byte) (string, error) { return string(data), nil }

func (textCodec) adopt(data string) string { return data }

// Bytes stores byte slices as they are. It is the default for them.
func Bytes() Codec[[]byte] { return bytesCodec{} }

type bytesCodec struct{}

func (bytesCodec) ID() byte { return 3 }

func (bytesCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }

func (bytesCodec) Decode(data []byte) ([]byte, error) { return bytes.Clone(data), nil }

func (bytesCodec) adopt(data string) []byte {
	if data == "" {
		return []byte{}
	}
	return bytesOf(data)
}

// adopter is a codec whose values can be what Redis sent, without a copy.
type adopter[T any] interface{ adopt(data string) T }

// bytesOf are the bytes of a text that no one else reads.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

// defaultCodec chooses by the type.
func defaultCodec[T any]() Codec[T] {
	if c, ok := any(Text()).(Codec[T]); ok {
		return c
	}
	if c, ok := any(Bytes()).(Codec[T]); ok {
		return c
	}
	return JSON[T]()
}
