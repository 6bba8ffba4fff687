// Package codec has the codecs of the core, and what the packages that encode
// values share: the default by the type, calls that survive a codec that panics,
// and values that need no copy.
package codec

import (
	"fmt"
	"reflect"
	"time"
	"unsafe"

	"github.com/madcrow-go/madcrow/internal/exactjson"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// Codec is madcrow.Codec, which this package cannot import.
type Codec[T any] interface {
	ID() byte
	Append(dst []byte, v T) ([]byte, error)
	Decode(data []byte) (T, error)
}

// The IDs of this module. That of the responses of package httpcache is 4.
const (
	idJSON  = 1
	idText  = 2
	idBytes = 3
)

// JSON returns the codec of encoding/json, without escapes for HTML.
func JSON[T any]() Codec[T] { return jsonCodec[T]{immutable: immutable(reflect.TypeFor[T]())} }

// Text returns the codec that stores strings as they are.
func Text() Codec[string] { return textCodec{} }

// Bytes returns the codec that stores byte slices as they are.
func Bytes() Codec[[]byte] { return bytesCodec{} }

// Default returns Text for strings, Bytes for byte slices and JSON for all other
// types.
func Default[T any]() Codec[T] {
	if c, ok := any(textCodec{}).(Codec[T]); ok {
		return c
	}
	if c, ok := any(bytesCodec{}).(Codec[T]); ok {
		return c
	}
	return JSON[T]()
}

type jsonCodec[T any] struct{ immutable bool }

func (jsonCodec[T]) ID() byte { return idJSON }

func (jsonCodec[T]) Append(dst []byte, v T) ([]byte, error) { return appendJSON(dst, v) }

func (jsonCodec[T]) Decode(data []byte) (v T, err error) {
	err = exactjson.Unmarshal(data, &v)
	return v, err
}

type textCodec struct{}

func (textCodec) ID() byte { return idText }

func (textCodec) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }

func (textCodec) Decode(data []byte) (string, error) { return string(data), nil }

func (textCodec) adopt(text string) string { return text }

func (textCodec) text(v string) string { return v }

type bytesCodec struct{}

func (bytesCodec) ID() byte { return idBytes }

func (bytesCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }

func (bytesCodec) Decode(data []byte) ([]byte, error) { return append([]byte{}, data...), nil }

func (bytesCodec) adopt(text string) []byte {
	if text == "" {
		return []byte{}
	}
	return bytesOf(text)
}

// adopter is a codec whose values can be the text itself, without a copy.
type adopter[T any] interface{ adopt(text string) T }

// Adopts says whether [Adopt] returns text itself.
func Adopts[T any](c Codec[T]) bool {
	_, ok := c.(adopter[T])
	return ok
}

// Adopt is Decode for a text that no one else has: the value may be the text
// itself, without a copy, and may be changed.
func Adopt[T any](c Codec[T], text string) (T, error) {
	if a, ok := c.(adopter[T]); ok {
		return a.adopt(text), nil
	}
	return decode(c, text)
}

// Decode is c.Decode, and an error where that panics. A string is text itself.
func Decode[T any](c Codec[T], text string) (T, error) {
	if t, ok := c.(texter[T]); ok {
		return t.adopt(text), nil
	}
	return decode(c, text)
}

func decode[T any](c Codec[T], text string) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the codec: %w", guard.Recovered(p))
		}
	}()
	return c.Decode(bytesOf(text))
}

// Append is c.Append, and an error where that panics.
func Append[T any](c Codec[T], dst []byte, v T) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the codec: %w", guard.Recovered(p))
		}
	}()
	return c.Append(dst, v)
}

// texter is a codec whose values are texts already.
type texter[T any] interface {
	adopter[T]
	text(v T) string
}

// Encode is Append to nothing, as text.
func Encode[T any](c Codec[T], v T) (string, error) {
	if t, ok := c.(texter[T]); ok {
		return t.text(v), nil
	}
	out, err := Append(c, nil, v)
	if err != nil {
		return "", err
	}
	return unsafe.String(unsafe.SliceData(out), len(out)), nil // no one else has it
}

// Immutable says that c decodes to values of a type without pointers, slices,
// maps and interfaces, and nothing else: many may have the same one.
func Immutable[T any](c Codec[T]) bool {
	j, ok := c.(jsonCodec[T])
	return ok && j.immutable
}

func immutable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return immutable(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !immutable(t.Field(i).Type) {
				return t == reflect.TypeFor[time.Time]() // its location does not change
			}
		}
		return true
	case reflect.String:
		return true
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128 && t.Kind() != reflect.Uintptr
}

// bytesOf are the bytes of a text. They must not be changed where others have it.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }
