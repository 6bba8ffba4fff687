package ratelimit

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/madcrow-go/madcrow/clientip"
)

// MiddlewareOptions configure a [Middleware], which panics if one cannot be used.
// The zero value counts each request as 1.
type MiddlewareOptions struct {
	// Skip lets requests for which it returns true pass uncounted, before the
	// lists are checked: health checks, which may have no address.
	Skip func(*http.Request) bool
	// Deny answers clients whose address lies in one of the ranges with 403
	// CLIENT_DENIED; nothing is counted. While there are ranges, a client whose
	// address cannot be determined gets 400 CLIENT_UNKNOWN. [clientip.ParseRanges]
	// reads them from text.
	Deny []netip.Prefix
	// CountPreflights counts CORS preflights like other requests. By default they
	// pass uncounted: a browser sends them by itself, without a client's
	// credentials. A preflight is an OPTIONS request with Origin and
	// Access-Control-Request-Method and without a body, Cookie, Authorization,
	// X-HTTP-Method-Override and similar headers, which no browser sends with one.
	// Deny refuses them, too.
	//
	// Set it if a handler does its work for OPTIONS, too: one that is registered
	// without a method ("/login") and does not check the method. Otherwise any
	// client that sends these headers passes that handler's limit.
	CountPreflights bool
	// Allow lets clients whose address lies in one of the ranges pass uncounted,
	// unless Deny names them too. A client whose address cannot be determined is
	// counted.
	Allow []netip.Prefix
	// Client finds the addresses for Deny and Allow, which need it.
	Client clientip.Policy
	// Cost is the cost of a request, in every limit of a group; nil is 1. A request
	// of cost 0 passes uncounted. A negative cost is answered with 500:
	// Request.ContentLength is -1 for a body of unknown length.
	Cost func(*http.Request) int64
	// Costs is the cost of a request in each limit of a [Group], in the order of
	// [Join], in the place of Cost. 0 leaves that limit out; a request whose costs
	// are all 0 passes uncounted. A wrong number of costs, or a negative cost, is
	// answered with 500.
	Costs func(*http.Request) []int64

	// Routes gives routes limits of their own instead of the middleware's, by the
	// pattern as it was registered: "POST /login". A key without a method, "/login",
	// is for the methods that have no key of their own; HEAD counts as GET, as it
	// does for routers. All other requests keep the middleware's limit.
	//
	// A router sets the pattern of a request when it has matched it. So the
	// middleware must wrap the registered handlers (With and Group of chi, not Use),
	// or Mux or Route must name the router. Otherwise the routes would silently lose
	// their limits: the answer is then 500 LIMIT_MISPLACED.
	//
	// LIMIT_MISPLACED is also the answer to a request whose path matches a key while
	// its pattern is only a beginning ("/api/*", "/", or none), as outside of a
	// mounted router: the route inside is unknown, or registered otherwise than the
	// key. An example is the key "/login" for the route "POST /login" beside a "/"
	// for all methods: write the method into the key. A request for which Mux or
	// Route finds no route (404 or 405) has the middleware's limit.
	Routes map[string]Limit
	// Mux is read for patterns, for a middleware around it:
	//
	//	Middleware(limit, key, MiddlewareOptions{Routes: routes, Mux: mux})(mux)
	//
	// It must see the same path as the middleware: no http.StripPrefix in between.
	// Each request is matched twice.
	Mux *http.ServeMux
	// Route finds the route of a request, for a middleware around a router that is
	// not an [http.ServeMux]. It returns the pattern, with or without its method, or
	// "" if there is no route. With chi:
	//
	//	Route: func(r *http.Request) string {
	//		return router.Find(chi.NewRouteContext(), r.Method, r.URL.Path)
	//	}
	Route func(*http.Request) string

	// Headers chooses the headers, joined with |. Defaults to
	// HeadersRateLimit | HeadersRetryAfter; [HeadersNone] is none.
	Headers Headers
	// Shadow counts and decides, and refuses nothing: to try a limit out. A request
	// that the limit or Deny would have refused is the recorder's event
	// "shadow_denied", and a decision with Allowed false for OnDecision and
	// [DecisionFrom]. A request without a key and one that could not be decided pass
	// too. Retry-After is never sent; RateLimit headers are (see Headers).
	Shadow bool
	// OnDecision is called with every decision, before the request goes on or is
	// refused. A limit that could not be decided under FailClosed is a decision with
	// Degraded and Cause, and not Allowed. It must be safe for concurrent use.
	OnDecision func(*http.Request, Decision)
	// Logger is for refused requests, each with its error_id: denials at level info,
	// limits that could not be decided at level error. Defaults to the logger of
	// the limit.
	Logger *slog.Logger
}

// addressList is a policy and the ranges that it is checked against.
type addressList struct {
	policy clientip.Policy
	ranges []netip.Prefix
}

func newAddressList(where string, p clientip.Policy, ranges []netip.Prefix) addressList {
	if len(ranges) > 0 && !p.IsValid() {
		misuse(where + " needs MiddlewareOptions.Client, a clientip.Policy that was made by a constructor")
	}
	list := addressList{policy: p}
	for _, r := range ranges {
		switch {
		case !r.IsValid():
			misuse(where + " was given the invalid netip.Prefix")
		case r != r.Masked():
			misuse(where + ": the range " + strconv.Quote(r.String()) + " has bits beyond its length")
		case r.Addr().Is4In6() && r.Bits() >= 96:
			// Addresses are compared unmapped.
			r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-96)
		}
		if r.Bits() == 0 {
			misuse(where + ": the range " + strconv.Quote(r.String()) + " contains every address")
		}
		list.ranges = append(list.ranges, r)
	}
	return list
}

// contains reports whether the client is on the list.
func (l addressList) contains(r *http.Request) (bool, error) {
	if len(l.ranges) == 0 {
		return false, nil
	}
	a, err := l.policy.Addr(r)
	if err != nil {
		return false, unknownClient{err}
	}
	for _, p := range l.ranges {
		if p.Contains(a) {
			return true, nil
		}
	}
	return false, nil
}
