package clientip

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/madcrow-go/madcrow/problem"
)

var (
	// ErrUnknown is every error of [Policy.Addr] and [Policy.Key]: the request
	// does not show its client's address in a way that can be trusted. No error
	// text repeats what the client sent. Returned by a handler it is a 400.
	ErrUnknown error = unknown{}

	// ErrPolicy is every error of a constructor: the policy is invalid. It is
	// also, besides ErrUnknown, the error of the zero Policy's methods.
	ErrPolicy = errors.New("clientip: invalid policy")
)

type unknown struct{}

func (unknown) Error() string { return "clientip: the client's address is unknown" }

// Problem returns a 400.
func (unknown) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Code: "CLIENT_UNKNOWN", Message: "The client's address cannot be determined"}
}

// These errors are allocated once: an attacker can make refusals a hot path.
var (
	errZero     = fmt.Errorf("%w: it is the zero value; make one with a constructor", ErrPolicy)
	errZeroUse  = fmt.Errorf("%w: %w", ErrUnknown, errZero)
	errRemote   = fmt.Errorf("%w: the connection has no IP address", ErrUnknown)
	errFew      = fmt.Errorf("%w: X-Forwarded-For has fewer entries than there are trusted proxies", ErrUnknown)
	errTrusted  = fmt.Errorf("%w: every address of the chain is a trusted proxy's", ErrUnknown)
	errLong     = fmt.Errorf("%w: X-Forwarded-For is too long to be believed", ErrUnknown)
	errEntry    = fmt.Errorf("%w: the entry of X-Forwarded-For that decides is no IP address", ErrUnknown)
	errAbsent   = fmt.Errorf("%w: the header is absent", ErrUnknown)
	errRepeated = fmt.Errorf("%w: the header is there more than once", ErrUnknown)
	errValue    = fmt.Errorf("%w: the header is no IP address", ErrUnknown)
)

type model uint8

const (
	modelNone model = iota // the zero Policy
	modelRemote
	modelCount
	modelRanges
	modelHeader
)

// defaultIPv6Bits is what one customer usually has: a provider gives out at
// least a /64, and its owner can use a new address of it for every request.
const defaultIPv6Bits = 64

// Policy determines the client's address of a request. It is immutable and safe
// for concurrent use. The zero Policy refuses every request.
type Policy struct {
	model    model
	proxies  uint8 // modelCount
	ipv6Bits uint8
	header   string         // modelHeader, canonical
	ranges   []netip.Prefix // modelRanges, never written after the constructor
}

// RemoteAddr uses the address of the connection. It reads no header.
//
// Safe when clients connect to this server directly, or through a balancer that
// keeps their address (AWS NLB with client IP preservation), or where the
// listener speaks the PROXY protocol and sets http.Request.RemoteAddr. A client
// cannot spoof it.
//
// Behind nginx, an ALB or Cloudflare it is the proxy's address: all clients are
// then one. A middleware that writes a header into http.Request.RemoteAddr (chi's
// RealIP) makes it spoofable; do not put one in front. A Unix socket has no
// address: [ErrUnknown].
func RemoteAddr() Policy {
	return Policy{model: modelRemote, ipv6Bits: defaultIPv6Bits}
}

// TrustedProxies takes the n-th entry of X-Forwarded-For from the right, for a
// server behind exactly n proxies, 1 to 32, each of which appends the address
// that it was called from. The last proxy is the one that connects to this
// server: its own address is not in the header, so with one proxy the client is
// the last entry. Entries that a client sends are further left and are never read.
// The address of the connection is not read either, so the last proxy may connect
// through a Unix socket.
//
// Safe when no request can reach this server past one of the n proxies, and
// each of them appends one entry or, the first one, overwrites the header:
//
//   - nginx with proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for: 1;
//     without that line nginx hands the client's header on, which is spoofable
//   - AWS ALB in its mode "append", the default: 1; spoofable in the mode
//     "preserve", and ErrUnknown in "remove"
//   - Cloudflare or CloudFront, then ALB or nginx: 2, if these let in no one else
//   - Google Cloud's external balancer: 2, for it appends two entries
//
// With too large an n every client chooses its own address; with too small an n
// all clients have a proxy's address. A client that bypasses a proxy chooses its
// address too. Fewer than n entries are
// [ErrUnknown]: health checks of a balancer are, which come without the header.
func TrustedProxies(n int) (Policy, error) {
	if n < 1 || n > maxProxies {
		return Policy{}, fmt.Errorf("%w: %d trusted proxies; 1 to %d can be, and without one it is RemoteAddr", ErrPolicy, n, maxProxies)
	}
	return Policy{model: modelCount, proxies: uint8(n), ipv6Bits: defaultIPv6Bits}, nil
}

// TrustedRanges takes the rightmost address that lies in none of the ranges. The
// chain is X-Forwarded-For and, at its right end, the address of the connection:
// a client that bypasses the proxies has its own address, whatever it sends. [ParseRanges] reads ranges from text.
//
// Safe when the ranges hold proxies only, each of which appends the address that
// it was called from (for nginx and ALB see [TrustedProxies]). It suits
// a number of proxies that varies: give the subnets of the ALB, and Cloudflare's
// published ranges if it stands in front.
//
// Spoofable by every client inside a range: its header is trusted. So 10.0.0.0/8
// is too wide where other machines of the network are clients. Where Docker or
// another NAT shows all clients with the gateway's private address, a range that
// contains the gateway lets all of them choose. The ranges of a cloud or of a CDN are
// those of its other customers as well.
//
// If the whole chain is trusted, or longer than 32 trusted entries, the answer is
// [ErrUnknown]; so it is for a connection through a Unix socket.
//
// An IPv4-mapped range (::ffff:10.0.0.0/104) is treated as IPv4. An error names
// every range with bits behind its length (10.1.2.3/8), and every one that
// trusts all addresses.
func TrustedRanges(ranges ...netip.Prefix) (Policy, error) {
	if len(ranges) == 0 {
		return Policy{}, fmt.Errorf("%w: no trusted ranges; without a proxy it is RemoteAddr", ErrPolicy)
	}
	own := slices.Clone(ranges)
	var errs []error
	for i, given := range own {
		r, err := checkRange(given)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", ErrPolicy, err))
		}
		own[i] = r
	}
	if len(errs) > 0 {
		return Policy{}, errors.Join(errs...)
	}
	return Policy{model: modelRanges, ranges: own, ipv6Bits: defaultIPv6Bits}, nil
}

// Header uses the one address in the named header. A header that is absent, sent
// more than once, a list or no address is [ErrUnknown].
//
// Safe when the edge overwrites the header in every request, and no request can
// reach this server past the edge:
//
//   - Cloudflare: CF-Connecting-IP, with the origin closed to all others (a
//     tunnel or authenticated origin pulls). Not True-Client-IP, unless it is
//     switched on: until then Cloudflare hands on what the client sent
//   - nginx with proxy_set_header X-Real-IP $remote_addr: X-Real-IP
//   - Fly.io: Fly-Client-IP
//
// AWS ALB sets no such header; see [TrustedProxies]. If the edge does not set
// the header, or can be passed by, every client chooses its own address.
//
// Refused are the lists X-Forwarded-For and Forwarded, which clients begin, and
// CloudFront-Viewer-Address, where an IPv6 address and its port run together.
func Header(name string) (Policy, error) {
	if name == "" || strings.ContainsFunc(name, notToken) {
		return Policy{}, fmt.Errorf("%w: %q is not a header name", ErrPolicy, name)
	}
	name = http.CanonicalHeaderKey(name)
	switch name {
	case xForwardedFor, "Forwarded":
		return Policy{}, fmt.Errorf("%w: %s is a list that the client begins; see TrustedProxies and TrustedRanges", ErrPolicy, name)
	case "Cloudfront-Viewer-Address":
		return Policy{}, fmt.Errorf("%w: %s does not part an IPv6 address from its port; see TrustedProxies", ErrPolicy, name)
	}
	return Policy{model: modelHeader, header: name, ipv6Bits: defaultIPv6Bits}, nil
}

// notToken reports whether a header name cannot contain r (RFC 9110, 5.6.2).
func notToken(r rune) bool {
	switch {
	case '0' <= r && r <= '9', 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z':
		return false
	}
	return !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// WithIPv6Bits returns p with another length of the networks that [Policy.Key]
// treats as one client: 48 to 128, by default 64. Fewer bits suit where one
// customer has a /56 or a /48, and let neighbours share a limit more often; with
// 128 whoever has a /64 has 2^64 keys, and so no limit. Other lengths, and the
// zero Policy, are [ErrPolicy].
func (p Policy) WithIPv6Bits(bits int) (Policy, error) {
	if p.model == modelNone {
		return Policy{}, errZero
	}
	if bits < 48 || bits > 128 {
		return Policy{}, fmt.Errorf("%w: IPv6 networks of %d bits; 48 to 128 can be", ErrPolicy, bits)
	}
	p.ipv6Bits = uint8(bits)
	return p, nil
}

// IsValid is false for the zero Policy, which refuses every request. A package that
// is given a Policy can check it at its start.
func (p Policy) IsValid() bool { return p.model != modelNone }

// Addr returns the address of the client. An IPv4-mapped IPv6 address becomes
// IPv4 and a zone is dropped, so that one client has one address however it is
// written. Ports, brackets and blanks around an address are ignored. Every
// error is [ErrUnknown]; the address is then the zero netip.Addr.
func (p Policy) Addr(r *http.Request) (netip.Addr, error) {
	switch p.model {
	case modelRemote:
		return p.byRemote(r)
	case modelCount:
		return p.byCount(r)
	case modelRanges:
		return p.byRanges(r)
	case modelHeader:
		return p.byHeader(r)
	}
	return netip.Addr{}, errZeroUse
}

// Key returns the rate limit key of the client: the IPv4 address ("192.0.2.1"), or the
// IPv6 network ("2001:db8:1:2::/64", see [Policy.WithIPv6Bits]), for an IPv6
// client can change its address at will within its network. Its errors are those
// of [Policy.Addr]; the key is then empty and must not be used.
func (p Policy) Key(r *http.Request) (string, error) {
	a, err := p.Addr(r)
	if err != nil {
		return "", err
	}
	var buf [len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")]byte
	if a.Is4() {
		return string(a.AppendTo(buf[:0])), nil
	}
	network := netip.PrefixFrom(a, int(p.ipv6Bits)).Masked()
	return string(network.AppendTo(buf[:0])), nil
}

func (p Policy) byRemote(r *http.Request) (netip.Addr, error) {
	a, ok := parseAddr(r.RemoteAddr)
	if !ok {
		return netip.Addr{}, errRemote
	}
	return a, nil
}

func (p Policy) byCount(r *http.Request) (netip.Addr, error) {
	chain := entries{lines: r.Header[xForwardedFor]}
	var entry string
	// Every entry counts, an empty one too: skipping it would move the result one
	// place to the left, where the client writes.
	for range p.proxies {
		var ok bool
		if entry, ok = chain.next(); !ok {
			return netip.Addr{}, errFew
		}
		if len(entry) > maxEntry {
			return netip.Addr{}, errLong
		}
	}
	a, ok := parseAddr(entry)
	if !ok {
		return netip.Addr{}, errEntry
	}
	return a, nil
}

func (p Policy) byRanges(r *http.Request) (netip.Addr, error) {
	a, err := p.byRemote(r)
	if err != nil || !p.trusts(a) {
		return a, err
	}
	chain := entries{lines: r.Header[xForwardedFor]}
	for range maxProxies {
		entry, ok := chain.next()
		if !ok {
			return netip.Addr{}, errTrusted
		}
		a, ok := parseAddr(entry)
		if !ok {
			return netip.Addr{}, errEntry
		}
		if !p.trusts(a) {
			return a, nil
		}
	}
	return netip.Addr{}, errLong
}

func (p Policy) byHeader(r *http.Request) (netip.Addr, error) {
	values := r.Header[p.header]
	if len(values) == 0 {
		return netip.Addr{}, errAbsent
	}
	if len(values) > 1 {
		return netip.Addr{}, errRepeated
	}
	a, ok := parseAddr(values[0])
	if !ok {
		return netip.Addr{}, errValue
	}
	return a, nil
}

func (p Policy) trusts(a netip.Addr) bool {
	for _, r := range p.ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}
