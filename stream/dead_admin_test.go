package stream_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/stream"
)

// A wrong group is not taken for one without dead letters, and nothing is done
// for half an id: Redis would look for all messages of its millisecond, and
// remove the first.
func TestStream_WrongGroupsAndHalfIdsAreRefused(t *testing.T) {
	s := openShop(t, stream.Options[int]{})
	ctx := t.Context()
	s.srv.Do(t, "XADD", "m1:stream:{s}:dead:g", "7-1", "id", "1-1", "why", "x", "n", "1", "d", "1")
	for _, id := range []string{"7", "7-", "-", "+", "-1", "+7-1", "7-1-1", "x-1", ""} {
		var invalid *madcrow.ArgumentError
		if ok, err := s.Replay(ctx, "g", id); ok || !errors.As(err, &invalid) || invalid.Argument != "id" {
			t.Errorf("replay of %q: %v %v", id, ok, err)
		}
		if n, err := s.Purge(ctx, "g", "7-1", id); n != 0 || !errors.As(err, &invalid) {
			t.Errorf("purge of %q: %v %v", id, n, err)
		}
		if _, err := s.Dead(ctx, "g", id, 1); id != "" && !errors.As(err, &invalid) {
			t.Errorf("dead letters after %q: %v", id, err)
		}
	}
	if list, err := s.Dead(ctx, "g", "7-0", 10); len(list) != 1 || err != nil { // the group of workers is gone, or never was; they are here
		t.Errorf("%+v %v", list, err)
	}
	use := map[string]func(group string) error{
		"dead":   func(group string) error { _, err := s.Dead(ctx, group, "", 1); return err },
		"replay": func(group string) error { _, err := s.Replay(ctx, group, "7-1"); return err },
		"purge":  func(group string) error { _, err := s.Purge(ctx, group, "7-1"); return err },
		"all":    func(group string) error { _, err := s.Purge(ctx, group); return err },
		"lag":    func(group string) error { _, err := s.Lag(ctx, group); return err },
	}
	refused := func(group string, want func(error) bool) {
		t.Helper()
		for name, fn := range use {
			if err := fn(group); !want(err) {
				t.Errorf("%s of group %.10q: %v", name, group, err)
			}
		}
	}
	invalid := func(err error) bool {
		var e *madcrow.ArgumentError
		return errors.As(err, &e) && e.Argument == "group"
	}
	refused("", invalid)
	refused(strings.Repeat("x", 2000), invalid)
	delete(use, "lag") // everything is waiting for one that does not exist yet
	none := func(err error) bool {
		var e *madcrow.Error
		return errors.Is(err, stream.ErrNoGroup) && errors.As(err, &e) && e.Problem().Status == 404
	}
	refused("others", none) // there is no stream yet
	s.order(t, 1, 1)
	refused("others", none)
	s.srv.Do(t, "XGROUP", "CREATE", "m1:stream:{s}:log", "others", "0")
	refused("others", func(err error) bool { return err == nil })
}
