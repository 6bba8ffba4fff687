package memsize_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/memsize"
)

type user struct {
	ID    int
	Name  string
	Tags  []string
	Extra map[string]any
	Boss  *user
}

// held is what makes really take on the heap, for each of many.
func held[T any](n int, makeOne func() T) (size int, one T) {
	list := make([]T, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range list {
		list[i] = makeOne()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	size = int(after.HeapAlloc-before.HeapAlloc)/n + int(memsize.Of(new([0]T))) // the list itself was there before
	one = list[n-1]
	runtime.KeepAlive(list)
	return size, one
}

func decoded[T any](text string) func() T {
	return func() (v T) {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			panic(err)
		}
		return v
	}
}

func check[T any](t *testing.T, name string, n int, makeOne func() T) {
	t.Helper()
	real, one := held(n, makeOne)
	got := memsize.Of(&one) - int(sizeOf[T]())
	t.Logf("%s: %d bytes estimated, %d held", name, got, real)
	if got < real*7/10 || got > real*2+64 {
		t.Errorf("%s: %d bytes estimated, %d held", name, got, real)
	}
}

func sizeOf[T any]() int { var a [2]T; return memsize.Of(&a) - memsize.Of(new([1]T)) }

// The estimate is near what the heap really holds, whatever the shape.
func TestOf_IsNearWhatTheHeapHolds(t *testing.T) {
	var rows, object, keys strings.Builder
	for i := range 200 {
		fmt.Fprintf(&rows, ",[%d,2,3]", i)
		fmt.Fprintf(&object, `,{"ID":%d,"Name":"somebody %d","Tags":["a","bb"],"Boss":{"ID":1}}`, i, i)
		fmt.Fprintf(&keys, `,"key %d":%d`, i, i)
	}
	check(t, "strings", 2000, func() string { return strings.Repeat("x", 1000) })
	check(t, "bytes", 2000, func() []byte { return make([]byte, 1000) })
	check(t, "rows", 200, decoded[[][]int]("["+rows.String()[1:]+"]"))
	check(t, "structs", 200, decoded[[]user]("["+object.String()[1:]+"]"))
	check(t, "a map of any", 200, decoded[map[string]any]("{"+keys.String()[1:]+"}"))
	check(t, "a map of numbers", 200, decoded[map[string]int]("{"+keys.String()[1:]+"}"))
	check(t, "any", 200, decoded[any]("["+object.String()[1:]+"]"))
	check(t, "a pointer", 2000, func() *user { return &user{Name: strings.Repeat("x", 100)} })
}

func TestOf_EndsInACycle(t *testing.T) {
	u := &user{}
	u.Boss = u
	if n := memsize.Of(&u); n <= 0 {
		t.Error(n)
	}
}

func TestOf_AllocatesNothing(t *testing.T) {
	u := user{Name: "x", Tags: []string{"a", "b"}}
	s := "text"
	n := testing.AllocsPerRun(100, func() {
		_ = memsize.Of(&u)
		_ = memsize.Of(&s)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
