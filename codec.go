package madcrow

// Codec turns values into bytes and back: the values of a cache, the data of a
// session, the messages of a topic or a stream. It must be safe for concurrent
// use.
type Codec[T any] interface {
	// ID marks what is stored, so that a reader with another codec takes it for
	// absent: 1 to 9 are those of this module, 10 to 31 those of contrib/codec, 128
	// to 255 are free for anybody.
	ID() byte
	// Append encodes v behind dst.
	Append(dst []byte, v T) ([]byte, error)
	// Decode must not keep data. An error says that data is not a value.
	Decode(data []byte) (T, error)
}
