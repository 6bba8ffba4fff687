package ratelimit

import (
	"net/http"
	"strings"
)

// Patterns are those of net/http, "POST /login", and of routers whose patterns
// have no method (chi, Echo) or other words for what varies: {id}, {id:[0-9]+},
// :id, *, *rest, {rest...}.

// splitPattern returns the method of a pattern, if it has one, and the rest.
func splitPattern(pattern string) (method, path string) {
	method, path, ok := strings.Cut(pattern, " ")
	switch {
	case ok && !strings.Contains(method, "/"):
		return method, strings.TrimLeft(path, " \t")
	case !ok && isMethod(pattern): // of a request without a route
		return pattern, ""
	}
	return "", pattern
}

func isMethod(s string) bool {
	return s != "" && strings.ToUpper(s) == s && !strings.ContainsAny(s, "/.:*{")
}

// quotaOf returns the limit of the route that a request is for.
func (m *middleware) quotaOf(r *http.Request, pattern string) (*quota, error) {
	switch {
	case len(m.quotas) == 0:
		return m.base, nil
	case pattern == "":
		return nil, errMisplaced
	case pattern == unmatched: // the router has said that no route is run
		return m.base, nil
	}
	method, path := splitPattern(pattern)
	if method == "" {
		method = r.Method
	}
	q := m.quotas[method+" "+path]
	if q == nil && method == http.MethodHead {
		q = m.quotas[http.MethodGet+" "+path]
	}
	if q == nil {
		q = m.quotas[path]
	}
	if q == nil {
		q = m.quotas[pattern]
	}
	if q != nil {
		return q, nil
	}
	if deep, open := depth(path); open && path != r.URL.Path {
		if !begins(r.URL.Path, path, deep) {
			deep = 0 // what a router outside has matched was stripped
		}
		for key := range m.quotas {
			if below(key, deep, r) {
				return nil, errMisplaced
			}
		}
	}
	return m.base, nil
}

// depth is how many segments a path has before what may be anything; open says
// whether there is such an end.
func depth(path string) (n int, open bool) {
	at := strings.IndexByte(path, '/')
	if at < 0 {
		return 0, true // no route
	}
	for segment := range strings.SplitSeq(path[at+1:], "/") {
		if rest(segment) {
			return n, true
		}
		n++
	}
	return n, false
}

// rest says whether a segment of a pattern is for all that comes.
func rest(segment string) bool {
	return segment == "" || segment[0] == '*' || segment[0] == '+' || strings.HasSuffix(segment, "...}")
}

// begins says whether a path has the first n segments of a pattern.
func begins(path, pattern string, n int) bool {
	if n == 0 {
		return true
	}
	pattern = pattern[strings.IndexByte(pattern, '/')+1:]
	left, more := strings.TrimPrefix(path, "/"), true
	for segment := range strings.SplitSeq(pattern, "/") {
		if !more {
			return false
		}
		var is string
		if is, left, more = strings.Cut(left, "/"); !fits(is, segment) {
			return false
		}
		if n--; n == 0 {
			break
		}
	}
	return true
}

// fits says whether a segment of a path can be for that of a pattern.
func fits(is, segment string) bool {
	return is == segment || is != "" && strings.ContainsAny(segment, "{:")
}

// below says whether key is for the request, by its method and path, and says
// more of the path than deep segments.
func below(key string, deep int, r *http.Request) bool {
	method, path := splitPattern(key)
	if method != "" && method != r.Method && (method != http.MethodGet || r.Method != http.MethodHead) {
		return false
	}
	if n, _ := depth(path); n <= deep {
		return false
	}
	path = path[strings.IndexByte(path, '/')+1:]
	left, more := strings.TrimPrefix(r.URL.Path, "/"), true
	for segment := range strings.SplitSeq(path, "/") {
		if rest(segment) {
			return more
		}
		if segment == "{$}" {
			return !more || left == ""
		}
		var is string
		if !more {
			return false
		}
		if is, left, more = strings.Cut(left, "/"); !fits(is, segment) {
			return false
		}
	}
	return !more
}

// preflight says whether a browser asks here what it may ask. No browser names
// another method then, which a handler inside might go by.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header["Origin"] != nil && r.Header["Access-Control-Request-Method"] != nil &&
		r.Header["Authorization"] == nil && r.Header["Cookie"] == nil && r.ContentLength == 0 &&
		r.Header["X-Http-Method-Override"] == nil && r.Header["X-Http-Method"] == nil && r.Header["X-Method-Override"] == nil
}
