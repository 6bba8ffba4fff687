// Package textcodec turns values into text and back, for the packages that send
// messages.
package textcodec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/madcrow-go/madcrow/internal/exactjson"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// Codec is what those packages call their Codec.
type Codec[T any] interface {
	Encode(v T) (string, error)
	Decode(text string) (T, error)
}

// JSON is the codec of encoding/json. A whole number of more than 15 digits in
// an any is decoded as a json.Number.
type JSON[T any] struct {
	// Immutable says that T has no pointers, slices, maps and interfaces: a copy
	// of a value shares nothing that could be changed.
	Immutable bool
}

// NewJSON returns the JSON codec of T.
func NewJSON[T any]() JSON[T] { return JSON[T]{Immutable: immutable(reflect.TypeFor[T]())} }

// Encode implements [Codec].
func (JSON[T]) Encode(v T) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

// Decode implements [Codec].
func (JSON[T]) Decode(text string) (v T, err error) {
	err = exactjson.Unmarshal([]byte(text), &v)
	return v, err
}

// Text leaves strings as they are.
type Text struct{}

// Encode implements [Codec].
func (Text) Encode(v string) (string, error) { return v, nil }

// Decode implements [Codec].
func (Text) Decode(text string) (string, error) { return text, nil }

// Default returns Text for strings and JSON for all other types.
func Default[T any]() Codec[T] {
	if c, ok := any(Text{}).(Codec[T]); ok {
		return c
	}
	return NewJSON[T]()
}

// Encode is c.Encode, and an error where that panics.
func Encode[T any](c Codec[T], v T) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the codec: %w", guard.Recovered(p))
		}
	}()
	return c.Encode(v)
}

// Decode is c.Decode, and an error where that panics.
func Decode[T any](c Codec[T], text string) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the codec: %w", guard.Recovered(p))
		}
	}()
	return c.Decode(text)
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
