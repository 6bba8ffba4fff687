package ratelimit

import (
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Headers are families of response headers that describe a client's quota.
type Headers uint8

const (
	// HeadersRateLimit are RateLimit-Policy and RateLimit of the Internet-Draft
	// draft-ietf-httpapi-ratelimit-headers-11, with one item for each limit:
	//
	//	RateLimit-Policy: "burst";q=10;w=1, "daily";q=1000;w=86400
	//	RateLimit: "burst";r=9;t=1, "daily";r=412;t=35597
	//
	// q is the limit, or the burst of a token bucket. w is the time that frees
	// all of it, in seconds; it is left out below one second. r is what remains.
	// t is how many seconds r should last if the client keeps to the rate; for a
	// limit that denies, t is the wait. In a denied request, limits that did not
	// deny have no t. Unknown values are left out: while Redis is unavailable
	// FailOpen sends no RateLimit. Units other than requests (qu) and partition
	// keys (pk) are not sent.
	//
	// If an outer middleware, or a server behind a proxy, has set these headers,
	// the items are appended.
	//
	// The values are one client's. A shared cache in front of the limit, such as
	// a CDN, stores a cacheable page with all of its headers, and would send one
	// client's quota to others. No directive makes all caches leave out single
	// headers (with Cache-Control: no-cache="RateLimit" most of them store no
	// page at all). So use HeadersNone for public pages, or let the cache
	// remove RateLimit, RateLimit-Policy and X-RateLimit-*.
	HeadersRateLimit Headers = 1 << iota

	// HeadersX are X-RateLimit-Limit, X-RateLimit-Remaining and
	// X-RateLimit-Reset of the strictest limit. Reset is the number of seconds
	// until the whole limit is free again if no request comes, not a time. Of
	// several middlewares the one that denies sets them, otherwise the one with
	// the least left.
	HeadersX

	// HeadersRetryAfter is Retry-After with a denial: whole seconds, rounded
	// up, at least 1; none if waiting does not help. A 503 for a limit that could
	// not be decided always has one.
	HeadersRetryAfter

	// HeadersNone sends none of them. It is not joined with others.
	HeadersNone
)

// The names as http.Header keeps them.
const (
	headerPolicy     = "Ratelimit-Policy"
	headerRateLimit  = "Ratelimit"
	headerXLimit     = "X-Ratelimit-Limit"
	headerXRemaining = "X-Ratelimit-Remaining"
	headerXReset     = "X-Ratelimit-Reset"
)

// policyItem describes a limit for RateLimit-Policy. The name needs no escapes:
// checkName allows no such character.
func policyItem(l *Limiter) string {
	item := strconv.Quote(l.name) + ";q=" + strconv.FormatInt(l.plan.limit, 10)
	if refill := l.plan.refill(); refill >= 1_000_000 { // w has no fractions
		item += ";w=" + strconv.FormatInt((refill+999_999)/1_000_000, 10)
	}
	return item
}

// refill is how many microseconds free a whole limit: its window, or the time
// that fills the burst.
func (p plan) refill() int64 {
	if p.kind != kindGCRA {
		return p.rate.micros()
	}
	hi, lo := bits.Mul64(uint64(p.rate.micros()), uint64(p.limit))
	q, rest := bits.Div64(hi, lo, uint64(p.rate.Limit))
	if rest > 0 {
		q++
	}
	return int64(q)
}

// policies is the value of RateLimit-Policy for the limits of some decisions.
func policies(each []Decision) string {
	items := make([]string, len(each))
	for i, d := range each {
		items[i] = policyItem(d.of)
	}
	return strings.Join(items, ", ")
}

// setHeaders describes the decision to the client.
func (o *outcome) setHeaders(h http.Header, families Headers) {
	if families&HeadersRateLimit != 0 {
		if o.each == nil {
			setRateLimit(h, o.quota.policy, []Decision{o.Decision})
		} else {
			setRateLimit(h, o.quota.policy, o.each)
		}
	}
	if families&HeadersX != 0 {
		o.setX(h)
	}
}

// setRateLimit describes the decisions of limits that decide together.
func setRateLimit(h http.Header, policy string, each []Decision) {
	addItems(h, headerPolicy, policy)
	if items := items(each); items != "" {
		addItems(h, headerRateLimit, items)
	}
}

// addItems appends items to the existing ones, on one line: clients seldom read
// a second one.
func addItems(h http.Header, key, items string) {
	if old := h[key]; len(old) > 0 {
		items = strings.Join(old, ", ") + ", " + items
	}
	h[key] = []string{items}
}

// items is the value of RateLimit.
func items(each []Decision) string {
	var space [128]byte
	out := space[:0]
	denied := slices.ContainsFunc(each, func(d Decision) bool { return !d.Allowed })
	for _, d := range each {
		out = appendItem(out, d, denied)
	}
	return string(out)
}

// appendItem appends what is known of a limit; denied says that one of those
// that decide together denies.
func appendItem(out []byte, d Decision, denied bool) []byte {
	left, known := d.left()
	if !known {
		return out
	}
	if len(out) > 0 {
		out = append(out, ", "...)
	}
	out = append(out, '"')
	out = append(out, d.Limiter...)
	out = append(out, `";r=`...)
	out = strconv.AppendInt(out, left, 10)
	switch {
	case !d.Allowed:
		out = strconv.AppendInt(append(out, ";t="...), seconds(d.RetryAfter), 10)
	case !denied:
		out = strconv.AppendInt(append(out, ";t="...), d.pace(left), 10)
	}
	// This limit admits and another one denies: a t beyond Retry-After would
	// contradict it.
	return out
}

// left is what remains; known is false if that is unknown.
func (d Decision) left() (left int64, known bool) {
	switch d.Source {
	case SourceRedis:
		known = true
	case SourceLocal:
		// The remembered denial is of this cost: a smaller one may be free.
		known = d.cost == 1
	case SourceFallback:
		known = d.of.fail.IsLocal() && d.RetryAfter != Never
	}
	left = d.Remaining
	if !d.Allowed && left >= d.cost {
		left = 0 // blocked: the rest is not for this subject
	}
	return left, known
}

// pace is how many seconds a client that keeps to the rate needs to use up what
// is left, at least one request: the draft warns of larger bursts.
func (d Decision) pace(left int64) int64 {
	hi, lo := bits.Mul64(uint64(d.of.plan.refill()), uint64(max(left, 1)))
	q, rest := bits.Div64(hi, lo, uint64(d.Limit)*1_000_000)
	if rest > 0 {
		q++
	}
	return int64(q)
}

func (o *outcome) setX(h http.Header) {
	left, known := o.left()
	if before := h[headerXRemaining]; len(before) > 0 && o.Allowed {
		n, err := strconv.ParseInt(before[0], 10, 64)
		if err == nil && (!known || n <= left) {
			return // an outer limit has less left
		}
	}
	h[headerXLimit] = []string{strconv.FormatInt(o.Limit, 10)}
	if !known {
		delete(h, headerXRemaining)
		delete(h, headerXReset)
		return
	}
	h[headerXRemaining] = []string{strconv.FormatInt(left, 10)}
	h[headerXReset] = []string{strconv.FormatInt(seconds(max(o.ResetAfter, o.RetryAfter)), 10)}
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
