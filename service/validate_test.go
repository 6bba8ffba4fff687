package service

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
)

// reservedChannels is channels that no client may name: the servers' own
// and those of the typed packages, under our prefix and under others.
var reservedChannels = []string{
	"__sentinel__:hello", "__redis__:invalidate", "__keyspace@0__:k", "m1:topic:{pay}:live", "m1:probe:x", "shop:m1:topic:{pay}:live",
}

// Any channel could be named: one message to __sentinel__:hello made the
// Sentinels, and then this program, turn to a server of the sender's choice.
func TestService_ReservedChannelsAreRefused(t *testing.T) {
	s, srv := start(t)
	prefixed := New(openPrefixed(t, srv.Config(), "app:"), Options{})
	for _, s := range []*Service{s, prefixed, New(s.redis, Options{ReservedKeys: true})} {
		for _, channel := range append(reservedChannels, "", strings.Repeat("c", 1025)) {
			var v *madcrow.ArgumentError
			if _, err := s.Publish(t.Context(), channel, "x"); !errors.As(err, &v) || v.Argument != "channel" {
				t.Errorf("publish to %.30q: %v", channel, err)
			}
			v = nil
			for _, err := range s.Subscribe(t.Context(), "news", channel) {
				if !errors.As(err, &v) || v.Argument != "channel" {
					t.Errorf("subscribe to %.30q: %v", channel, err)
				}
				break
			}
		}
	}
	if _, err := s.Publish(t.Context(), strings.Repeat("c", 1024), "x"); err != nil {
		t.Error(err)
	}
}

func openPrefixed(t *testing.T, cfg madcrow.Config, prefix string) *madcrow.Redis {
	t.Helper()
	cfg.KeyPrefix = prefix
	r, err := madcrow.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	return r
}

// Of two applications on one Redis, the one without a prefix read the other's
// sessions, ended them, and reset its limits.
func TestService_ReservedKeysOfOtherApplicationsAreRefused(t *testing.T) {
	first, srv := start(t)
	shop := New(openPrefixed(t, srv.Config(), "shop:"), Options{})
	ctx := t.Context()
	must(t, shop.SetSession(ctx, "victim", map[string]any{"a": 1}, 0))
	_, err := shop.CheckRateLimit(ctx, "rate_limit:u", 5, time.Minute)
	must(t, err)
	srv.Do(t, "SET", "shop:m1:session:web:{t}:s:1", "secret")
	for _, key := range []string{"shop:session:victim", "shop:rate_limit:u", "shop:m1:session:web:{t}:s:1", "shop:login_attempts:u"} {
		for name, err := range map[string]error{
			"get": second(first.GetCacheWithTTL(ctx, key)), "set": first.SetCache(ctx, key, "x", 0), "delete": second(first.DeleteCache(ctx, key)),
			"exists": second(first.Exists(ctx, key)),
		} {
			var v *madcrow.ArgumentError
			if !errors.As(err, &v) || v.Argument != "key" {
				t.Errorf("%s of %s: %v", name, key, err)
			}
		}
		if strings.Contains(key, "rate_limit") {
			continue
		}
		if _, err := first.ResetRateLimit(ctx, key); err == nil {
			t.Errorf("%s was reset as a limit", key)
		}
	}
	if _, found, err := shop.GetSession(ctx, "victim"); !found || err != nil {
		t.Errorf("the session is gone: %v", err)
	}
	// Other keys stay as FastAPI Madcrow has them.
	for _, key := range []string{"user_session:7", "cart:7", "room1:lamp", "sessions:all"} {
		must(t, first.SetCache(ctx, key, "x", time.Minute))
	}
	for _, key := range []string{"rate_limit:session:7", "rate_limit:m1:7"} {
		if _, err := first.CheckRateLimit(ctx, key, 1, time.Minute); err != nil {
			t.Errorf("a limit of %s: %v", key, err)
		}
	}
}
