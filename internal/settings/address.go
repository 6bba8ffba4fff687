package settings

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// splitAddress reads "host", "host:port", "[IPv6]" or "[IPv6]:port". An IPv6
// address without brackets is refused, since its last group would be mistaken
// for a port. The reason is empty when all is well, and repeats nothing of
// what it was given but a host.
func splitAddress(s string, defaultPort int) (host string, port int, reason string) {
	rest := ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, "a bracket is not closed"
		}
		host, rest = s[1:end], s[end+1:]
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return "", 0, "there is no IPv6 address between the brackets"
		}
		if rest != "" && rest[0] != ':' {
			return "", 0, "after the bracket may follow only :port"
		}
	} else {
		if strings.Count(s, ":") > 1 {
			return "", 0, "an IPv6 address needs brackets, as in [::1]:6379"
		}
		if colon := strings.IndexByte(s, ':'); colon >= 0 {
			host, rest = s[:colon], s[colon:]
		} else {
			host = s
		}
		if reason := badHost(host); reason != "" {
			return "", 0, reason
		}
	}
	if rest == "" {
		return host, defaultPort, ""
	}
	port, reason = parsePort(rest[1:])
	return host, port, reason
}

// badHost says what is wrong with a host name or IPv4 address.
func badHost(host string) string {
	switch {
	case host == "":
		return "a host is missing"
	case len(host) > 253:
		return "a host is longer than 253 bytes"
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c == 0x7f || strings.IndexByte("/@:[]?#%\\,;\"'<>", c) >= 0 {
			return "a host holds a character that no host name has"
		}
	}
	return ""
}

// parsePort reads a port of 1 to 65535, digits only.
func parsePort(s string) (port int, reason string) {
	if s == "" {
		return 0, "a port is missing after the colon"
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, "a port is not a number"
		}
	}
	port, err := strconv.Atoi(s)
	if err != nil || port < 1 || port > 65535 {
		return 0, "a port is out of range"
	}
	return port, ""
}

// normalAddresses returns every address as host:port, or why one is wrong.
func normalAddresses(list []string, defaultPort int) (out []string, bad, reason string) {
	out = make([]string, 0, len(list))
	for _, item := range list {
		host, port, reason := splitAddress(strings.TrimSpace(item), defaultPort)
		if reason != "" {
			return nil, item, reason
		}
		out = append(out, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return out, "", ""
}
