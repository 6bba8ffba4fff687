package ratelimit_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// number is a header, or a parameter of an item, from low to high.
func (a *reply) number(text string, low, high int) {
	a.t.Helper()
	if n, err := strconv.Atoi(text); err != nil || n < low || n > high {
		a.t.Errorf("%q is not from %d to %d; headers %v", text, low, high, a.header)
	}
}

// sfItem is an item of a structured field whose value is a string.
type sfItem struct {
	name   string
	params map[string]string
}

// sf parses a List of such Items by RFC 9651, and nothing that is more lenient.
func (a *reply) sf(header string) []sfItem {
	a.t.Helper()
	var items []sfItem
	rest := strings.Join(a.header.Values(header), ", ")
	fail := func() []sfItem {
		a.t.Helper()
		a.t.Errorf("%s: %q is no list of strings with integers, at %q", header, a.header.Values(header), rest)
		return nil
	}
	for {
		if !strings.HasPrefix(rest, `"`) {
			return fail()
		}
		name, after, ok := strings.Cut(rest[1:], `"`)
		if !ok || strings.ContainsFunc(name, func(c rune) bool { return c < 0x20 || c > 0x7e || c == '\\' }) {
			return fail()
		}
		it := sfItem{name, map[string]string{}}
		for rest = after; strings.HasPrefix(rest, ";"); {
			key, after, ok := strings.Cut(strings.TrimLeft(rest[1:], " "), "=")
			end := strings.IndexFunc(after, func(c rune) bool { return c < '0' || c > '9' })
			if end < 0 {
				end = len(after)
			}
			_, twice := it.params[key]
			if !ok || twice || len(key) != 1 || key < "a" || key > "z" || end == 0 || end > 15 {
				return fail()
			}
			it.params[key], rest = after[:end], after[end:]
		}
		items = append(items, it)
		if rest == "" {
			return items
		}
		var comma bool
		if rest, comma = strings.CutPrefix(strings.TrimLeft(rest, " \t"), ","); !comma {
			return fail()
		}
		rest = strings.TrimLeft(rest, " \t")
	}
}

func TestMiddleware_HeadersOfEachAlgorithm(t *testing.T) {
	r := openAgain(t)
	for _, c := range []struct {
		name, policy, first string
		rate                ratelimit.Rate
		algorithm           ratelimit.Algorithm
	}{
		{"fast", `"fast";q=3`, `"fast";r=2;t=1`, ratelimit.Per(500*time.Millisecond, 3), ratelimit.SlidingLog()},
		{"odd", `"odd";q=3;w=2`, `"odd";r=2;t=1`, ratelimit.Per(1500*time.Millisecond, 3), ratelimit.SortedSetLog()},
		{"day", `"day";q=1000000;w=86400`, `"day";r=999999;t=86400`, ratelimit.PerDay(1_000_000), ratelimit.SlidingWindow(10)},
		{"huge", `"huge";q=1000000000;w=2678400`, `"huge";r=999999999;t=2678400`, ratelimit.Per(ratelimit.MaxWindow, 1_000_000_000), ratelimit.SlidingWindow(1)},
		// The burst comes back in ten minutes, so 10 in 600 seconds is the rate.
		{"tokens", `"tokens";q=10;w=600`, `"tokens";r=9;t=540`, ratelimit.PerHour(60), ratelimit.GCRA(10)},
		{"quick", `"quick";q=10`, `"quick";r=9;t=1`, ratelimit.PerSecond(100), ratelimit.GCRA(10)},
	} {
		l := newLimit(t, r, c.name, c.rate, madcrow.FailClosed, ratelimit.Options{Algorithm: c.algorithm})
		newWeb(t, l, byAddress()).get().want(204, "").has("RateLimit-Policy", c.policy, "RateLimit", c.first)
	}
	b := must[*ratelimit.TokenBucket](t)(ratelimit.NewTokenBucket(r, "bucket", ratelimit.TokenBucketOptions{Rate: ratelimit.PerMinute(1), Burst: 1, FailPolicy: madcrow.FailClosed}))
	w := newWeb(t, b, byAddress())
	w.get().want(204, "").has("RateLimit", `"bucket";r=0;t=60`)
	a := w.get().want(429, "QUOTA_EXCEEDED")
	a.number(a.header.Get("Retry-After"), 50, 60)
}

func TestMiddleware_HeaderFamiliesAreSwitched(t *testing.T) {
	r := openAgain(t)
	all := newWeb(t, newLimit(t, r, "all", ratelimit.PerMinute(2), madcrow.FailClosed), byAddress(), ratelimit.MiddlewareOptions{Headers: ratelimit.HeadersRateLimit | ratelimit.HeadersX | ratelimit.HeadersRetryAfter})
	a := all.get().has("X-RateLimit-Limit", "2", "X-RateLimit-Remaining", "1", "RateLimit", `"all";r=1;t=30`)
	a.number(a.header.Get("X-RateLimit-Reset"), 50, 60)
	all.get()
	a = all.get().want(429, "QUOTA_EXCEEDED").has("X-RateLimit-Limit", "2", "X-RateLimit-Remaining", "0")
	a.number(a.header.Get("X-RateLimit-Reset"), 50, 60)
	a.number(a.header.Get("Retry-After"), 50, 60)

	none := newWeb(t, newLimit(t, r, "none", ratelimit.PerMinute(1), madcrow.FailClosed), byAddress(), ratelimit.MiddlewareOptions{Headers: ratelimit.HeadersNone})
	for range 2 {
		a = none.get().has("RateLimit", "", "RateLimit-Policy", "", "X-RateLimit-Limit", "", "X-RateLimit-Remaining", "", "X-RateLimit-Reset", "", "Retry-After", "")
	}
	a.want(429, "QUOTA_EXCEEDED")
}

func TestMiddleware_RetryAfterIsNeverZero(t *testing.T) {
	w := newWeb(t, newLimit(t, openAgain(t), "x", ratelimit.Per(50*time.Millisecond, 1), madcrow.FailClosed), byAddress())
	denied := 0
	for end := time.Now().Add(5 * time.Second); denied == 0 || w.passed.Load() < 4; {
		if a := w.get(); a.status == 429 {
			denied++
			a.has("Retry-After", "1")
		}
		if time.Now().After(end) {
			t.Fatalf("%d denied, %d passed", denied, w.passed.Load())
		}
	}
}

func TestMiddleware_CostAboveTheLimitIsNever(t *testing.T) {
	cost := func(r *http.Request) int64 {
		n, _ := strconv.ParseInt(r.Header.Get("Cost"), 10, 64)
		return n
	}
	r := openAgain(t)
	w := newWeb(t, newLimit(t, r, "x", ratelimit.PerMinute(5), madcrow.FailClosed), byAddress(), ratelimit.MiddlewareOptions{Cost: cost, Headers: ratelimit.HeadersRateLimit | ratelimit.HeadersX | ratelimit.HeadersRetryAfter})
	a := w.get("Cost", "6").want(429, "QUOTA_NEVER").has("Retry-After", "", "RateLimit", "", "RateLimit-Policy", `"x";q=5;w=60`, "X-RateLimit-Limit", "5", "X-RateLimit-Remaining", "")
	if fmt.Sprint(a.body["violated-policies"]) != "[x]" {
		t.Errorf("%v", a.body)
	}
	w.get("Cost", "3").want(204, "").has("RateLimit", `"x";r=2;t=24`)
	w.get("Cost", "0").want(204, "").has("RateLimit", "", "RateLimit-Policy", "")
	if w.last.Source != ratelimit.SourceBypass {
		t.Errorf("cost 0: %+v", w.last)
	}
	// Redis says what is left; what this process remembers does not.
	items := w.get("Cost", "3").want(429, "QUOTA_EXCEEDED").sf("RateLimit")
	if len(items) != 1 || items[0].params["r"] != "2" {
		t.Errorf("%v", items)
	}
	a = w.get("Cost", "3").want(429, "QUOTA_EXCEEDED").has("RateLimit", "", "X-RateLimit-Remaining", "")
	a.number(a.header.Get("Retry-After"), 50, 60)
	w.get("Cost", "2").want(204, "").has("RateLimit", `"x";r=0;t=12`)
	w.get("Cost", "-1").want(500, "INTERNAL_ERROR")

	g := must[*ratelimit.Group](t)(ratelimit.Join(
		newLimit(t, r, "requests", ratelimit.PerMinute(10), madcrow.FailClosed), newLimit(t, r, "bytes", ratelimit.PerMinute(600), madcrow.FailClosed)))
	w = newWeb(t, g, byAddress(), ratelimit.MiddlewareOptions{Costs: func(r *http.Request) []int64 {
		switch r.Header.Get("Costs") {
		case "none":
			return []int64{0, 0}
		case "short":
			return []int64{1}
		}
		return []int64{1, cost(r)}
	}})
	w.get("Cost", "100").want(204, "").has("RateLimit", `"requests";r=9;t=54, "bytes";r=500;t=50`)
	w.get("Cost", "0").want(204, "").has("RateLimit", `"requests";r=8;t=48, "bytes";r=500;t=50`)
	w.get("Cost", "601").want(429, "QUOTA_NEVER").has("RateLimit", "", "Retry-After", "")
	w.get("Costs", "none").want(204, "").has("RateLimit", "")
	w.get("Costs", "short").want(500, "INTERNAL_ERROR")
}

func TestMiddleware_EveryLimitOfAGroupIsAnItem(t *testing.T) {
	r := openAgain(t)
	burst := newLimit(t, r, "burst", ratelimit.PerMinute(2), madcrow.FailClosed)
	g := must[*ratelimit.Group](t)(ratelimit.Join(burst, newLimit(t, r, "daily", ratelimit.PerDay(1000), madcrow.FailClosed)))
	w := newWeb(t, g, byAddress())
	const policy = `"burst";q=2;w=60, "daily";q=1000;w=86400`
	w.get().want(204, "").has("RateLimit-Policy", policy, "RateLimit", `"burst";r=1;t=30, "daily";r=999;t=86314`)
	w.get().want(204, "").has("RateLimit-Policy", policy, "RateLimit", `"burst";r=0;t=30, "daily";r=998;t=86228`)
	a := w.get().want(429, "QUOTA_EXCEEDED").has("RateLimit-Policy", policy)
	items := a.sf("RateLimit")
	if len(items) != 2 || items[0].params["r"] != "0" || items[1].params["r"] != "998" || fmt.Sprint(a.body["violated-policies"]) != "[burst]" {
		t.Fatalf("%v %v", items, a.body)
	}
	// Retry-After must not be before any t of the answer.
	if t1, there := items[1].params["t"]; there {
		t.Errorf("t=%s of a limit that does not deny", t1)
	}
	a.has("Retry-After", items[0].params["t"])
	if items = w.get().want(429, "QUOTA_EXCEEDED").has("RateLimit-Policy", policy).sf("RateLimit"); len(items) != 1 || items[0].name != "burst" {
		t.Errorf("from memory: %v", items)
	}

	// A block is a denial although something is left.
	if err := burst.Block(t.Context(), "203.0.113.77", time.Hour); err != nil {
		t.Fatal(err)
	}
	items = w.get("addr", "203.0.113.77:1").want(429, "QUOTA_EXCEEDED").sf("RateLimit")
	if len(items) != 2 || items[0].params["r"] != "0" || items[0].params["t"] != "3600" || items[1].params["r"] != "1000" {
		t.Errorf("blocked: %v", items)
	}
}

func TestMiddleware_NestedOnesAddTheirItems(t *testing.T) {
	r := openAgain(t)
	x := ratelimit.MiddlewareOptions{Headers: ratelimit.HeadersRateLimit | ratelimit.HeadersX | ratelimit.HeadersRetryAfter}
	for _, c := range []struct {
		outer, inner int64
		left, limit  string
	}{{10, 3, "2", "3"}, {3, 10, "2", "3"}} {
		w := newWeb(t, newLimit(t, r, fmt.Sprint("inner", c.inner), ratelimit.PerMinute(c.inner), madcrow.FailClosed), ratelimit.ByHeader("X-Api-Key"), x)
		outer := newLimit(t, r, fmt.Sprint("outer", c.outer), ratelimit.PerMinute(c.outer), madcrow.FailClosed)
		w.handler = ratelimit.Middleware(outer, byAddress(), x)(w.handler)
		a := w.get("X-Api-Key", "k").want(204, "")
		a.has("RateLimit-Policy", fmt.Sprintf(`"outer%d";q=%d;w=60, "inner%d";q=%d;w=60`, c.outer, c.outer, c.inner, c.inner))
		a.has("X-RateLimit-Remaining", c.left, "X-RateLimit-Limit", c.limit)
		if items := a.sf("RateLimit"); len(items) != 2 || items[0].name != outer.Name() || len(a.header.Values("RateLimit")) != 1 {
			t.Errorf("%v", items)
		}
		if w.last.Limit != c.inner {
			t.Errorf("in the context: %+v", w.last)
		}
		w.get("X-Api-Key", "k")
		w.get("X-Api-Key", "k")
		a = w.get("X-Api-Key", "k").want(429, "QUOTA_EXCEEDED").has("X-RateLimit-Remaining", "0", "X-RateLimit-Limit", c.limit)
		if want := map[bool]int{true: 1, false: 2}[c.outer == 3]; len(a.sf("RateLimit")) != want {
			t.Errorf("%v", a.header)
		}
	}
}
