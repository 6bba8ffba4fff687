package session

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/madcrow-go/madcrow"
	codecs "github.com/madcrow-go/madcrow/internal/codec"
	"github.com/madcrow-go/madcrow/internal/exactjson"
)

// jsonID is the ID of the JSON codec, the default.
const jsonID = 1

// content is the decoded data of a session.
type content[T any] struct {
	Data  T       `json:"d"`
	Flash []Flash `json:"f,omitempty"`
}

// codec encodes the data of sessions. [New] chooses the implementation: sealedCodec,
// or legacyCodec with Options.FastAPILayout.
type codec[T any] interface {
	// encode returns the stored form for a session of user under id.
	encode(c content[T], user string, id ident) (string, error)
	decode(data, user string, id ident) (content[T], error)
	// rebind returns data for another identifier of the same session.
	rebind(data, user string, from, to ident) (string, error)
	// bound reports whether data must be rebound to another identifier.
	bound() bool
	// inspect fills in the details of the data.
	inspect(d *Details, data, user string)
}

// sealedCodec stores content as JSON, encrypted with Options.EncryptionKeys.
type sealedCodec[T any] struct {
	seal  seal
	codec madcrow.Codec[T] // nil: the data is JSON, as a part of content
}

// pack returns content as bytes: one JSON object or, with a codec, its ID, the length
// of the JSON of the flashes, that JSON, and the data. No ID is '{'.
func (k sealedCodec[T]) pack(c content[T]) ([]byte, error) {
	if k.codec == nil {
		return json.Marshal(c)
	}
	var flash []byte
	if len(c.Flash) > 0 {
		flash, _ = json.Marshal(c.Flash) // strings: it cannot fail
	}
	out := binary.AppendUvarint([]byte{k.codec.ID()}, uint64(len(flash)))
	return codecs.Append(k.codec, append(out, flash...), c.Data)
}

func (k sealedCodec[T]) unpack(plain []byte) (c content[T], err error) {
	if k.codec == nil {
		err = exactjson.Unmarshal(plain, &c)
		return c, err
	}
	if len(plain) == 0 || plain[0] != k.codec.ID() {
		return c, errCodec
	}
	flash, data, err := splitFlash(plain[1:])
	if err == nil && len(flash) > 0 {
		err = exactjson.Unmarshal(flash, &c.Flash)
	}
	if err == nil {
		c.Data, err = codecs.Decode(k.codec, string(data))
	}
	return c, err
}

var errCodec = errors.New("the data is of another codec")

// splitFlash cuts what pack has written behind the ID.
func splitFlash(packed []byte) (flash, data []byte, err error) {
	n, at := binary.Uvarint(packed)
	if at <= 0 || n > uint64(len(packed)-at) {
		return nil, nil, errCodec
	}
	return packed[at:][:n], packed[at:][n:], nil
}

func (k sealedCodec[T]) encode(c content[T], user string, id ident) (string, error) {
	plain, err := k.pack(c)
	if err != nil {
		return "", fail.Argument("commit", "", "data", fmt.Sprintf("cannot be encoded: %T", c.Data))
	}
	return string(k.seal.close(plain, binding{id.member, user})), nil
}

func (k sealedCodec[T]) decode(data, user string, id ident) (c content[T], err error) {
	plain, err := k.seal.open(data, binding{id.member, user})
	if err == nil {
		c, err = k.unpack(plain)
	}
	if err != nil {
		return content[T]{}, err
	}
	return c, nil
}

func (k sealedCodec[T]) rebind(data, user string, from, to ident) (string, error) {
	plain, err := k.seal.open(data, binding{from.member, user})
	if err != nil {
		return "", err
	}
	return string(k.seal.close(plain, binding{to.member, user})), nil
}

func (k sealedCodec[T]) bound() bool { return len(k.seal.keys) > 0 }

func (k sealedCodec[T]) inspect(d *Details, data, user string) {
	d.Size, d.Sealed = len(data), data != "" && data[0] == sealedData
	plain, err := k.seal.open(data, binding{d.Handle, user})
	if err != nil {
		return
	}
	if k.codec != nil {
		if c, err := k.unpack(plain); err == nil {
			d.Flashes = len(c.Flash)
		}
		return
	}
	var c content[json.RawMessage]
	if json.Unmarshal(plain, &c) == nil {
		d.Data, d.Flashes = c.Data, len(c.Flash)
	}
}

// legacyCodec stores the data alone, as FastAPI Madcrow does: one JSON object.
type legacyCodec[T any] struct{}

func (legacyCodec[T]) encode(c content[T], _ string, _ ident) (string, error) {
	plain, err := json.Marshal(c.Data)
	if err != nil || len(plain) == 0 || plain[0] != '{' {
		return "", fail.Argument("commit", "", "data", fmt.Sprintf("must encode to a JSON object: %T", c.Data))
	}
	return string(plain), nil
}

func (legacyCodec[T]) decode(data, _ string, _ ident) (c content[T], err error) {
	err = exactjson.Unmarshal([]byte(data), &c.Data)
	return c, err
}

func (legacyCodec[T]) rebind(data, _ string, _, _ ident) (string, error) { return data, nil }

func (legacyCodec[T]) bound() bool { return false }

func (legacyCodec[T]) inspect(d *Details, data, _ string) {
	d.Size = len(data)
	if json.Valid([]byte(data)) {
		d.Data = json.RawMessage(data)
	}
}
