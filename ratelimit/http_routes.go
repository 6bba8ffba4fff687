package ratelimit

import (
	"net/http"
	"strings"
)

// Patterns are those of net/http, "POST /login", and of routers whose patterns
// have no method (chi, Echo) or another syntax for wildcards: {id}, {id:[0-9]+},
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
		if !hasSegments(r.URL.Path, path, deep) {
			deep = 0 // an outer router has stripped its part of the path
		}
		for key := range m.quotas {
			if reaches(key, deep, r) {
				return nil, errMisplaced
			}
		}
	}
	return m.base, nil
}

// depth is how many segments a pattern has before a wildcard for the rest of the
// path; open says whether it has one.
func depth(path string) (n int, open bool) {
	at := strings.IndexByte(path, '/')
	if at < 0 {
		return 0, true // no route
	}
	for segment := range strings.SplitSeq(path[at+1:], "/") {
		if matchesRest(segment) {
			return n, true
		}
		n++
	}
	return n, false
}

// matchesRest reports whether a segment of a pattern matches the rest of a path.
func matchesRest(segment string) bool {
	return segment == "" || segment[0] == '*' || segment[0] == '+' || strings.HasSuffix(segment, "...}")
}

// hasSegments reports whether a path matches the first n segments of a pattern.
func hasSegments(path, pattern string, n int) bool {
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
		if is, left, more = strings.Cut(left, "/"); !segmentMatches(is, segment) {
			return false
		}
		if n--; n == 0 {
			break
		}
	}
	return true
}

// segmentMatches reports whether a segment of a path can match one of a pattern.
func segmentMatches(is, segment string) bool {
	return is == segment || is != "" && strings.ContainsAny(segment, "{:")
}

// reaches reports whether key matches the method and path of a request, and has
// more than deep segments.
func reaches(key string, deep int, r *http.Request) bool {
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
		if matchesRest(segment) {
			return more
		}
		if segment == "{$}" {
			return !more || left == ""
		}
		var is string
		if !more {
			return false
		}
		if is, left, more = strings.Cut(left, "/"); !segmentMatches(is, segment) {
			return false
		}
	}
	return !more
}

// preflight reports whether this is a CORS preflight. No browser sends a header
// with it that overrides the method, which a handler inside might obey.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header["Origin"] != nil && r.Header["Access-Control-Request-Method"] != nil &&
		r.Header["Authorization"] == nil && r.Header["Cookie"] == nil && r.ContentLength == 0 &&
		r.Header["X-Http-Method-Override"] == nil && r.Header["X-Http-Method"] == nil && r.Header["X-Method-Override"] == nil
}
