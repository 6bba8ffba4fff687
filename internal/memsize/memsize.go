// Package memsize estimates how much memory a value holds.
package memsize

import (
	"math/bits"
	"reflect"
	"sync"
)

const (
	// most is where counting stops: nobody keeps more than that.
	most    = 1 << 40
	mapHead = 48 // of a map, beside its slots
	// deepest is how many pointers in a row are followed. What lies deeper is
	// a list or a cycle, and counted no further.
	deepest = 10_000
)

// Of returns how many bytes v holds, itself included: its own size and all that
// it leads to through pointers, slices, strings, maps and interfaces. What is
// reached twice counts twice, so that it is too much rather than too little; a
// cycle ends the count at its depth. Channels and functions count as pointers.
//
// It takes time with the number of values that may lead somewhere, at most
// about what decoding took to make them; a type without such parts costs
// nothing.
func Of[T any](v *T) int {
	t := reflect.TypeFor[T]()
	size := int(t.Size())
	if flat(t) {
		return size
	}
	switch v := any(v).(type) { // the usual ones, without reflection
	case *string:
		return size + len(*v)
	case *[]byte:
		return size + cap(*v)
	}
	return size + beyond(reflect.ValueOf(v).Elem(), 0)
}

var known sync.Map // of reflect.Type: bool

// flat says whether values of t lead nowhere.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Slice, reflect.Map, reflect.Pointer, reflect.Interface:
		return false
	case reflect.Array:
		return t.Len() == 0 || flat(t.Elem())
	case reflect.Struct:
		if is, ok := known.Load(t); ok {
			return is.(bool)
		}
		is := true
		for i := range t.NumField() {
			is = is && flat(t.Field(i).Type)
		}
		known.Store(t, is)
		return is
	}
	return true
}

// beyond returns what v leads to, without v itself.
func beyond(v reflect.Value, depth int) int {
	t := v.Type()
	if flat(t) || depth > deepest {
		return 0
	}
	sum := 0
	switch t.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Pointer:
		if !v.IsNil() {
			sum = int(t.Elem().Size()) + beyond(v.Elem(), depth+1)
		}
	case reflect.Interface:
		if !v.IsNil() {
			sum = int(v.Elem().Type().Size()) + beyond(v.Elem(), depth+1)
		}
	case reflect.Slice:
		sum = v.Cap() * int(t.Elem().Size())
		sum += elements(v, t.Elem(), depth)
	case reflect.Array:
		sum = elements(v, t.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			sum += beyond(v.Field(i), depth)
		}
	case reflect.Map:
		if v.IsNil() {
			break
		}
		sum = mapHead + slots(v.Len())*int(t.Key().Size()+t.Elem().Size()+1)
		if flat(t.Key()) && flat(t.Elem()) {
			break
		}
		for it := v.MapRange(); it.Next() && sum < most; {
			sum += beyond(it.Key(), depth+1) + beyond(it.Value(), depth+1)
		}
	}
	return min(sum, most)
}

// slots is how many entries a map of n has room for: groups of 8, a power of two
// of them, at most 7/8 full. Each has a byte beside its key and value.
func slots(n int) int {
	if n <= 8 {
		return 8
	}
	return 1 << bits.Len(uint(n*8/7))
}

func elements(v reflect.Value, t reflect.Type, depth int) (sum int) {
	if flat(t) {
		return 0
	}
	for i := 0; i < v.Len() && sum < most; i++ {
		sum += beyond(v.Index(i), depth+1)
	}
	return sum
}
