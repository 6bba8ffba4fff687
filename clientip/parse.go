package clientip

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	xForwardedFor = "X-Forwarded-For"

	// maxProxies bounds the work for one request. No real chain is that long.
	maxProxies = 32
	// maxEntry bounds one entry: an IPv6 address with zone, port, brackets and
	// some blanks is shorter.
	maxEntry = 128
)

// entries walks the comma-separated entries of all lines of X-Forwarded-For from
// the right, on demand: the client writes the left part, which may be as long as
// the server's limit on headers.
type entries struct {
	lines  []string // unread lines; the last is next
	rest   string   // unread part of the current line
	inLine bool     // rest is part of a line
}

// next returns the next entry to the left. One longer than maxEntry has no known
// beginning: the caller must stop there.
func (e *entries) next() (string, bool) {
	if !e.inLine {
		if len(e.lines) == 0 {
			return "", false
		}
		last := len(e.lines) - 1
		e.rest, e.lines, e.inLine = e.lines[last], e.lines[:last], true
	}
	from := max(0, len(e.rest)-maxEntry-1)
	comma := strings.LastIndexByte(e.rest[from:], ',')
	if comma < 0 {
		e.inLine = false
		return e.rest, true
	}
	entry := e.rest[from+comma+1:]
	e.rest = e.rest[:from+comma]
	return entry, true
}

// parseAddr parses an address with or without a port and normalizes it: IPv4 where
// it is mapped, no zone.
func parseAddr(s string) (netip.Addr, bool) {
	if len(s) > maxEntry {
		return netip.Addr{}, false
	}
	host, ok := cutPort(strings.Trim(s, " \t"))
	if !ok {
		return netip.Addr{}, false
	}
	// The zone is cut off before parsing: netip keeps every zone it has seen in a
	// table, and the client chooses these.
	host, zone, zoned := strings.Cut(host, "%")
	if zoned && zone == "" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, false
	}
	a = a.Unmap()
	// IPv4 has no zones, and 0.0.0.0 and :: are not addresses of a client.
	if zoned && a.Is4() || a.IsUnspecified() {
		return netip.Addr{}, false
	}
	return a, true
}

// cutPort takes off a port and brackets: "192.0.2.1:80", "[2001:db8::1]:80",
// "[2001:db8::1]". IPv6 without brackets has no port: "::1:80" is an address.
func cutPort(s string) (host string, ok bool) {
	if inner, bracketed := strings.CutPrefix(s, "["); bracketed {
		host, port, closed := strings.Cut(inner, "]")
		return host, closed && strings.Contains(host, ":") && (port == "" || isPort(port))
	}
	colon := strings.IndexByte(s, ':')
	if colon < 0 || strings.LastIndexByte(s, ':') != colon {
		return s, true
	}
	return s[:colon], isPort(s[colon:])
}

// isPort is true for a colon and a number from 0 to 65535.
func isPort(s string) bool {
	digits, ok := strings.CutPrefix(s, ":")
	if !ok || strings.Trim(digits, "0123456789") != "" {
		return false
	}
	_, err := strconv.ParseUint(digits, 10, 16)
	return err == nil
}
