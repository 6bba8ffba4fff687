package ratelimit

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/problem"
)

// Limit is a limit that [Middleware] can enforce: a [*Limiter], a
// [*TokenBucket] or a [*Group].
type Limit interface {
	// limiters returns the limits that decide together.
	limiters() []*Limiter
	// allowCosts admits a request, or denies it. Of a single limit each is nil.
	allowCosts(ctx context.Context, subject string, costs []int64) (d Decision, each []Decision, violated []string, err error)
}

func (l *Limiter) limiters() []*Limiter { return []*Limiter{l} }

func (l *Limiter) allowCosts(ctx context.Context, subject string, costs []int64) (Decision, []Decision, []string, error) {
	d, err := l.AllowN(ctx, subject, costs[0])
	return d, nil, nil, err
}

func (g *Group) limiters() []*Limiter { return g.limits }

func (g *Group) allowCosts(ctx context.Context, subject string, costs []int64) (Decision, []Decision, []string, error) {
	j, err := g.AllowN(ctx, subject, costs...)
	return j.Decision, j.Limits, j.Violated, err
}

// typeQuota is the problem type of a denial, of the Internet-Draft that
// [HeadersRateLimit] names.
const typeQuota = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// The texts of a denial.
const (
	titleQuota    = "Quota Exceeded"
	messageUsedUp = "The quota is used up for now"
	messageNever  = "The request costs more than the quota allows"
)

// Middleware lets a request pass when limit admits it, and sends the client its
// quota (see [Headers]). by says whose quota a request uses. It has no default:
// behind a proxy the address of the connection is the same for all clients.
//
//	clients, err := clientip.TrustedProxies(1)
//	…
//	limited := ratelimit.Middleware(api, ratelimit.ByClient(clients))
//	http.ListenAndServe(addr, limited(mux))
//
// The order of checks is: [WithSkip], [WithDeny], [WithPreflights], [WithAllow],
// the cost, by, the limit of the route or the given one. A refused request does
// not reach next. It gets a problem document (package problem):
//
//	429 QUOTA_EXCEEDED   denied; Retry-After says for how long
//	429 QUOTA_NEVER      it costs more than the limit ever admits; no Retry-After
//	503 LIMIT_UNAVAILABLE, 504 LIMIT_TIMEOUT
//	                     not decided, see [madcrow.Error]; never a 429
//	400 KEY_MISSING, CLIENT_UNKNOWN
//	                     by finds no key
//	403 CLIENT_DENIED    the client is on the list of WithDeny
//	500                  an option was used wrongly: see WithCost, PerRoute
//
// A 429 has the type https://iana.org/assignments/http-problem-types#quota-exceeded
// and the member violated-policies.
//
// While Redis is unavailable the [madcrow.FailPolicy] of the limit decides: FailOpen lets
// all requests pass, FailClosed answers 503 or 504, FailLocal counts in this
// process. A cost above this process's share is then a 503: it is not above the
// limit. No request waits longer than the limit's time-out.
//
// [FromContext] returns the decision. next gets the http.ResponseWriter
// unwrapped, so Flush, Hijack and http.ResponseController work; the headers are
// set before next runs. Middlewares may be nested: each counts, and the context
// holds the innermost decision. Middleware panics if limit, by or an option
// cannot be used.
func Middleware(limit Limit, by Key, opts ...MiddlewareOption) func(next http.Handler) http.Handler {
	m := newMiddleware(limit, by, opts)
	return func(next http.Handler) http.Handler {
		if next == nil {
			misuse("Middleware needs a handler")
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}
}

// FromContext returns the decision of the innermost [Middleware] about the
// request with this context; ok is false if there is none.
func FromContext(ctx context.Context) (d Decision, ok bool) {
	p, ok := ctx.Value(decisionKey{}).(*Decision)
	if !ok {
		return Decision{}, false
	}
	return *p, true
}

type decisionKey struct{}

// quota is a limit with everything that a middleware derives from it once.
type quota struct {
	limit     Limit
	limits    []*Limiter
	policy    string  // the value of RateLimit-Policy
	unitCosts []int64 // the costs of a request by default
	local     bool    // under FailLocal
}

func newQuota(where string, limit Limit) *quota {
	missing := limit == nil
	switch l := limit.(type) {
	case *Limiter:
		missing = l == nil
	case *TokenBucket:
		missing = l == nil || l.Limiter == nil
	case *Group:
		missing = l == nil || len(l.limits) == 0
	}
	if missing || limit.limiters()[0].r == nil {
		misuse(where + " needs a limit that was made by New, NewTokenBucket or Join")
	}
	q := &quota{limit: limit, limits: limit.limiters()}
	items := make([]string, len(q.limits))
	for i, l := range q.limits {
		items[i] = policyItem(l)
		q.unitCosts = append(q.unitCosts, 1)
		if slices.ContainsFunc(q.limits[:i], func(o *Limiter) bool { return o.name == l.name }) {
			misuse(where + ": two limits of the group are named " + strconv.Quote(l.name) + ", so clients could not distinguish them")
		}
	}
	q.policy = strings.Join(items, ", ")
	q.local = q.limits[0].fail.IsLocal()
	return q
}

type middleware struct {
	middlewareOptions
	base   *quota
	quotas map[string]*quota // by pattern
	by     Key
	events *events.Source
}

func newMiddleware(limit Limit, by Key, opts []MiddlewareOption) *middleware {
	m := &middleware{by: by, base: newQuota("Middleware", limit), quotas: make(map[string]*quota)}
	m.events = &m.base.limits[0].events
	m.headers = HeadersRateLimit | HeadersRetryAfter
	for _, set := range opts {
		set(&m.middlewareOptions)
	}
	checkKey("Middleware", by)
	if m.cost != nil && m.costs != nil {
		misuse("WithCost and WithCosts exclude each other")
	}
	if m.mux != nil && m.route != nil {
		misuse("WithMux and WithRoute exclude each other")
	}
	for pattern, l := range m.routes {
		where := "PerRoute " + strconv.Quote(pattern)
		if pattern == "" {
			misuse(where + ": the empty pattern never matches")
		}
		if m.mux != nil {
			checkPattern(where, pattern)
		}
		m.quotas[pattern] = newQuota(where, l)
	}
	return m
}

// checkPattern refuses patterns that no http.ServeMux accepts.
func checkPattern(where, pattern string) {
	defer func() {
		if v := recover(); v != nil {
			misuse(fmt.Sprint(where, ": ", v))
		}
	}()
	http.NewServeMux().Handle(pattern, http.NotFoundHandler())
}

// outcome is the result of a middleware's checks for one request.
type outcome struct {
	Decision
	decided  bool       // false: there is no decision
	each     []Decision // of a group
	violated []string
	costs    []int64
	quota    *quota            // that decided; nil if none did
	refusal  error             // the problem to answer with; nil: the request passes
	failed   bool              // the refusal is a failure, no denial
	event    madcrow.EventType // for the recorder, beside that of the limit
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	o := m.decide(r)
	if o.event != 0 {
		m.events.Count(r.Context(), o.event)
	}
	if o.quota != nil {
		o.setHeaders(w.Header(), m.headers)
	}
	if o.decided && m.onDecision != nil {
		m.onDecision(r, o.Decision)
	}
	if o.refusal != nil {
		if !m.shadow {
			problem.Write(w, r, m.logger, o.refusal)
			return
		}
		if o.decided && !o.failed {
			m.events.Count(r.Context(), madcrow.EventLimitShadowDenied)
		}
	}
	if !o.decided {
		next.ServeHTTP(w, r)
		return
	}
	inner := r.WithContext(context.WithValue(r.Context(), decisionKey{}, &o.Decision))
	next.ServeHTTP(w, inner)
	// A mux inside sets the pattern in the copy; logs outside read it here.
	r.Pattern = inner.Pattern
}

// decide runs the checks in the order that Middleware documents.
func (m *middleware) decide(r *http.Request) *outcome {
	if m.skip != nil && m.skip(r) {
		return m.bypass(true)
	}
	denied, err := m.deny.contains(r)
	if err != nil {
		return &outcome{refusal: err, event: madcrow.EventLimitUnkeyed}
	}
	if denied {
		o := m.bypass(false)
		o.refusal, o.event = errListed, madcrow.EventLimitDeniedByList
		return o
	}
	if !m.preflights && preflight(r) {
		return m.bypass(true)
	}
	// A client of unknown address is not on this list, and is counted.
	if allowed, _ := m.allow.contains(r); allowed {
		return m.bypass(true)
	}
	pattern := m.pattern(r)
	q, err := m.quotaOf(r, pattern)
	if err != nil {
		return &outcome{refusal: err}
	}
	costs, free, err := m.costsOf(r, q)
	switch {
	case err != nil:
		return &outcome{refusal: err}
	case free:
		return m.bypass(true)
	}
	subject, err := m.by.subject(r, pattern)
	if err != nil {
		return &outcome{refusal: err, event: madcrow.EventLimitUnkeyed}
	}
	return m.enforce(r.Context(), q, subject, costs)
}

// bypass is a decision that counts nothing.
func (m *middleware) bypass(allowed bool) *outcome {
	return &outcome{
		Decision: Decision{Allowed: allowed, Policy: m.base.limits[0].name, Source: SourceBypass},
		decided:  true, event: madcrow.EventLimitBypassed,
	}
}

// unmatched is the pattern of a request without a route. No route has this
// pattern: patterns hold a slash.
const unmatched = "unmatched"

func (m *middleware) pattern(r *http.Request) string {
	pattern := ""
	switch {
	case m.route != nil:
		pattern = m.route(r)
	case m.mux != nil:
		_, pattern = m.mux.Handler(r)
	default:
		return r.Pattern
	}
	if pattern == "" {
		return unmatched
	}
	return pattern
}

// costsOf returns what the request costs in each limit of q.
func (m *middleware) costsOf(r *http.Request, q *quota) (costs []int64, free bool, err error) {
	switch {
	case m.cost != nil:
		costs = slices.Repeat([]int64{m.cost(r)}, len(q.limits))
	case m.costs != nil:
		costs = m.costs(r)
	default:
		return q.unitCosts, false, nil
	}
	if len(costs) != len(q.limits) {
		return nil, false, fmt.Errorf("ratelimit: WithCosts returned %d costs for %d limits", len(costs), len(q.limits))
	}
	if n := slices.Min(costs); n < 0 {
		return nil, false, fmt.Errorf("ratelimit: the cost of a request must not be negative, got %d", n)
	}
	return costs, slices.Max(costs) == 0, nil
}

func (m *middleware) enforce(ctx context.Context, q *quota, subject string, costs []int64) *outcome {
	o := &outcome{decided: true, quota: q, costs: costs}
	var err error
	o.Decision, o.each, o.violated, err = q.limit.allowCosts(ctx, subject, costs)
	switch {
	case err != nil:
		l := q.limits[0]
		o.Decision = l.decision(SourceFallback)
		o.Degraded, o.Err = true, err
		o.each, o.quota, o.refusal, o.failed = nil, nil, err, true
	case o.Allowed:
	case o.Degraded && o.RetryAfter == Never:
		// The cost is above this process's share and not above the limit: Redis
		// might have admitted it.
		o.refusal, o.failed = o.Err, true
	default:
		o.refusal = m.denial(o)
	}
	return o
}

// denial is the 429 of a request.
func (m *middleware) denial(o *outcome) error {
	if o.violated == nil {
		o.violated = []string{o.Policy}
	}
	p := problem.Problem{
		Type: typeQuota, Title: titleQuota, Status: http.StatusTooManyRequests,
		Code: "QUOTA_EXCEEDED", Message: messageUsedUp,
		ViolatedPolicies: o.violated,
	}
	switch {
	case o.RetryAfter == Never:
		p.Code, p.Message = "QUOTA_NEVER", messageNever
	case m.headers&HeadersRetryAfter != 0:
		p.RetryAfter = max(o.RetryAfter, time.Nanosecond) // never 0
	}
	return refusal{p, o.RetryAfter}
}

// refusal is the error of a denied request.
type refusal struct {
	p     problem.Problem
	after time.Duration
}

func (e refusal) Error() string {
	text := "ratelimit: denied by " + strings.Join(e.p.ViolatedPolicies, ", ")
	if e.after == Never {
		return text + " for ever"
	}
	return text + " for " + e.after.String()
}

// Problem returns the 429.
func (e refusal) Problem() problem.Problem { return e.p }

var (
	errListed    = problem.New(http.StatusForbidden, "CLIENT_DENIED", "The address of the client is not allowed")
	errMisplaced = problem.New(http.StatusInternalServerError, "LIMIT_MISPLACED",
		"Per-route limits need the matched pattern: wrap the handlers of the routes, or use WithMux or WithRoute")
)
