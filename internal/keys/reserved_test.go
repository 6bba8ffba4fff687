package keys_test

import (
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/keys"
)

// A beginning was looked for at the beginning alone, so that an application
// without a prefix read and removed the sessions of one with the prefix shop:.
func TestReserved_HoldsUnderEveryPrefixAndLeavesOrdinaryKeys(t *testing.T) {
	legacy := []string{"session:", "login_attempts:", "rate_limit:"}
	for _, tc := range []struct{ prefix, key, want string }{
		{"", "m1:x", "m1:"},
		{"app:", "m1:x", "m1:"},
		{"app", "m1:x", "m1:"},
		{"", "shop:m1:session:web:{t}:s:1", "m1:"},
		{"", "shop_m1:x", "m1:"},
		{"", "a:b:c/m1:x", "m1:"},
		{"", "shopm1:topic:{pay}:meta", "m1:"},
		{"", "shopm1:cache:pages:gen", "m1:"},
		{"m", "1:x", "m1:"},
		{"", "session:7", "session:"},
		{"", "shop:session:7", "session:"},
		{"", "shop.session:7", "session:"},
		{"app:", "shop:rate_limit:u", "rate_limit:"},
		{"", "{shop}login_attempts:u", "login_attempts:"},
		{"sess", "ion:7", "session:"},
		{"a:b:", "x::session:", "session:"},

		{"", "", ""},
		{"", "greeting", ""},
		{"", "room1:lamp", ""},
		{"", "m1", ""},
		{"", "user_session:7", ""},
		{"", "user-session:7", ""},
		{"", "sessions:7", ""},
		{"", "möbelm1:x", ""},
		{"", "Session:7", ""},
		// What the operator chose is no stranger's.
		{"session:", "7", ""},
		{"m1:", "7", ""},
		{"m1:", "m1:7", "m1:"},
	} {
		if got := keys.Reserved(tc.prefix, tc.key, legacy...); got != tc.want {
			t.Errorf("%q + %q: %q, want %q", tc.prefix, tc.key, got, tc.want)
		}
	}
	if got := keys.Reserved("", "session:7"); got != "" {
		t.Errorf("a session that was not asked for: %q", got)
	}
}

// A server's own channels have no prefix, whatever ours is.
func TestReservedChannel_IsTheServersAndTheTypedPackages(t *testing.T) {
	for _, tc := range []struct{ prefix, channel, want string }{
		{"", "__sentinel__:hello", "__"},
		{"", "__redis__:invalidate", "__"},
		{"", "__keyspace@0__:x", "__"},
		{"app:", "__sentinel__:hello", "__"},
		{"_", "_sentinel__:hello", "__"},
		{"__sent", "inel__:hello", ""}, // the operator chose to be there
		{"app:", "m1:topic:{pay}:live", "m1:"},
		{"", "app:m1:topic:{pay}:live", "m1:"},
		{"", "appm1:topic:{pay}:live", "m1:"},
		{"", "m1:probe:x", "m1:"},
		{"", "app:m1:probe:x", "m1:"},
		{"", "appm1:probe:{t}:x", "m1:"},
		{"", "m1:*", "m1:"},
		{"app:", "m1:anything", "m1:"},
		{"", "news", ""},
		// Elsewhere m1: is a word like others: machine 1, user m1.
		{"", "factory:m1:temperature", ""},
		{"", "user/m1:x", ""},
		{"app:", "factory:m1:{7}", ""},
		{"", "room1:probe:temperature", ""},
		{"", "shop:m1:*", ""}, // as a pattern it hears none of ours all the same
		{"", "news:__init__", ""},
		{"", "_news", ""},
		{"", "session:7", ""},
	} {
		if got := keys.ReservedChannel(tc.prefix, tc.channel); got != tc.want {
			t.Errorf("%q + %q: %q, want %q", tc.prefix, tc.channel, got, tc.want)
		}
	}
	for name, ok := range map[string]bool{"": false, "a": true, strings.Repeat("a", 1024): true, strings.Repeat("a", 1025): false} {
		if (keys.CheckChannel("", name) == "") != ok {
			t.Errorf("%d bytes: %q", len(name), keys.CheckChannel("", name))
		}
	}
}
