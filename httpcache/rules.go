package httpcache

import (
	"iter"
	"maps"
	"math"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/internal/cachelimit"
)

// The rules of RFC 9111 and RFC 5861, for a shared cache.

// control is a Cache-Control header. Times are -1 where they are not given.
type control struct {
	public, private, noStore, noCache, mustRevalidate, proxyRevalidate, onlyIfCached bool

	maxAge, sMaxAge, swr, sie, maxStale, minFresh time.Duration
}

// parseControl reads every line of the header. What has a wrong number is 0; of
// two the smaller counts.
func parseControl(lines []string) control {
	c := control{maxAge: -1, sMaxAge: -1, swr: -1, sie: -1, maxStale: -1, minFresh: -1}
	for _, line := range lines {
		for part := range splitOutsideQuotes(line, ",") {
			name, value, given := strings.Cut(part, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			c.take(strings.ToLower(strings.TrimSpace(name)), value, given)
		}
	}
	return c
}

// tooOld says whether a client does not want what is so old, and fresh for so
// long.
func (c *control) tooOld(age, left time.Duration) bool {
	return c.noCache || c.maxAge >= 0 && age > c.maxAge || c.minFresh > 0 && left < c.minFresh
}

func (c *control) take(name, value string, given bool) {
	switch name {
	case "public":
		c.public = true
	case "private": // also of single headers
		c.private = true
	case "no-store":
		c.noStore = true
	case "no-cache": // also of single headers
		c.noCache = true
	case "must-revalidate":
		c.mustRevalidate = true
	case "proxy-revalidate":
		c.proxyRevalidate = true
	case "only-if-cached":
		c.onlyIfCached = true
	case "max-age":
		least(&c.maxAge, value)
	case "s-maxage":
		least(&c.sMaxAge, value)
	case "stale-while-revalidate":
		least(&c.swr, value)
	case "stale-if-error":
		least(&c.sie, value)
	case "min-fresh":
		least(&c.minFresh, value)
	case "max-stale":
		if !given {
			value = strconv.Itoa(math.MaxInt32)
		}
		least(&c.maxStale, value)
	}
}

func least(d *time.Duration, value string) {
	if n := seconds(value); *d < 0 || n < *d {
		*d = n
	}
}

// seconds reads delta-seconds; what is none is 0, what is much is 68 years.
func seconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && n != math.MaxUint64 {
		return 0
	}
	return time.Duration(min(n, math.MaxInt32)) * time.Second
}

// splitOutsideQuotes splits at any of the separators that is not in a quoted
// string.
func splitOutsideQuotes(s, seps string) iter.Seq[string] {
	return func(yield func(string) bool) {
		quoted, start := false, 0
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '"':
				quoted = !quoted
			case quoted && c == '\\':
				i++
			case !quoted && strings.IndexByte(seps, c) >= 0:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[min(start, len(s)):])
	}
}

// ruling is what the rules say of a response.
type ruling struct {
	share      bool   // others may have it
	why        string // not: a reason of EventHTTPCacheNotStored
	strict     bool   // not when it is stale
	fresh      time.Duration
	swr, sie   time.Duration
	initialAge time.Duration
	vary, tags []string
}

// maxVary bounds the headers by which a response may vary.
const maxVary = 16

// rule judges a response to a request.
func (h *Cache) rule(v *visit, status int, header http.Header) (ru ruling) {
	for name := range header {
		if name != http.CanonicalHeaderKey(name) {
			ru.why = whyForbidden // clients see it, and the rules would not
			return ru
		}
	}
	cc := parseControl(header["Cache-Control"])
	var ok bool
	switch ru.vary, ok = varyOf(header); {
	case !ok:
		ru.why = whyVary
	case !storable(status, header, cc):
		ru.why = whyForbidden
	case !v.permitted(cc):
		ru.why = whyCredentials
	default:
		if ru.tags = headerTags(header); cachelimit.TagProblem(ru.tags) != "" {
			ru.why = whyTags // it could not be removed
		}
	}
	if ru.why != "" {
		return ru
	}
	ru.initialAge = initialAge(header)
	life, explicit := lifetime(header, cc)
	switch {
	case explicit && life > 0:
		life = max(life, h.opt.MinTTL)
	case !explicit && heuristic[status]:
		life = h.opt.DefaultTTL
	}
	life = min(life, h.opt.MaxTTL)
	h.staleness(&ru, cc)
	over := max(0, ru.initialAge-life) // it is so much too old already
	ru.fresh, ru.swr, ru.sie = max(0, life-ru.initialAge), max(0, ru.swr-over), max(0, ru.sie-over)
	if ru.share = ru.fresh > 0 || explicit && ru.swr > 0; !ru.share {
		ru.why = whyNoLifetime
	}
	return ru
}

// staleness says for how long a response may be served stale. What the response
// says counts beside s-maxage, which by RFC 9111 forbids it: who writes both
// means it.
func (h *Cache) staleness(ru *ruling, cc control) {
	ru.strict = cc.mustRevalidate || cc.proxyRevalidate || cc.sMaxAge >= 0 && cc.swr < 0 && cc.sie < 0
	if ru.strict {
		return
	}
	ru.swr, ru.sie = cc.swr, cc.sie
	if ru.swr < 0 {
		ru.swr = h.opt.StaleWhileRevalidate
	}
	if ru.sie < 0 {
		ru.sie = h.opt.StaleIfError
	}
	ru.swr, ru.sie = min(ru.swr, h.opt.MaxStale), min(ru.sie, h.opt.MaxStale)
}

// givenHeaders are what one client is given, or must do. A response with one
// of them is his.
var givenHeaders = []string{
	"Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Www-Authenticate", "Authentication-Info", "Proxy-Authentication-Info",
	"Authorization", "X-Access-Token", "X-Auth-Token", "X-Csrf-Token", "X-Xsrf-Token",
}

// personalHeaders say something of one request, or of the quota of one client.
// They are not stored; the client whose request made the response has them.
var personalHeaders = map[string]bool{
	"B3": true, "Ratelimit": true, "Ratelimit-Limit": true, "Ratelimit-Policy": true, "Ratelimit-Remaining": true, "Ratelimit-Reset": true,
	"Request-Id": true, "Retry-After": true, "Server-Timing": true, "Traceparent": true, "Traceresponse": true, "Tracestate": true,
	"X-Amzn-Requestid": true, "X-Amzn-Trace-Id": true, "X-Cloud-Trace-Context": true, "X-Correlation-Id": true, "X-Request-Id": true,
	"X-Response-Time": true, "X-Runtime": true, "X-Trace-Id": true,
}

// personalPrefixes begin the names of more of them.
var personalPrefixes = []string{"X-Ratelimit-", "X-Rate-Limit-", "X-B3-"}

// impersonal is a header without what is one client's; header does not change.
func impersonal(header http.Header) http.Header {
	kept := header
	for name := range header {
		if personalHeaders[name] || slices.ContainsFunc(personalPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			if len(kept) == len(header) {
				kept = maps.Clone(header)
			}
			delete(kept, name)
		}
	}
	return kept
}

// targetedHeaders are for caches farther out (RFC 9213). Here they count where
// they forbid.
var targetedHeaders = []string{"Cdn-Cache-Control", "Surrogate-Control"}

// storable says whether anybody else may have the response at all.
func storable(status int, header http.Header, cc control) bool {
	switch {
	case status < 200 || status >= 500 || status == http.StatusPartialContent || status == http.StatusNotModified:
		return false
	case cc.noStore || cc.private || cc.noCache:
		return false
	case header["Cache-Control"] == nil && strings.Contains(strings.ToLower(header.Get("Pragma")), "no-cache"):
		return false
	case header["Trailer"] != nil || header["Content-Range"] != nil:
		return false
	}
	for _, name := range givenHeaders {
		if header[name] != nil {
			return false
		}
	}
	for _, name := range targetedHeaders {
		if far := parseControl(header[name]); far.noStore || far.private || far.noCache || far.maxAge == 0 {
			return false
		}
	}
	mediaType, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return !strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
}

// permitted says whether the response to a request with credentials may be
// given to others: RFC 9111 §3.5 for Authorization; for cookies, of which it
// says nothing, must-revalidate is not enough.
func (v *visit) permitted(cc control) bool {
	shared := cc.public || cc.sMaxAge >= 0
	return shared || !v.cookie && (!v.authorization || cc.mustRevalidate)
}

// heuristic are the statuses that may be stored without a lifetime of their
// own (RFC 9110 §15.1), without 206 and 501.
var heuristic = map[int]bool{200: true, 203: true, 204: true, 300: true, 301: true, 308: true, 404: true, 405: true, 410: true, 414: true}

// lifetime is for how long the response says that it is fresh.
func lifetime(header http.Header, cc control) (life time.Duration, explicit bool) {
	switch {
	case cc.sMaxAge >= 0:
		return cc.sMaxAge, true
	case cc.maxAge >= 0:
		return cc.maxAge, true
	case header["Expires"] == nil:
		return 0, false
	}
	end, err := http.ParseTime(header.Get("Expires"))
	if err != nil {
		return 0, true // "0" and the like: it has expired
	}
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		date = time.Now()
	}
	return max(0, end.Sub(date)), true
}

// initialAge is how old a response is when the handler gives it: it may come
// from elsewhere.
func initialAge(header http.Header) time.Duration {
	age := time.Duration(0)
	if header["Age"] != nil {
		age = seconds(header.Get("Age"))
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		age = max(age, time.Since(date).Truncate(time.Second))
	}
	return age
}

// varyOf returns the headers by which a response varies, small and sorted;
// false is "by anything". Two are added where handlers forget them, and one
// client would get what was made for another.
func varyOf(header http.Header) (names []string, ok bool) {
	for _, line := range header["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.ToLower(textproto.TrimString(name))
			if name == "*" {
				return nil, false
			}
			if name != "" {
				names = append(names, name)
			}
		}
	}
	if origin := header.Get("Access-Control-Allow-Origin"); origin != "" && origin != "*" {
		names = append(names, "origin")
	}
	if coding := header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		names = append(names, "accept-encoding")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names, len(names) <= maxVary
}

// headerTags are the tags that a response names.
func headerTags(header http.Header) (tags []string) {
	for _, line := range header["Surrogate-Key"] {
		tags = append(tags, strings.Fields(line)...)
	}
	for _, line := range header["Cache-Tag"] {
		for tag := range strings.SplitSeq(line, ",") {
			if tag = strings.TrimSpace(tag); tag != "" {
				tags = append(tags, tag)
			}
		}
	}
	return tags
}

// hopByHop are the headers that belong to one connection.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// endToEnd removes from a header what belongs to one connection.
func endToEnd(header http.Header) {
	for _, line := range header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(header, name)
	}
}
