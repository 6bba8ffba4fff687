package httpcache

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCodec_KeepsEverything(t *testing.T) {
	for _, s := range []*storedResponse{
		{
			kind: kindResponse, status: 404, strict: true, ownTag: true, fresh: time.Minute, swr: time.Second, sie: time.Hour, initialAge: 5 * time.Second,
			vary: []string{"a", "b"}, variant: "v|x", gen: "0123", tags: []string{"t", ""},
			header: http.Header{"X-A": {"1", "", "2"}, "Content-Type": nil}, body: []byte("body\x00"),
		},
		{kind: kindPass, body: []byte{}},
		{kind: kindVary, vary: []string{"a"}, gen: "g", body: []byte{}},
		{kind: kindTags, tags: []string{"a"}, body: []byte{}},
	} {
		data, err := codec{}.Append([]byte("before"), s)
		if err != nil || string(data[:6]) != "before" {
			t.Fatal(err)
		}
		got, err := codec{}.Decode(data[6:])
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%+v\n%+v, %v", s, got, err)
		}
		for n := range len(data) - 6 - len(s.body) {
			if _, err := (codec{}).Decode(data[6 : 6+n]); err == nil {
				t.Errorf("the first %d bytes of %d pass for an entry", n, len(data)-6)
			}
		}
		clear(data)
		if !reflect.DeepEqual(got, s) {
			t.Error("what was decoded shares memory with what it was decoded from")
		}
	}
}

// The layout is a promise: entries of another release are read.
func TestCodec_LayoutIsFixed(t *testing.T) {
	s := &storedResponse{
		kind: kindResponse, status: 200, ownTag: true, fresh: 1500 * time.Millisecond, swr: time.Second, vary: []string{"x"},
		variant: "v", gen: "g", tags: []string{"t"}, header: http.Header{"A": {"b"}}, body: []byte("c"),
	}
	data, err := codec{}.Append(nil, s)
	want := "\x01\x02\xc8\x01\xdc\x0b\xe8\x07\x00\x00\x01\x01x\x01v\x01g\x01\x01t\x01\x01A\x01\x01bc"
	if err != nil || string(data) != want || (codec{}).ID() != 4 {
		t.Errorf("%q %v", data, err)
	}
}

func FuzzCodec(f *testing.F) {
	data, _ := codec{}.Append(nil, &storedResponse{kind: kindResponse, status: 200, header: http.Header{"A": {"b"}}, tags: []string{"t"}, body: []byte("c")})
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := codec{}.Decode(data)
		if err != nil {
			return
		}
		again, err := codec{}.Append(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if s2, err := (codec{}).Decode(again); err != nil || !reflect.DeepEqual(s, s2) {
			t.Errorf("%+v\n%+v %v", s, s2, err)
		}
	})
}

func FuzzControl(f *testing.F) {
	for _, s := range []string{`max-age=60, private="a, b", s-maxage="5"`, `x="\",no-store", public`, `="`, `max-stale`, `a;b,"c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c := parseControl([]string{line})
		for _, d := range []time.Duration{c.maxAge, c.sMaxAge, c.swr, c.sie, c.maxStale, c.minFresh} {
			if d != -1 && d < 0 || d%time.Second != 0 && d != -1 {
				t.Errorf("%v", d)
			}
		}
		// Nothing gets lost in between, whatever the quotes.
		if got := strings.Join(slices.Collect(splitOutsideQuotes(line, ",")), ","); got != line {
			t.Errorf("%q, of %q", got, line)
		}
		// What follows after a well-formed header is always seen.
		if !strings.ContainsAny(line, `"`) && !parseControl([]string{line + ", no-store"}).noStore {
			t.Error("no-store is overlooked")
		}
		matches(line, `"a"`)
	})
}

// Queries with one key look the same to a handler.
func FuzzQuery(f *testing.F) {
	f.Add("a=1&b=2&a=3", "b=2&a=1&a=3")
	f.Add("%61=1&a=2", "a=2&%61=1")
	f.Fuzz(func(t *testing.T, one, two string) {
		parse := func(q string) (http.Request, string) {
			r, err := http.NewRequest("GET", "http://h/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.URL.RawQuery = q
			return *r, sortedQuery(q)
		}
		a, keyA := parse(one)
		b, keyB := parse(two)
		if keyA == keyB && !reflect.DeepEqual(a.URL.Query(), b.URL.Query()) {
			t.Errorf("%q and %q have one key %q", one, two, keyA)
		}
		sorted, again := parse(keyA)
		if again != keyA || !reflect.DeepEqual(sorted.URL.Query(), a.URL.Query()) {
			t.Errorf("%q became %q", one, keyA)
		}
	})
}
