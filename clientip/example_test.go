package clientip_test

import (
	"errors"
	"fmt"
	"net/http/httptest"

	"github.com/madcrow-go/madcrow/clientip"
)

// One client sends a header of its own making; nginx appends what it sees.
func Example() {
	p, err := clientip.TrustedProxies(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.0.0.1:41234" // nginx
	r.Header.Set("X-Forwarded-For", "127.0.0.1, 203.0.113.9")
	fmt.Println(p.Addr(r))
	// Output:
	// 203.0.113.9 <nil>
}

func ExampleRemoteAddr() {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "[::ffff:203.0.113.9]:41234" // IPv4 on a socket for both
	r.Header.Set("X-Forwarded-For", "127.0.0.1")
	fmt.Println(clientip.RemoteAddr().Addr(r))
	// Output:
	// 203.0.113.9 <nil>
}

// Cloudflare in front of nginx: two proxies, two entries.
func ExampleTrustedProxies() {
	p, err := clientip.TrustedProxies(2)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Forwarded-For", "127.0.0.1, 203.0.113.9, 198.51.100.4")
	fmt.Println(p.Addr(r))

	r.Header.Set("X-Forwarded-For", "198.51.100.4") // past Cloudflare
	_, err = p.Addr(r)
	fmt.Println(errors.Is(err, clientip.ErrUnknown))
	// Output:
	// 203.0.113.9 <nil>
	// true
}

func ExampleTrustedRanges() {
	balancers, err := clientip.ParseRanges("10.0.8.0/24, 10.0.9.0/24", "fd00:8::/64")
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := clientip.TrustedRanges(balancers...)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Forwarded-For", "127.0.0.1, 203.0.113.9, 10.0.9.17")
	r.RemoteAddr = "10.0.8.3:41234"
	fmt.Println(p.Addr(r))

	r.RemoteAddr = "203.0.113.66:41234" // past the balancers
	fmt.Println(p.Addr(r))
	// Output:
	// 203.0.113.9 <nil>
	// 203.0.113.66 <nil>
}

func ExampleHeader() {
	p, err := clientip.Header("CF-Connecting-IP")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("CF-Connecting-IP", "203.0.113.9")
	fmt.Println(p.Addr(r))

	r.Header.Add("CF-Connecting-IP", "127.0.0.1")
	_, err = p.Addr(r)
	fmt.Println(err)
	// Output:
	// 203.0.113.9 <nil>
	// clientip: the client's address is unknown: the header is there more than once
}

func ExampleParseRanges() {
	_, err := clientip.ParseRanges("10.0.0.0/8, 192.168.1.1/24")
	fmt.Println(err)
	// Output:
	// clientip: invalid policy: the range 192.168.1.1/24 has bits behind its length; meant is 192.168.1.0/24 or the single address 192.168.1.1
}

func ExamplePolicy_Key() {
	p := clientip.RemoteAddr()
	for _, remote := range []string{"203.0.113.9:1", "[2001:db8:1:2::a]:1", "[2001:db8:1:2::b]:1"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = remote
		fmt.Println(p.Key(r))
	}
	// Output:
	// 203.0.113.9 <nil>
	// 2001:db8:1:2::/64 <nil>
	// 2001:db8:1:2::/64 <nil>
}

func ExamplePolicy_WithIPv6Bits() {
	p, err := clientip.RemoteAddr().WithIPv6Bits(56)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "[2001:db8:1:2::a]:1"
	fmt.Println(p.Key(r))
	// Output:
	// 2001:db8:1::/56 <nil>
}
