package clientip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ParseRanges reads ranges for [TrustedRanges]: "10.0.0.0/8", "fd00::/8", or
// a single address, "192.0.2.7", which is the range of itself. A string may hold
// several, with commas between them, as a setting does. The error names every
// one that is wrong, and is [ErrPolicy].
func ParseRanges(texts ...string) ([]netip.Prefix, error) {
	var ranges []netip.Prefix
	var errs []error
	for _, text := range texts {
		for one := range strings.SplitSeq(text, ",") {
			r, err := parseRange(strings.TrimSpace(one))
			if err != nil {
				errs = append(errs, fmt.Errorf("%w: %w", ErrPolicy, err))
				continue
			}
			ranges = append(ranges, r)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return ranges, nil
}

func parseRange(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, errors.New("a trusted range is empty")
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return checkRange(netip.PrefixFrom(a, a.BitLen()))
	}
	r, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a range; expected, for example, 10.0.0.0/8, fd00::/8 or 192.0.2.7", s)
	}
	return checkRange(r)
}

// checkRange returns r unmapped, as addresses are compared after unmapping.
func checkRange(r netip.Prefix) (netip.Prefix, error) {
	if !r.IsValid() {
		return r, errors.New("a trusted range is the invalid netip.Prefix")
	}
	if r != r.Masked() {
		return r, fmt.Errorf("the range %s has bits behind its length; meant is %s or the single address %s", r, r.Masked(), r.Addr())
	}
	if r.Addr().Is4In6() {
		// Masked already, so the mapping's 96 bits are all there.
		r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-96)
	}
	if r.Bits() == 0 {
		return r, fmt.Errorf("the range %s trusts every address, so every client could choose its own", r)
	}
	return r, nil
}
