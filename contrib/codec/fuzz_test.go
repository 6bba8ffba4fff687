package codec_test

import (
	"bytes"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/contrib/codec"
)

const fuzzMost = 1 << 20

// FuzzCompressed: what was written is read, and garbage is an error, or a value
// of its size, for no more memory than the maximum and a little.
func FuzzCompressed(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"))
	f.Add([]byte{3, 0, 'a'})
	f.Add(packed(1<<19, []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 1, 0, 0}))
	f.Add(packed(5, []byte{5, 16, 'a', 'b', 'c', 'd', 'e'}))
	all := []madcrow.Codec[[]byte]{
		codec.Zstd[[]byte](nil, codec.WithMinSize(0), codec.WithMaxSize(fuzzMost)),
		codec.S2[[]byte](nil, codec.WithMinSize(0), codec.WithMaxSize(fuzzMost)),
	}
	for _, c := range all {
		data, err := c.Append(nil, bytes.Repeat([]byte("seed "), 100))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, c := range all {
			written, err := c.Append(nil, data)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Decode(written); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes became %d: %v", len(data), len(got), err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := c.Decode(data)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 8*fuzzMost || err == nil && len(got) > fuzzMost+len(data) {
				t.Errorf("%d bytes became %d, took %d: %v", len(data), len(got), took, err)
			}
		}
	})
}

type chain struct {
	Next *chain
	More any
	At   time.Time
	List []chain
}

// FuzzMsgpack: garbage is an error or a value, and a value that was read is
// written and read again.
func FuzzMsgpack(f *testing.F) {
	for _, v := range []any{nil, 1, -1 << 40, 1.5, "text", []byte("bytes"), []any{1, []any{}}, map[string]any{"a": time.Unix(1, 2)}} {
		data, err := codec.Msgpack[any]().Append(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	page1, err := codec.Msgpack[page]().Append(nil, onePage(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(page1)
	f.Add([]byte{0x81, 0xa4, 'N', 'e', 'x', 't', 0x81, 0xa4, 'N', 'e', 'x', 't', 0xc0})
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x81, 0x90, 0xc0})
	f.Add([]byte{0xc7, 12, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("\xc7\f0\x8b\xdfa\xe3\xe9\vy0000000\x800E0")) // a map that begins in an extension
	f.Fuzz(func(t *testing.T, data []byte) {
		garbage[any](t, data)
		garbage[map[any]any](t, data)
		garbage[map[string]int8](t, data)
		garbage[[]string](t, data)
		garbage[[3]uint16](t, data)
		garbage[*chain](t, data)
		garbage[page](t, data)
		garbage[[]pair](t, data)
		garbage[[]byte](t, data)
	})
}

func garbage[T any](t *testing.T, data []byte) {
	t.Helper()
	c := codec.Msgpack[T]()
	v, err := c.Decode(data)
	if err != nil {
		return
	}
	again, err := c.Append(nil, v)
	if err != nil {
		t.Skip(err) // some values can be read only: a nil in a map[any]any
	}
	if _, err := c.Decode(again); err != nil {
		t.Errorf("%v: what was read from % x cannot be read again from % x: %v", reflect.TypeFor[T](), data, again, err)
	}
}
