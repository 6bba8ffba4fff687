package memsize_test

import (
	"container/list"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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

type node struct{ Left, Right *node }

type shared struct {
	mu   sync.Mutex
	text string
}

// Two pointers of each part back to others made the way of a walk double with
// each step: it never came to an end.
func TestOf_EndsInCyclesOfAnyKind(t *testing.T) {
	u := &user{}
	u.Boss = u
	ring := [3]node{}
	for i := range ring {
		ring[i].Left, ring[i].Right = &ring[(i+2)%3], &ring[(i+1)%3]
	}
	l := list.New()
	l.PushBack(1)
	start := time.Now()
	for name, n := range map[string]int{"one": memsize.Of(&u), "ring": memsize.Of(&ring), "list": memsize.Of(l)} {
		if n < 1<<30 {
			t.Errorf("%s: %d bytes are little", name, n)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

// What has a lock belongs to others, who may change it now.
func TestOf_DoesNotLookIntoWhatIsLocked(t *testing.T) {
	v := struct {
		ID   int
		Pool *shared
		When time.Time
	}{1, &shared{text: strings.Repeat("x", 1000)}, time.Now()}
	if n := memsize.Of(&v); n > 200 {
		t.Errorf("%d bytes", n)
	}
	v.Pool.mu.Lock()
	defer v.Pool.mu.Unlock()
	if v.Pool.text == "" {
		t.Error("the text is gone")
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
