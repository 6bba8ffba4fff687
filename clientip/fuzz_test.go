package clientip_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/clientip"
)

// FuzzPolicy sends anything at all. No policy panics; an answer is unmapped, has
// no zone and a key; every refusal is ErrUnknown; and the two models of
// X-Forwarded-For agree with a plain version that splits the whole header.
func FuzzPolicy(f *testing.F) {
	f.Add("10.0.0.1:80", "6.6.6.6, 192.0.2.1", "10.0.0.2")
	f.Add("[fd00::1%eth0]:80", "[2001:db8::1]:80", "")
	f.Add("@", "", ",,")
	f.Add("::ffff:10.0.0.1", "::ffff:192.0.2.1", "unknown, 10.1.1.1:1")
	f.Fuzz(func(t *testing.T, remote, line1, line2 string) {
		r := request(remote, line1, line2)
		r.Header.Set("X-Real-IP", line1)
		for _, p := range []clientip.Policy{
			{},
			clientip.RemoteAddr(), count(t, 1), count(t, 2), count(t, 32),
			ranges(t, "10.0.0.0/8, fd00::/8"), header(t, "X-Real-IP"),
		} {
			a, err := p.Addr(r)
			key, keyErr := p.Key(r)
			if err != nil {
				if !errors.Is(err, clientip.ErrUnknown) || a.IsValid() || key != "" || !errors.Is(keyErr, err) {
					t.Fatalf("a refusal with %v, %v, %q, %v", a, err, key, keyErr)
				}
				continue
			}
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" || key == "" || keyErr != nil {
				t.Fatalf("an answer with %v, %q, %v", a, key, keyErr)
			}
		}
		for _, n := range []int{1, 2, 3} {
			same(t, count(t, n), r, plainCount(r, n))
		}
		trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
		same(t, ranges(t, "10.0.0.0/8, fd00::/8"), r, plainRanges(r, trusted))
	})
}

// FuzzTrustedProxies_TheClientChangesNothing lets the client write what it likes
// left of what n proxies append, in the same line and in lines of its own.
func FuzzTrustedProxies_TheClientChangesNothing(f *testing.F) {
	f.Add("6.6.6.6", "7.7.7.7", "192.0.2.1", uint8(1))
	f.Add(",", "", "[2001:db8::1]:80", uint8(2))
	f.Add("", ", ,\x00", "unknown", uint8(3))
	f.Fuzz(func(t *testing.T, line, left, client string, n uint8) {
		n = n%32 + 1
		if strings.Contains(client, ",") || len(client) > 100 {
			t.Skip("no proxy writes that as one entry")
		}
		p := count(t, int(n))
		appended := client + strings.Repeat(", 10.0.0.1", int(n)-1)
		want, wantErr := p.Addr(request("10.0.0.1:80", appended))
		for _, r := range []*http.Request{
			request("10.0.0.1:80", left+", "+appended),
			request("10.0.0.1:80", left+","+appended),
			request("10.0.0.1:80", line, appended),
			request("10.0.0.1:80", line, left, appended),
			request("10.0.0.1:80", line, left+", "+appended),
			request("10.0.0.1:80", append([]string{line, left}, strings.Split(appended, ",")...)...),
		} {
			if got, err := p.Addr(r); got != want || !errors.Is(err, wantErr) {
				t.Fatalf("%q: got %v, %v; want %v, %v", r.Header, got, err, want, wantErr)
			}
		}
	})
}

func same(t *testing.T, p clientip.Policy, r *http.Request, want netip.Addr) {
	t.Helper()
	if got, _ := p.Addr(r); got != want {
		t.Fatalf("%q from %q: got %v, want %v", r.Header, r.RemoteAddr, got, want)
	}
}

// The plain versions: the zero address stands for a refusal.

func plainCount(r *http.Request, n int) netip.Addr {
	all := plainEntries(r)
	if len(all) < n {
		return netip.Addr{}
	}
	for _, e := range all[len(all)-n:] {
		if len(e) > 128 {
			return netip.Addr{}
		}
	}
	return plainAddr(all[len(all)-n])
}

func plainRanges(r *http.Request, trusted []netip.Prefix) netip.Addr {
	chain := append(plainEntries(r), r.RemoteAddr)
	for i := len(chain) - 1; i >= 0 && i >= len(chain)-33; i-- {
		a := plainAddr(chain[i])
		inside := false
		for _, p := range trusted {
			inside = inside || p.Contains(a)
		}
		if !inside {
			return a
		}
	}
	return netip.Addr{}
}

func plainEntries(r *http.Request) []string {
	return strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
}

// plainAddr reads s by the one policy that looks at no list.
func plainAddr(s string) netip.Addr {
	a, _ := clientip.RemoteAddr().Addr(&http.Request{RemoteAddr: s})
	return a
}
