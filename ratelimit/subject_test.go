package ratelimit

import (
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/limitscript"
)

// FuzzSubjectKey: two subjects never share a key, and none changes the slot's
// tag or makes a key long.
func FuzzSubjectKey(f *testing.F) {
	for _, s := range []string{"", "{}", "}{", "a", "~", "\x00", "a:block", strings.Repeat("x", 97)} {
		f.Add(s, "a")
		f.Add(s, s+"}")
	}
	const before = "app:m1:limit:x:l:{"
	f.Fuzz(func(t *testing.T, a, b string) {
		key, other := subjectKey(before, a), subjectKey(before, b)
		tag, ok := strings.CutPrefix(key, before)
		tag, end := strings.CutSuffix(tag, "}")
		if !ok || !end || tag == "" || strings.ContainsAny(tag, "{}\r\n\x00 ") || len(key) > len(before)+200 {
			t.Errorf("%q: key %q", a, key)
		}
		if (key == other) != (a == b) || key+limitscript.BlockSuffix == other || key == other+limitscript.BlockSuffix {
			t.Errorf("%q and %q: keys %q and %q", a, b, key, other)
		}
		// What a key shows is no other subject's way to it.
		if tag != a && subjectKey(before, tag) == key {
			t.Errorf("%q has the key of %q", tag, a)
		}
	})
}
