package ratelimit

import (
	"math/bits"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers are families of response headers that tell a client its quota.
type Headers uint8

const (
	// HeadersRateLimit are RateLimit-Policy and RateLimit of the Internet-Draft
	// draft-ietf-httpapi-ratelimit-headers-11, with one item for each limit:
	//
	//	RateLimit-Policy: "burst";q=10;w=1, "daily";q=1000;w=86400
	//	RateLimit: "burst";r=9;t=1, "daily";r=412;t=35597
	//
	// q is the limit, or the burst of a token bucket, and w the seconds that
	// give all of it back, left out below one second. r is what is left, and t
	// the seconds it should last for the client to keep to the rate; where the
	// limit denies, t is its own wait. Items of limits that are not what the
	// request was denied for have no t. What is not known is left out: without
	// Redis under FailOpen there is no RateLimit at all. Other units than
	// requests (qu) and partition keys (pk) are not told.
	//
	// Where an outer middleware, or a server behind a proxy, has set them, the
	// items come behind theirs.
	//
	// They are one client's. A shared cache outside of the limit, as a CDN is,
	// stores a page that says it may with all of its headers, and would tell
	// one client's quota to others. Nothing can mark single headers so that all
	// caches leave them out (Cache-Control: no-cache="RateLimit" makes most of
	// them store no page at all), so pages that are public have WithHeaders(0),
	// or the cache removes RateLimit, RateLimit-Policy and X-RateLimit-*.
	HeadersRateLimit Headers = 1 << iota

	// HeadersX are X-RateLimit-Limit, X-RateLimit-Remaining and
	// X-RateLimit-Reset of the limit that decides. Reset is the number of
	// seconds until the whole limit is free again if nobody comes, not a time.
	// Of several middlewares a denial tells its own, otherwise the one with the
	// least left.
	HeadersX

	// HeadersRetryAfter is Retry-After with a denial: whole seconds, rounded
	// up, at least 1; none where waiting does not help. That of a 503 for a
	// limit that could not be decided is sent in any case.
	HeadersRetryAfter
)

// The names as http.Header keeps them.
const (
	headerPolicy     = "Ratelimit-Policy"
	headerRateLimit  = "Ratelimit"
	headerXLimit     = "X-Ratelimit-Limit"
	headerXRemaining = "X-Ratelimit-Remaining"
	headerXReset     = "X-Ratelimit-Reset"
)

// policyItem describes a limit for RateLimit-Policy. Its name needs no escapes:
// checkName lets no such character in.
func policyItem(l *Limiter) string {
	item := strconv.Quote(l.name) + ";q=" + strconv.FormatInt(l.plan.limit, 10)
	if refill := l.plan.refill(); refill >= 1_000_000 { // w has no fractions
		item += ";w=" + strconv.FormatInt((refill+999_999)/1_000_000, 10)
	}
	return item
}

// refill is how many microseconds give a whole limit back: its window, or the
// time that fills the burst.
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

// setHeaders tells the client what was decided.
func (o *outcome) setHeaders(h http.Header, families Headers) {
	if families&HeadersRateLimit != 0 {
		addItems(h, headerPolicy, o.quota.policy)
		if items := o.items(); items != "" {
			addItems(h, headerRateLimit, items)
		}
	}
	if families&HeadersX != 0 {
		o.setX(h)
	}
}

// addItems puts items behind those that are there, on one line: clients seldom
// look for a second.
func addItems(h http.Header, key, items string) {
	if old := h[key]; len(old) > 0 {
		items = strings.Join(old, ", ") + ", " + items
	}
	h[key] = []string{items}
}

// items are those of RateLimit.
func (o *outcome) items() string {
	var space [128]byte
	out := space[:0]
	if o.each == nil {
		return string(o.appendItem(out, o.Decision))
	}
	for _, d := range o.each {
		out = o.appendItem(out, d)
	}
	return string(out)
}

func (o *outcome) appendItem(out []byte, d Decision) []byte {
	left, known := o.left(d)
	if !known {
		return out
	}
	if len(out) > 0 {
		out = append(out, ", "...)
	}
	out = append(out, '"')
	out = append(out, d.Policy...)
	out = append(out, `";r=`...)
	out = strconv.AppendInt(out, left, 10)
	switch {
	case !d.Allowed:
		out = strconv.AppendInt(append(out, ";t="...), seconds(d.RetryAfter), 10)
	case o.Allowed:
		out = strconv.AppendInt(append(out, ";t="...), o.pace(d, left), 10)
	}
	// Not denied itself, in a request that is: a t beyond Retry-After would
	// contradict it.
	return out
}

// left is what remains, as far as that is known.
func (o *outcome) left(d Decision) (left int64, known bool) {
	_, cost := o.find(d)
	switch d.Source {
	case SourceRedis:
		known = true
	case SourceLocal:
		// What is remembered is that cost is too much, not what would not be.
		known = cost == 1
	case SourceFallback:
		known = o.quota.local && d.RetryAfter != Never
	}
	left = d.Remaining
	if !d.Allowed && left >= cost {
		left = 0 // blocked: there is some, but not for this subject
	}
	return left, known
}

// pace is in how many seconds a client that keeps to the rate uses up what is
// left, at least one request: more at once is what the draft warns of.
func (o *outcome) pace(d Decision, left int64) int64 {
	l, _ := o.find(d)
	hi, lo := bits.Mul64(uint64(l.plan.refill()), uint64(max(left, 1)))
	q, rest := bits.Div64(hi, lo, uint64(d.Limit)*1_000_000)
	if rest > 0 {
		q++
	}
	return int64(q)
}

// find returns the limit of a decision, and what the request costs there.
func (o *outcome) find(d Decision) (*Limiter, int64) {
	for i, l := range o.quota.limits {
		if l.name == d.Policy {
			return l, o.costs[i]
		}
	}
	return o.quota.limits[0], o.costs[0]
}

func (o *outcome) setX(h http.Header) {
	left, known := o.left(o.Decision)
	if before := h[headerXRemaining]; len(before) > 0 && o.Allowed {
		n, err := strconv.ParseInt(before[0], 10, 64)
		if err == nil && (!known || n <= left) {
			return // an outer limit is nearer
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
