package codec

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/madcrow-go/madcrow"
)

const idMsgpack = 10

// Msgpack is the codec of MessagePack, smaller and faster than JSON. Fields are
// named by their `msgpack` tags or, where there is none, by their `json` tags.
// Numbers are written in their shortest form.
func Msgpack[T any]() madcrow.Codec[T] { return msgpackCodec[T]{} }

type msgpackCodec[T any] struct{}

func (msgpackCodec[T]) ID() byte { return idMsgpack }

// fallbackTag names fields that have no tag of their own.
const fallbackTag = "json"

// writer is an encoder and what it writes to.
type writer struct {
	enc *msgpack.Encoder
	out []byte
}

func (w *writer) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

func (w *writer) WriteByte(c byte) error {
	w.out = append(w.out, c)
	return nil
}

var writers = sync.Pool{New: func() any { return &writer{enc: msgpack.NewEncoder(nil)} }}

func (msgpackCodec[T]) Append(dst []byte, v T) (out []byte, err error) {
	w, _ := writers.Get().(*writer)
	w.out = dst
	w.enc.Reset(w)
	w.enc.SetCustomStructTag(fallbackTag)
	w.enc.UseCompactInts(true)
	err = w.enc.Encode(v)
	out, w.out = w.out, nil
	writers.Put(w)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// reader is a decoder and what it reads from. The library takes an extension
// where a map should be for a map that begins inside of it, and then reads
// lengths that were not checked. So the content of an extension cannot be
// read byte by byte, which is how the head of a value is read.
type reader struct {
	bytes.Reader
	dec    *msgpack.Decoder
	opaque []span // from where it reads on
	spans  []span // all of them, to be used again
}

func (r *reader) ReadByte() (byte, error) {
	if len(r.opaque) > 0 {
		at := int(r.Size()) - r.Len()
		for len(r.opaque) > 0 && r.opaque[0].to <= at {
			r.opaque = r.opaque[1:]
		}
		if len(r.opaque) > 0 && r.opaque[0].from <= at {
			return 0, errFormat
		}
	}
	return r.Reader.ReadByte()
}

const mostSpansKept = 4096

var readers = sync.Pool{New: func() any { return &reader{dec: msgpack.NewDecoder(nil)} }}

// Decode looks at the whole value before it decodes: the library believes the
// lengths it reads, and follows any depth.
func (msgpackCodec[T]) Decode(data []byte) (v T, err error) {
	r, _ := readers.Get().(*reader)
	if r.spans, err = wellFormed(data, r.spans[:0]); err == nil {
		r.opaque = r.spans
		err = decode(r, data, &v)
	}
	if len(data) <= largestKept && len(r.spans) <= mostSpansKept { // it holds as much
		readers.Put(r)
	}
	if err != nil {
		return *new(T), err
	}
	return v, nil
}

func decode(r *reader, data []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil { // a list where a map has its key, and the like
			err = fmt.Errorf("%w: %v", errFormat, p)
			r.dec = msgpack.NewDecoder(nil) // the other broke off somewhere
		}
		r.Reset(nil)
	}()
	r.Reset(data)
	r.dec.Reset(r)
	r.dec.SetCustomStructTag(fallbackTag)
	if err := r.dec.Decode(v); err != nil {
		return err
	}
	if r.Len() > 0 {
		return errFormat
	}
	return nil
}
