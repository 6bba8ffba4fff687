package clientip_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/clientip"
)

// request has the given remote address and, in order, the lines of
// X-Forwarded-For.
func request(remote string, lines ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for _, line := range lines {
		r.Header.Add("X-Forwarded-For", line)
	}
	return r
}

func must(t testing.TB, p clientip.Policy, err error) clientip.Policy {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func count(t testing.TB, n int) clientip.Policy {
	t.Helper()
	p, err := clientip.TrustedProxies(n)
	return must(t, p, err)
}

func ranges(t testing.TB, texts ...string) clientip.Policy {
	t.Helper()
	rs, err := clientip.ParseRanges(texts...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := clientip.TrustedRanges(rs...)
	return must(t, p, err)
}

func header(t testing.TB, name string) clientip.Policy {
	t.Helper()
	p, err := clientip.Header(name)
	return must(t, p, err)
}

// check wants the address, or ErrUnknown when want is empty.
func check(t *testing.T, p clientip.Policy, r *http.Request, want string) {
	t.Helper()
	got, err := p.Addr(r)
	if want == "" {
		if !errors.Is(err, clientip.ErrUnknown) || got.IsValid() {
			t.Errorf("got %v, %v; want the zero address and ErrUnknown", got, err)
		}
		if key, err := p.Key(r); key != "" || !errors.Is(err, clientip.ErrUnknown) {
			t.Errorf("got the key %q, %v; want none and ErrUnknown", key, err)
		}
		return
	}
	if err != nil || got != netip.MustParseAddr(want) {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
}

func TestRemoteAddr_TakesTheConnectionAndNoHeader(t *testing.T) {
	for _, c := range []struct{ remote, want string }{
		{"192.0.2.1:1234", "192.0.2.1"},
		{"192.0.2.1", "192.0.2.1"},
		{"[2001:db8::1]:1234", "2001:db8::1"},
		{"[::ffff:192.0.2.1]:1234", "192.0.2.1"},
		{"[::ffff:c000:201]:1234", "192.0.2.1"},
		{"[fe80::1%eth0]:1234", "fe80::1"},
		{"@", ""},
		{"", ""},
		{"/run/app.sock", ""},
		{"0.0.0.0:0", ""},
		{"[::]:0", ""},
		{"example.com:80", ""},
	} {
		t.Run(c.remote, func(t *testing.T) {
			r := request(c.remote, "6.6.6.6")
			r.Header.Set("X-Real-IP", "6.6.6.6")
			r.Header.Set("Forwarded", "for=6.6.6.6")
			check(t, clientip.RemoteAddr(), r, c.want)
		})
	}
}

func TestTrustedProxies_CountsFromTheRight(t *testing.T) {
	for _, c := range []struct {
		name  string
		n     int
		lines []string
		want  string
	}{
		{"one proxy, the client is the last entry", 1, []string{"192.0.2.1"}, "192.0.2.1"},
		{"one proxy, spoofed", 1, []string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1"},
		{"one proxy, spoofed in a line of its own", 1, []string{"6.6.6.6", "192.0.2.1"}, "192.0.2.1"},
		{"one proxy, spoofed with garbage", 1, []string{"';drop--,,%, 192.0.2.1"}, "192.0.2.1"},
		{"two proxies", 2, []string{"192.0.2.1, 10.0.0.1"}, "192.0.2.1"},
		{"two proxies, spoofed", 2, []string{"6.6.6.6, 7.7.7.7, 192.0.2.1, 10.0.0.1"}, "192.0.2.1"},
		{"two proxies, a line each", 2, []string{"6.6.6.6", "192.0.2.1", "10.0.0.1"}, "192.0.2.1"},
		{"two proxies, lines broken elsewhere", 2, []string{"6.6.6.6, 192.0.2.1", "10.0.0.1"}, "192.0.2.1"},
		{"three proxies, spoofed with an empty line", 3, []string{"", "192.0.2.1, 10.0.0.2,10.0.0.1"}, "192.0.2.1"},
		{"the inner proxy came through a Unix socket", 2, []string{"192.0.2.1, unix:"}, "192.0.2.1"},
		{"no header", 1, nil, ""},
		{"too few entries", 2, []string{"192.0.2.1"}, ""},
		{"too few entries in lines", 3, []string{"192.0.2.1", "10.0.0.1"}, ""},
		{"an empty header", 1, []string{""}, ""},
		{"an empty entry decides", 1, []string{"6.6.6.6,"}, ""},
		{"an empty entry counts", 2, []string{"6.6.6.6, 192.0.2.1, ,10.0.0.1"}, ""},
		{"an empty line counts", 2, []string{"6.6.6.6", "", "10.0.0.1"}, ""},
		{"garbage decides", 1, []string{"6.6.6.6, unknown"}, ""},
		{"garbage decides among two", 2, []string{"6.6.6.6, _hidden, 10.0.0.1"}, ""},
		{"an entry without end", 2, []string{"6.6.6.6", "7.7.7.7, " + strings.Repeat("x", 200)}, ""},
		{"a name is no address", 1, []string{"localhost"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, count(t, c.n), request("10.0.0.9:80", c.lines...), c.want)
			check(t, count(t, c.n), request("@", c.lines...), c.want)
		})
	}
}

func TestTrustedProxies_ReadsEveryWayOfWritingAnAddress(t *testing.T) {
	for _, c := range []struct{ entry, want string }{
		{"192.0.2.1:80", "192.0.2.1"},
		{" \t192.0.2.1:0 ", "192.0.2.1"},
		{"2001:db8::1", "2001:db8::1"},
		{"2001:DB8:0:0::0:1", "2001:db8::1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"[2001:db8::1]:65535", "2001:db8::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"::ffff:c000:0201", "192.0.2.1"},
		{"[::FFFF:192.0.2.1]:80", "192.0.2.1"},
		{"0:0:0:0:0:ffff:c000:201", "192.0.2.1"},
		{"fe80::1%eth0", "fe80::1"},
		{"[fe80::1%25eth0]:80", "fe80::1"},
		{"::1:80", "::1:80"},
		{"192.0.2.1:", ""},
		{"192.0.2.1:65536", ""},
		{"192.0.2.1:+80", ""},
		{"192.0.2.1:http", ""},
		{"192.0.2.1%eth0", ""},
		{"::ffff:192.0.2.1%eth0", ""},
		{"fe80::1%", ""},
		{"[192.0.2.1]:80", ""},
		{"[2001:db8::1", ""},
		{"2001:db8::1]", ""},
		{"[2001:db8::1]80", ""},
		{"[[2001:db8::1]]", ""},
		{"[]:80", ""},
		{":80", ""},
		{"192.0.2.1 192.0.2.2", ""},
		{"192.0.2.01", ""},
		{"192.0.2", ""},
		{"3221225985", ""},
		{"0x7f.1", ""},
		{"\"192.0.2.1\"", ""},
		{"192.0.2.1\x00", ""},
		{"0.0.0.0", ""},
		{"::", ""},
		{"::ffff:0.0.0.0", ""},
	} {
		t.Run(c.entry, func(t *testing.T) {
			check(t, count(t, 1), request("", "6.6.6.6, "+c.entry), c.want)
			check(t, ranges(t, "10.0.0.0/8"), request("10.0.0.1:80", "6.6.6.6, "+c.entry), c.want)
			r := request("")
			r.Header.Set("X-Real-IP", c.entry)
			check(t, header(t, "X-Real-IP"), r, c.want)
		})
	}
}

func TestTrustedRanges_TakesTheRightmostThatIsNotTrusted(t *testing.T) {
	p := ranges(t, "10.0.0.0/8, 192.168.7.7", "fd00::/8", "::ffff:172.16.0.0/108")
	for _, c := range []struct {
		name   string
		remote string
		lines  []string
		want   string
	}{
		{"one proxy", "10.0.0.1:80", []string{"192.0.2.1"}, "192.0.2.1"},
		{"spoofed", "10.0.0.1:80", []string{"6.6.6.6, 192.0.2.1"}, "192.0.2.1"},
		{"spoofed with a trusted address", "10.0.0.1:80", []string{"10.9.9.9, 192.0.2.1"}, "192.0.2.1"},
		{"two proxies", "10.0.0.1:80", []string{"6.6.6.6, 192.0.2.1, 10.0.0.2"}, "192.0.2.1"},
		{"proxies of both families, in lines", "[fd00::1]:80", []string{"6.6.6.6, 192.0.2.1", "10.0.0.2", "[fd00::2]:9"}, "192.0.2.1"},
		{"a mapped proxy", "[::ffff:10.0.0.1]:80", []string{"192.0.2.1, ::ffff:10.0.0.2"}, "192.0.2.1"},
		{"a single address is a range", "192.168.7.7:80", []string{"192.0.2.1"}, "192.0.2.1"},
		{"its neighbour is none", "192.168.7.8:80", []string{"192.0.2.1"}, "192.168.7.8"},
		{"a mapped range", "172.31.0.1:80", []string{"192.0.2.1"}, "192.0.2.1"},
		{"past the proxies", "192.0.2.9:80", []string{"6.6.6.6, 10.0.0.1"}, "192.0.2.9"},
		{"past the proxies without a header", "192.0.2.9:80", nil, "192.0.2.9"},
		{"garbage left of the answer", "10.0.0.1:80", []string{"unknown,,, 192.0.2.1"}, "192.0.2.1"},
		{"garbage decides", "10.0.0.1:80", []string{"6.6.6.6, unknown"}, ""},
		{"garbage right of the answer", "10.0.0.1:80", []string{"192.0.2.1, unknown, 10.0.0.2"}, ""},
		{"an empty entry decides", "10.0.0.1:80", []string{"192.0.2.1,"}, ""},
		{"no header", "10.0.0.1:80", nil, ""},
		{"all are trusted", "10.0.0.1:80", []string{"10.0.0.2, fd00::2"}, ""},
		{"a Unix socket", "@", []string{"192.0.2.1"}, ""},
		{"32 entries are read", "10.0.0.1:80", []string{"192.0.2.1" + strings.Repeat(",10.0.0.2", 31)}, "192.0.2.1"},
		{"no more are", "10.0.0.1:80", []string{"192.0.2.1" + strings.Repeat(",10.0.0.2", 32)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, p, request(c.remote, c.lines...), c.want)
		})
	}
}

func TestTrustedRanges_KeepsItsOwnCopy(t *testing.T) {
	rs := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p, err := clientip.TrustedRanges(rs...)
	p = must(t, p, err)
	rs[0] = netip.MustParsePrefix("192.0.2.0/24")
	check(t, p, request("192.0.2.1:80", "6.6.6.6"), "192.0.2.1")
}

func TestHeader_TakesExactlyOneValue(t *testing.T) {
	p := header(t, "cf-connecting-ip")
	for _, c := range []struct {
		name   string
		values []string
		want   string
	}{
		{"one", []string{"192.0.2.1"}, "192.0.2.1"},
		{"IPv6", []string{"2001:db8::1"}, "2001:db8::1"},
		{"absent", nil, ""},
		{"empty", []string{""}, ""},
		{"repeated", []string{"192.0.2.1", "6.6.6.6"}, ""},
		{"repeated, the same", []string{"192.0.2.1", "192.0.2.1"}, ""},
		{"a list", []string{"6.6.6.6, 192.0.2.1"}, ""},
		{"garbage", []string{"unknown"}, ""},
		{"endless", []string{strings.Repeat(" ", 1<<16) + "192.0.2.1"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request("10.0.0.1:80", "6.6.6.6")
			for _, v := range c.values {
				r.Header.Add("CF-Connecting-IP", v)
			}
			check(t, p, r, c.want)
		})
	}
}

func TestPolicy_ZeroRefusesEveryRequest(t *testing.T) {
	var p clientip.Policy
	check(t, p, request("192.0.2.1:80", "192.0.2.1"), "")
	_, err := p.Addr(&http.Request{})
	if !errors.Is(err, clientip.ErrPolicy) {
		t.Errorf("got %v, want ErrPolicy too", err)
	}
	if p, err := p.WithIPv6Bits(56); !errors.Is(err, clientip.ErrPolicy) || errors.Is(err, clientip.ErrUnknown) || p.IsValid() {
		t.Errorf("WithIPv6Bits: got %v, %v; want ErrPolicy alone", p, err)
	}
	if p.IsValid() || !clientip.RemoteAddr().IsValid() {
		t.Error("IsValid is wrong")
	}
}

func TestConstructors_RefuseInvalidPolicies(t *testing.T) {
	for _, c := range []struct {
		name string
		make func() (clientip.Policy, error)
		says string
	}{
		{"no proxy", func() (clientip.Policy, error) { return clientip.TrustedProxies(0) }, "RemoteAddr"},
		{"less than none", func() (clientip.Policy, error) { return clientip.TrustedProxies(-1) }, "-1"},
		{"too many proxies", func() (clientip.Policy, error) { return clientip.TrustedProxies(33) }, "32"},
		{"a number that wraps", func() (clientip.Policy, error) { return clientip.TrustedProxies(257) }, "257"},
		{"no range", func() (clientip.Policy, error) { return clientip.TrustedRanges() }, "RemoteAddr"},
		{"the invalid range", func() (clientip.Policy, error) { return clientip.TrustedRanges(netip.Prefix{}) }, "invalid"},
		{"all of IPv4", rangeOf("0.0.0.0/0"), "every address"},
		{"all of IPv4, mapped", rangeOf("::ffff:0.0.0.0/96"), "every address"},
		{"all of IPv6", rangeOf("::/0"), "every address"},
		{"bits behind the length", rangeOf("10.1.2.3/8"), "10.0.0.0/8"},
		{"part of the mapping", rangeOf("::ffff:10.0.0.0/90"), "bits behind"},
		{"no name", func() (clientip.Policy, error) { return clientip.Header("") }, "not a header name"},
		{"a blank in the name", func() (clientip.Policy, error) { return clientip.Header("X Real IP") }, "not a header name"},
		{"a colon in the name", func() (clientip.Policy, error) { return clientip.Header("X-Real-IP:") }, "not a header name"},
		{"a list", func() (clientip.Policy, error) { return clientip.Header("x-forwarded-for") }, "TrustedProxies"},
		{"another list", func() (clientip.Policy, error) { return clientip.Header("forwarded") }, "TrustedProxies"},
		{"address and port in one", func() (clientip.Policy, error) { return clientip.Header("CloudFront-Viewer-Address") }, "port"},
		{"47 bits", func() (clientip.Policy, error) { return clientip.RemoteAddr().WithIPv6Bits(47) }, "48"},
		{"129 bits", func() (clientip.Policy, error) { return clientip.RemoteAddr().WithIPv6Bits(129) }, "128"},
		{"bits that wrap", func() (clientip.Policy, error) { return clientip.RemoteAddr().WithIPv6Bits(256 + 64) }, "320"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := c.make()
			if !errors.Is(err, clientip.ErrPolicy) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrPolicy with %q", err, c.says)
			}
			// Who overlooks the error gets no answers, not wrong ones.
			check(t, p, request("192.0.2.1:80", "192.0.2.1"), "")
		})
	}
}

func rangeOf(s string) func() (clientip.Policy, error) {
	return func() (clientip.Policy, error) { return clientip.TrustedRanges(netip.MustParsePrefix(s)) }
}

func TestParseRanges_NamesEveryMistake(t *testing.T) {
	rs, err := clientip.ParseRanges("192.0.2.0/24,10.0.0.0/33", "office", "", "fe80::1%eth0", "172.16.0.1/12")
	if rs != nil || !errors.Is(err, clientip.ErrPolicy) {
		t.Fatalf("got %v, %v; want ErrPolicy", rs, err)
	}
	for _, s := range []string{`"10.0.0.0/33"`, `"office"`, "empty", `"fe80::1%eth0"`, "172.16.0.0/12"} {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q is not in the error:\n%v", s, err)
		}
	}
	if strings.Contains(err.Error(), "192.0.2.0/24") {
		t.Errorf("the error names a range that is right:\n%v", err)
	}
}

func TestKey_IsTheAddressOrTheNetwork(t *testing.T) {
	for _, c := range []struct {
		remote string
		bits   int // 0: as made
		want   string
	}{
		{"192.0.2.1:80", 0, "192.0.2.1"},
		{"[::ffff:192.0.2.1]:80", 0, "192.0.2.1"},
		{"[::ffff:192.0.2.1]:80", 48, "192.0.2.1"},
		{"[2001:db8:1:2:3:4:5:6]:80", 0, "2001:db8:1:2::/64"},
		{"[2001:db8:1:2:ffff::]:80", 0, "2001:db8:1:2::/64"},
		{"[2001:db8:1:2ff:3:4:5:6]:80", 56, "2001:db8:1:200::/56"},
		{"[2001:db8:1:2:3:4:5:6]:80", 48, "2001:db8:1::/48"},
		{"[2001:db8:1:2:3:4:5:6]:80", 128, "2001:db8:1:2:3:4:5:6/128"},
		{"[fe80::1%eth0]:80", 128, "fe80::1/128"},
		{"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:80", 128, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
	} {
		t.Run(c.remote, func(t *testing.T) {
			p := clientip.RemoteAddr()
			if c.bits != 0 {
				var err error
				p, err = p.WithIPv6Bits(c.bits)
				p = must(t, p, err)
			}
			if got, err := p.Key(request(c.remote)); err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestWithIPv6Bits_LeavesTheReceiverUnchanged(t *testing.T) {
	p := clientip.RemoteAddr()
	if _, err := p.WithIPv6Bits(48); err != nil {
		t.Fatal(err)
	}
	if got, _ := p.Key(request("[2001:db8:1:2::3]:80")); got != "2001:db8:1:2::/64" {
		t.Errorf("got %q", got)
	}
}

// A megabyte from the client costs nothing and changes nothing.
func TestPolicy_AllocatesNoMoreThanTheKey(t *testing.T) {
	junk := strings.Repeat("6.6.6.6,", 1<<17)
	long := request("10.0.0.1:80", junk, junk+"[2001:db8::1%eth0]:80, 10.0.0.2")
	long.Header.Set("X-Real-IP", "::ffff:192.0.2.1")
	for name, p := range map[string]clientip.Policy{
		"remote": clientip.RemoteAddr(),
		"count":  count(t, 2),
		"ranges": ranges(t, "10.0.0.0/8", "fd00::/8"),
		"header": header(t, "X-Real-IP"),
	} {
		t.Run(name, func(t *testing.T) {
			if n := testing.AllocsPerRun(100, func() { _, _ = p.Addr(long) }); n != 0 {
				t.Errorf("Addr: %v allocations", n)
			}
			if n := testing.AllocsPerRun(100, func() { _, _ = p.Key(long) }); n > 1 {
				t.Errorf("Key: %v allocations", n)
			}
			if _, err := p.Key(long); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrors_DoNotRepeatTheClient(t *testing.T) {
	const evil = "evil\ntext"
	r := request(evil, evil)
	r.Header.Set("X-Real-IP", evil)
	local := request("10.0.0.1:80", evil)
	for _, c := range []struct {
		p clientip.Policy
		r *http.Request
	}{
		{clientip.RemoteAddr(), r},
		{count(t, 1), r},
		{ranges(t, "10.0.0.0/8"), r},
		{ranges(t, "10.0.0.0/8"), local},
		{header(t, "X-Real-IP"), r},
	} {
		if _, err := c.p.Addr(c.r); err == nil || strings.Contains(err.Error(), "evil") {
			t.Errorf("got %v", err)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	spoofed := strings.Repeat("6.6.6.6, ", 1<<16)
	rs := make([]string, 24) // as many as Cloudflare has
	for i := range rs {
		rs[i] = netip.AddrFrom4([4]byte{10, byte(i), 0, 0}).String() + "/16"
	}
	for _, c := range []struct {
		name string
		p    clientip.Policy
		r    *http.Request
	}{
		{"remote", clientip.RemoteAddr(), request("192.0.2.1:80")},
		{"remote6", clientip.RemoteAddr(), request("[2001:db8:1:2:3:4:5:6]:80")},
		{"count", count(b, 2), request("10.23.0.1:80", "192.0.2.1, 10.23.0.2")},
		{"count/long", count(b, 2), request("10.23.0.1:80", spoofed+"192.0.2.1, 10.23.0.2")},
		{"ranges", ranges(b, rs...), request("10.23.0.1:80", "192.0.2.1, 10.23.0.2")},
		{"ranges/long", ranges(b, rs...), request("10.23.0.1:80", spoofed+"192.0.2.1, 10.23.0.2")},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.p.Key(c.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
