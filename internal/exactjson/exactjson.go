// Package exactjson reads JSON without losing a digit of a whole number.
package exactjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
)

// maxExact is how many digits a whole number may have to be certainly one that
// float64 holds exactly: 10^15 is less than 2^53.
const maxExact = 15

// Unmarshal is [json.Unmarshal], with one difference: a whole number of more
// than 15 digits that lands in an any is a [json.Number], which keeps every
// digit and is written again as it was read. Other numbers in an any are
// float64, as usual. A value whose type has no any is read by json.Unmarshal
// itself.
func Unmarshal(data []byte, v any) error {
	if t := reflect.TypeOf(v); t == nil || !holdsAny(t) {
		return json.Unmarshal(data, v)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("exactjson: more than one value")
	}
	restore(reflect.ValueOf(v))
	return nil
}

var known sync.Map // of reflect.Type: bool

// holdsAny says whether json.Unmarshal can put an any somewhere into t.
func holdsAny(t reflect.Type) bool {
	if has, ok := known.Load(t); ok {
		return has.(bool)
	}
	has := search(t, map[reflect.Type]bool{})
	known.Store(t, has)
	return has
}

var (
	jsonType = reflect.TypeFor[json.Unmarshaler]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// readsItself says whether a type has a method that json.Unmarshal calls: what
// that makes is its own business.
func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonType) || p.Implements(textType)
}

func search(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || readsItself(t) {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return t.NumMethod() == 0
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return search(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if search(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// restore turns the numbers that were read into an any back into float64, but
// for those that would lose digits. What was just read has no cycles.
func restore(v reflect.Value) {
	if !holdsAny(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.Interface:
		if !v.IsNil() && v.CanSet() {
			if now, changed := value(v.Interface()); changed {
				v.Set(reflect.ValueOf(now))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			restore(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			restore(v.Index(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			elem := reflect.New(v.Type().Elem()).Elem()
			elem.Set(it.Value())
			restore(elem)
			v.SetMapIndex(it.Key(), elem)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() || f.Kind() == reflect.Struct {
				restore(f)
			}
		}
	}
}

// value is restore for what json.Unmarshal makes for an any.
func value(v any) (now any, changed bool) {
	switch v := v.(type) {
	case json.Number:
		return number(v)
	case map[string]any:
		for key, elem := range v {
			if now, changed := value(elem); changed {
				v[key] = now
			}
		}
	case []any:
		for i, elem := range v {
			if now, changed := value(elem); changed {
				v[i] = now
			}
		}
	}
	return v, false
}

func number(n json.Number) (any, bool) {
	if digits := strings.TrimPrefix(string(n), "-"); len(digits) > maxExact && !strings.ContainsAny(digits, ".eE") {
		return n, false
	}
	f, err := n.Float64()
	if err != nil {
		return n, false // beyond float64: it stays as it is
	}
	return f, true
}
