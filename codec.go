package madcrow

import "github.com/madcrow-go/madcrow/internal/codec"

// Codec turns values into bytes and back: the values of a cache, the data of a
// session, the messages of a topic or a stream. It must be safe for concurrent
// use.
type Codec[T any] interface {
	// ID marks what is stored, so that a cache with another codec takes it for a
	// miss: 1 to 9 are those of this module, 10 to 31 those of contrib/codec, 128
	// to 255 are free for anybody.
	ID() byte
	// Append encodes v behind dst.
	Append(dst []byte, v T) ([]byte, error)
	// Decode must not keep data, nor change it. An error says that data is not a
	// value.
	Decode(data []byte) (T, error)
}

// JSON is the codec of encoding/json, without escapes for HTML. It is the
// default for all types but strings and byte slices. A whole number of more than
// 15 digits in an any is read as a json.Number, every other one as a float64.
func JSON[T any]() Codec[T] { return codec.JSON[T]() }

// Text stores strings as they are. It is the default for strings.
func Text() Codec[string] { return codec.Text() }

// Bytes stores byte slices as they are. It is the default for byte slices.
func Bytes() Codec[[]byte] { return codec.Bytes() }
