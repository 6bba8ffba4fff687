package session

import (
	"strings"
	"testing"
	"time"
)

// A session is read, then ended here, and then the reply to the read is looked
// at.
func TestFailStale_AReplyFromBeforeTheEndIsNotKept(t *testing.T) {
	rec := record{data: "x", left: time.Hour, ends: time.Hour}
	one, other := ident{member: "one"}, ident{member: "other"}
	for name, end := range map[string]func(*fallbackCopies){
		"one": func(c *fallbackCopies) { c.drop(one) },
		"all": func(c *fallbackCopies) { c.dropAll() },
	} {
		c := newFallbackCopies(time.Minute)
		c.on.Store(true)
		since := c.begin()
		end(c)
		c.put(one, rec, since)
		if _, ok := c.get(one); ok {
			t.Errorf("%s: it is kept", name)
		}
		c.put(other, rec, c.begin())
		if _, ok := c.get(other); !ok {
			t.Errorf("%s: nothing is kept any more", name)
		}
	}
}

func TestFailStale_IsBounded(t *testing.T) {
	c := newFallbackCopies(time.Minute)
	rec := record{data: strings.Repeat("x", 1<<20), left: time.Hour, ends: time.Hour}
	put := func(name string) { c.put(ident{member: name}, rec, c.begin()) }
	if put("off"); len(c.of) != 0 {
		t.Error("kept although no route wants copies")
	}
	c.on.Store(true)
	for i := range 100 {
		put(string(rune('a' + i)))
	}
	if c.size > maxCopyBytes || len(c.of) != c.size/len(rec.data) || len(c.of) < 30 {
		t.Errorf("%d bytes in %d copies", c.size, len(c.of))
	}
	for i := range maxCopies + 100 {
		rec.data = "x"
		put(string(rune(1000 + i)))
	}
	if len(c.of) > maxCopies {
		t.Errorf("%d copies", len(c.of))
	}
	// Each no longer than the session itself.
	for _, short := range []record{{left: time.Nanosecond, ends: time.Hour}, {left: time.Hour, ends: time.Nanosecond}} {
		rec = short
		put("short")
		time.Sleep(time.Microsecond)
		if _, ok := c.get(ident{member: "short"}); ok {
			t.Error("it outlives the session")
		}
	}
	for i := range maxCopies + 200 {
		c.lost(ident{member: string(rune(1000 + i))})
	}
	c.dropAll()
	if c.size != 0 || len(c.of) != 0 {
		t.Errorf("%d bytes in none", c.size)
	}
}
