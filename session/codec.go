package session

import (
	"encoding/json"
	"fmt"

	"github.com/madcrow-go/madcrow/internal/exactjson"
)

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

// sealedCodec stores content as JSON, encrypted with Options.Keys.
type sealedCodec[T any] struct{ seal seal }

func (k sealedCodec[T]) encode(c content[T], user string, id ident) (string, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return "", fail.Argument("commit", "", "data", fmt.Sprintf("cannot be stored as JSON: %T", c.Data))
	}
	return string(k.seal.close(plain, binding{id.member, user})), nil
}

func (k sealedCodec[T]) decode(data, user string, id ident) (c content[T], err error) {
	plain, err := k.seal.open(data, binding{id.member, user})
	if err == nil {
		err = exactjson.Unmarshal(plain, &c)
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
