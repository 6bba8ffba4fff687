// Package memsize estimates how much memory a value holds.
package memsize

import (
	"math/bits"
	"reflect"
	"sync"
	"time"
)

const (
	// most is where counting stops: no cache keeps more than that.
	most    = 1 << 40
	mapHead = 48 // of a map, beside its slots
	// budget is how many parts of a value are looked at. One of more parts is
	// large, or has cycles: it counts as most.
	budget = 1 << 20
	// deepest is how many pointers in a row are followed, for the stack's sake.
	deepest = 10_000
)

// Of returns how many bytes v holds, itself included: its own size and all that
// it leads to through pointers, slices, strings, maps and interfaces. What is
// reached twice counts twice, so that it is too much rather than too little. A
// value of very many parts, or with cycles, counts as more than anybody keeps.
// Channels and functions count as pointers. What holds a lock is shared with
// others, who may change it now, so it is not looked into; nor are time zones.
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
	w := walk{left: budget}
	return min(most, size+w.beyond(reflect.ValueOf(v).Elem(), 0))
}

// walk is one look at a value.
type walk struct{ left int }

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
		is = is || t == timeType || locked(t)
		known.Store(t, is)
		return is
	}
	return true
}

var (
	timeType   = reflect.TypeFor[time.Time]() // leads to a zone, which all share
	lockerType = reflect.TypeFor[sync.Locker]()
)

// locked says whether a struct has a lock among its fields.
func locked(t reflect.Type) bool {
	for i := range t.NumField() {
		f := t.Field(i).Type
		for f.Kind() == reflect.Array {
			f = f.Elem()
		}
		if reflect.PointerTo(f).Implements(lockerType) || f.Kind() == reflect.Struct && locked(f) {
			return true
		}
	}
	return false
}

// beyond returns what v leads to, without v itself.
func (w *walk) beyond(v reflect.Value, depth int) int {
	t := v.Type()
	if flat(t) {
		return 0
	}
	if w.left--; w.left < 0 || depth > deepest {
		return most
	}
	sum := 0
	switch t.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Pointer:
		if !v.IsNil() {
			sum = int(t.Elem().Size()) + w.beyond(v.Elem(), depth+1)
		}
	case reflect.Interface:
		if !v.IsNil() {
			sum = int(v.Elem().Type().Size()) + w.beyond(v.Elem(), depth+1)
		}
	case reflect.Slice:
		sum = v.Cap() * int(t.Elem().Size())
		sum += w.elements(v, t.Elem(), depth)
	case reflect.Array:
		sum = w.elements(v, t.Elem(), depth)
	case reflect.Struct:
		for i := 0; i < v.NumField() && sum < most; i++ {
			sum += w.beyond(v.Field(i), depth)
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
			sum += w.beyond(it.Key(), depth+1) + w.beyond(it.Value(), depth+1)
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

func (w *walk) elements(v reflect.Value, t reflect.Type, depth int) (sum int) {
	if flat(t) {
		return 0
	}
	for i := 0; i < v.Len() && sum < most; i++ {
		sum += w.beyond(v.Index(i), depth+1)
	}
	return sum
}
