package cache_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
)

func TestInspect_ShowsWhatIsStored(t *testing.T) {
	r := open(t)
	c := newCache(t, r, cache.Options[user]{TTL: time.Minute, StaleTTL: time.Hour, NegativeTTL: 20 * time.Second, Jitter: -1, Tags: []string{"all"}})
	inspect := func(key string) (cache.Entry, bool) {
		t.Helper()
		e, found, err := cache.Inspect(t.Context(), r, "c", key)
		if err != nil {
			t.Fatal(err)
		}
		return e, found
	}
	if e, found := inspect("a key"); found {
		t.Errorf("there is none: %+v", e)
	}
	load := func(_ context.Context, l *cache.Load[user]) (user, error) {
		time.Sleep(2 * time.Millisecond)
		l.SetETag("abc")
		return user{1, "Alice"}, nil
	}
	if _, err := c.GetOrLoadWith(t.Context(), "a key", load, cache.WithTags("one")); err != nil {
		t.Fatal(err)
	}
	e, found := inspect("a key")
	if !found || string(e.Data) != `{"id":1,"name":"Alice"}` || e.Codec != 1 || e.Negative || e.Removed || e.ETag != "abc" ||
		e.Age > 30*time.Second || e.TTL+e.Age != time.Minute || e.KeptFor+e.Age != time.Hour+time.Minute ||
		e.Cost < 2*time.Millisecond || !slices.Equal(e.Tags, []string{"all", "one"}) {
		t.Errorf("%+v %v", e, found)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.ExpireTag(t.Context(), "one"))
	if e, found := inspect("a key"); !found || e.TTL != 0 || e.Removed || e.KeptFor < time.Hour {
		t.Errorf("after ExpireTag: %+v %v", e, found)
	}
	must(c.DeleteTag(t.Context(), "all"))
	if e, found := inspect("a key"); !found || !e.Removed {
		t.Errorf("after DeleteTag: %+v %v", e, found)
	}
	must(c.Set(t.Context(), "b", user{2, "Bob"}))
	must(c.Clear(t.Context()))
	if e, found := inspect("b"); !found || !e.Removed {
		t.Errorf("after Clear: %+v %v", e, found)
	}
	_, err := c.GetOrLoad(t.Context(), "none", func(context.Context) (user, error) { return user{}, cache.ErrNotFound })
	if !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	if e, found := inspect("none"); !found || !e.Negative || len(e.Data) > 0 || e.TTL > 20*time.Second || e.TTL <= 0 {
		t.Errorf("an absence: %+v %v", e, found)
	}
}

func TestInspect_WhatIsNoEntryIsAnError(t *testing.T) {
	r := open(t)
	err := r.Do(t.Context(), r.B().Set().Key(r.Config().KeyPrefix+"m1:cache:c:{k}").Value("{}").Build()).Err()
	if err != nil {
		t.Fatal(err)
	}
	var ours *madcrow.Error
	if _, found, err := cache.Inspect(t.Context(), r, "c", "k"); found || !errors.As(err, &ours) || ours.Kind != 0 {
		t.Errorf("%v %v", found, err)
	}
	var wrong *madcrow.ArgumentError
	if _, _, err := cache.Inspect(t.Context(), r, "a:b", "k"); !errors.As(err, &wrong) {
		t.Errorf("%v", err)
	}
	_ = r.Close(t.Context())
	if _, _, err := cache.Inspect(t.Context(), r, "c", "k"); !errors.Is(err, madcrow.ErrClosed) {
		t.Errorf("%v", err)
	}
}
