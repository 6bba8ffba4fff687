package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/binfmt"
	"github.com/madcrow-go/madcrow/internal/cachelimit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var update = flag.Bool("update", false, "write the golden files of the entry format again")

type point struct {
	X int    `json:"x"`
	S string `json:"s,omitempty"`
}

// An entry of each kind. What is in the golden files is what Redis holds: a
// change here is another format version.
var goldenEntries = []struct {
	name  string
	h     header
	value any
}{
	{"json", header{codec: 1, freshFor: 5 * time.Minute, storedFor: 65 * time.Minute, cost: 1500 * time.Microsecond}, point{1, "<é>"}},
	{"text", header{codec: 2, freshFor: time.Second, storedFor: time.Second}, "plain\x00text"},
	{"text_empty", header{codec: 2, freshFor: 10 * time.Millisecond, storedFor: 10 * time.Millisecond}, ""},
	{"bytes", header{codec: 3, freshFor: maxTTL, storedFor: 2 * maxTTL, cost: 24 * time.Hour}, []byte{0, 1, 0xff}},
	{"json_etag", header{codec: 1, freshFor: time.Minute, storedFor: time.Minute, etag: `W/"1"`}, point{X: -1}},
	{"json_tags", header{codec: 1, freshFor: time.Minute, storedFor: time.Minute, tags: []tagMark{{"", 1, 2}, {"tenant:7", 1<<64 - 1, 3}}}, point{X: 2}},
	{"text_tags_etag", header{codec: 2, freshFor: time.Minute, storedFor: time.Hour, cost: time.Millisecond, etag: "e", tags: []tagMark{{"", 0, 0}, {"ä b", 0x0102030405060708, 9}}}, "v"},
	{"negative", header{codec: 1, negative: true, freshFor: 30 * time.Second, storedFor: 30 * time.Second, tags: []tagMark{{"", 1, 2}}}, nil},
	{"negative_etag", header{codec: 2, negative: true, freshFor: time.Second, storedFor: time.Second, etag: "e"}, nil},
}

func encodeGolden(t *testing.T, h header, value any) []byte {
	t.Helper()
	b := h.appendTo(nil)
	var err error
	switch v := value.(type) {
	case point:
		b, err = madcrow.JSON[point]().Append(b, v)
	case string:
		b, err = madcrow.Text().Append(b, v)
	case []byte:
		b, err = madcrow.Bytes().Append(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFormat_IsThatOfTheGoldenFiles(t *testing.T) {
	for _, e := range goldenEntries {
		t.Run(e.name, func(t *testing.T) {
			file := filepath.Join("testdata", "entry_"+e.name+".golden")
			raw := encodeGolden(t, e.h, e.value)
			if *update {
				if err := os.WriteFile(file, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.TrimSpace(string(golden)))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(raw, want) {
				t.Fatalf("written:\n%x\nwant:\n%x", raw, want)
			}
			h, size, err := parseHeader(string(want), nil)
			if err != nil || !reflect.DeepEqual(h, e.h) {
				t.Fatalf("read %+v %v, want %+v", h, err, e.h)
			}
			payload := want[size:]
			var got any
			switch e.value.(type) {
			case point:
				got, err = madcrow.JSON[point]().Decode(payload)
			case string:
				got, err = madcrow.Text().Decode(payload)
			case []byte:
				got, err = madcrow.Bytes().Decode(payload)
			}
			if err != nil || !reflect.DeepEqual(got, e.value) {
				t.Errorf("%v %v", got, err)
			}
		})
	}
}

// recorder counts the events of the cache.
type recorder struct {
	madcrow.NopRecorder
	mu     sync.Mutex
	events map[string]int
}

func (r *recorder) Event(_ context.Context, ev madcrow.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = map[string]int{}
	}
	r.events[ev.Type.Name()] += ev.N
}

func (r *recorder) count(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[name]
}

func startRedis(t testing.TB, s *madcrowtest.Server, change func(*madcrow.Config)) *madcrow.Redis {
	t.Helper()
	cfg := s.Config()
	cfg.Require = true
	if change != nil {
		change(&cfg)
	}
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	return r
}

func makeCache[T any](t testing.TB, r *madcrow.Redis, opt Options[T]) *Cache[T] {
	t.Helper()
	c, err := New(r, "c", opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

// Whatever happens to the bytes of an entry: it is a miss, counted, and the next
// load heals it. What is only cut or changed within a text cannot be noticed.
func TestFormat_DamagedEntryIsAMiss(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	rec := &recorder{}
	c := makeCache(t, startRedis(t, s, func(cfg *madcrow.Config) { cfg.Recorder = rec }), Options[point]{NearCacheBytes: 1 << 20})
	if err := c.Set(t.Context(), "k", point{1, "a"}, WithTags("x")); err != nil {
		t.Fatal(err)
	}
	key := c.valueKey("k")
	whole, _ := s.Do(t, "GET", key).(string)
	_, size, err := parseHeader(whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[string]string{
		"empty": "", "garbage": "garbage", "json alone": whole[size:], "another version": "\x02" + whole[1:],
		"another codec": whole[:1] + "\x02" + whole[2:], "unknown flag": whole[:2] + "\x80" + whole[3:],
		"negative with a value": whole[:2] + "\x01" + whole[3:], "trailing text": whole + "x", "trailing entry": whole + whole,
		"header twice": whole[:size] + whole, "zeros": strings.Repeat("\x00", 64), "huge numbers": "\x01\x01\x00" + strings.Repeat("\xff", 64),
	}
	for n := range len(whole) {
		damaged["cut at "+whole[n:n+1]+string(rune('0'+n))] = whole[:n]
	}
	for name, raw := range damaged {
		before := rec.count("undecodable")
		s.Do(t, "SET", key, raw, "PX", "60000")
		time.Sleep(time.Millisecond)
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) { // until the push
			v, found, err := c.Get(t.Context(), "k")
			if !found && err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v %v %v", name, v, found, err)
			}
		}
		if rec.count("undecodable") == before {
			t.Errorf("%s: not counted", name)
		}
	}
	if v, err := c.GetOrLoad(t.Context(), "k", func(ctxt) (point, error) { return point{X: 2}, nil }); v.X != 2 || err != nil {
		t.Errorf("%v %v", v, err)
	}
	if v, found, err := c.Get(t.Context(), "k"); v.X != 2 || !found || err != nil {
		t.Errorf("after the load: %v %v %v", v, found, err)
	}
}

// An entry whose lifetime a foreign client took away is fresh, and can be
// removed as any other.
func TestFormat_EntryWithoutALifetimeIsFresh(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := makeCache(t, startRedis(t, s, nil), Options[string]{NearCacheBytes: 1 << 20, TTL: 50 * time.Millisecond, Jitter: -1, RefreshAhead: 0.5, Sliding: true})
	if err := c.Set(t.Context(), "k", "v", WithTags("x")); err != nil {
		t.Fatal(err)
	}
	if n := s.Do(t, "PERSIST", c.valueKey("k")); n != int64(1) {
		t.Skip("the machine was too slow")
	}
	time.Sleep(60 * time.Millisecond)
	for range 2 {
		if res, err := c.GetResult(t.Context(), "k"); res.Value != "v" || !res.Found || res.Age != 0 && res.Source != SourceNear || err != nil {
			t.Errorf("%+v %v", res, err)
		}
	}
	if err := c.DeleteTag(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, found, _ := c.Get(t.Context(), "k"); found {
		t.Error("after DeleteTag")
	}
}

// Names that are kept do not keep the entry; a text is a part of it.
func TestFormat_NamesAreCopied(t *testing.T) {
	h := header{codec: 2, freshFor: time.Hour, storedFor: time.Hour, etag: "etag", tags: []tagMark{{"name", 1, 2}}}
	raw := string(h.appendTo(nil)) + "value"
	s := madcrowtest.StartRedis(t)
	c := makeCache(t, startRedis(t, s, nil), Options[string]{})
	f, marked, ok := c.decodeText(t.Context(), raw, time.Hour, nil)
	if !ok || f.etag != "etag" || f.Value != "value" {
		t.Fatalf("%+v", f)
	}
	within := func(piece string) bool { return strings.Contains(raw, piece) && sameMemory(raw, piece) }
	if within(f.etag) || within(c.tags.state(marked[0].name).name) {
		t.Error("a piece of the entry is kept")
	}
}

func FuzzHeader(f *testing.F) {
	for _, e := range goldenEntries {
		f.Add(string(e.h.appendTo(nil)) + "payload")
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, size, err := parseHeader(s, nil)
		if err != nil {
			if !errors.Is(err, binfmt.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if size > len(s) || len(h.tags) > cachelimit.MaxTags+cachelimit.MaxURLTags || h.negative && size != len(s) {
			t.Fatalf("%d of %d bytes: %+v", size, len(s), h)
		}
		again, n, err := parseHeader(string(h.appendTo(nil)), nil)
		if err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("%+v is read back as %+v %v", h, again, err)
		}
		if n > size {
			t.Fatalf("a header of %d bytes is written in %d", size, n)
		}
	})
}

func FuzzDecode(f *testing.F) {
	s := madcrowtest.StartRedis(f)
	caches := map[byte]func(string, time.Duration) bool{}
	points, texts, raws := makeCache(f, startRedis(f, s, nil), Options[point]{}), makeCache(f, startRedis(f, s, nil), Options[string]{}), makeCache(f, startRedis(f, s, nil), Options[[]byte]{})
	caches[1] = func(raw string, left time.Duration) bool {
		_, _, ok := points.decodeText(context.Background(), raw, left, nil)
		return ok
	}
	caches[2] = func(raw string, left time.Duration) bool {
		_, _, ok := texts.decodeText(context.Background(), raw, left, nil)
		return ok
	}
	caches[3] = func(raw string, left time.Duration) bool {
		_, _, ok := raws.decodeText(context.Background(), raw, left, nil)
		return ok
	}
	for _, e := range goldenEntries {
		f.Add(string(e.h.appendTo(nil))+`{"x":1}`, int64(time.Second))
	}
	f.Fuzz(func(t *testing.T, raw string, left int64) {
		for id, decode := range caches {
			ok := decode(raw, time.Duration(left))
			h, size, err := parseHeader(raw, nil)
			if ok && (err != nil || h.codec != id) {
				t.Fatalf("an entry of codec %d is read by %d: %v", h.codec, id, err)
			}
			if ok && id == 1 && !h.negative && decode(raw+"x", time.Duration(left)) {
				t.Fatalf("a trailing byte behind %q is read", raw[size:])
			}
		}
	})
}

type ctxt = context.Context

func sameMemory(whole, piece string) bool {
	start, at := uintptr(unsafe.Pointer(unsafe.StringData(whole))), uintptr(unsafe.Pointer(unsafe.StringData(piece)))
	return at >= start && at < start+uintptr(len(whole))
}
