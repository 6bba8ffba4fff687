package ratelimit

import (
	"errors"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/internal/keys"
	"github.com/madcrow-go/madcrow/problem"
)

// Key finds the subject of a request: whose quota it uses. Make it with
// [ByClient] and its like; [Middleware] panics on the zero Key.
type Key struct {
	of func(r *http.Request, pattern string) (string, error)
}

// Subject returns the subject of r, for [Limiter.Reset], [Limiter.Block] and
// [TokenBucket.Penalize] of the same client. It is at most 96 bytes; longer ones
// are hashed. Its errors are the problems that the middleware answers with.
func (k Key) Subject(r *http.Request) (string, error) { return k.subject(r, r.Pattern) }

func (k Key) subject(r *http.Request, pattern string) (string, error) {
	if k.of == nil {
		return "", errZeroKey
	}
	s, err := k.of(r, pattern)
	switch {
	case err != nil:
		return "", err
	case s == "":
		return "", errNoKey
	case len(s) > keys.Subject.MaxPlain():
		// This process keeps subjects in memory: a client must not choose long
		// ones.
		return keys.Digest(s), nil
	}
	return s, nil
}

// ByClient counts by the client's address as p finds it, IPv6 by network. A
// request whose address p cannot determine gets 400 CLIENT_UNKNOWN: counting it
// for another client, or for all such requests together, would be a guess.
// ByClient panics on the zero Policy.
func ByClient(p clientip.Policy) Key {
	if !p.IsValid() {
		misuse("ByClient needs a clientip.Policy that was made by a constructor")
	}
	return Key{func(r *http.Request, _ string) (string, error) {
		s, err := p.Key(r)
		if err != nil {
			return "", unknownClient{err}
		}
		return s, nil
	}}
}

// ByHeader counts by the value of a header, such as an API key. The value may be
// a secret: the subject, which stands in Redis, is the SHA-256 of the header's
// name and value. A request whose header is absent, empty or sent twice gets 400
// KEY_MISSING.
//
// A client that can choose the value has as many quotas as it likes: check the
// header before the limit. ByHeader panics for Host, which net/http keeps
// elsewhere, and for the headers that hold addresses, which are for [ByClient].
func ByHeader(name string) Key {
	name = keyHeader(name)
	return Key{func(r *http.Request, _ string) (string, error) {
		switch values := r.Header[name]; {
		case len(values) == 1 && values[0] != "":
			return keys.Digest(name + "\x00" + values[0]), nil
		case len(values) > 1:
			return "", errTwoKeys
		}
		return "", errNoKey
	}}
}

// ByHeaderOr is [ByHeader]; a request without the header, or with an empty one,
// counts by otherwise: ByHeaderOr("X-Api-Key", ByClient(p)). A header sent twice
// is still refused. A client may leave the header out, so it has both quotas.
func ByHeaderOr(name string, otherwise Key) Key {
	checkKey("ByHeaderOr", otherwise)
	first := ByHeader(name)
	return Key{func(r *http.Request, pattern string) (string, error) {
		s, err := first.of(r, pattern)
		if errors.Is(err, errNoKey) { // not for errTwoKeys: no honest client sends two
			return otherwise.of(r, pattern)
		}
		return s, err
	}}
}

func keyHeader(name string) string {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch canonical {
	case "Host":
		misuse("ByHeader never sees Host; use ByFunc with http.Request.Host")
	case "X-Forwarded-For", "Forwarded", "X-Real-Ip":
		misuse("ByHeader(" + strconv.Quote(name) + ") counts by a header that a client may forge; use ByClient")
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ':' }) {
		misuse("ByHeader: " + strconv.Quote(name) + " is not a header name")
	}
	return canonical
}

// ByPath counts by the route: the matched pattern with its method ("GET
// /items/{id}"), from http.Request.Pattern, or the Mux or Route of
// [MiddlewareOptions]. If the
// pattern has no method, that of the request is used; HEAD counts as GET. So a
// route without a method has a quota for each standard HTTP method, and one for
// all other methods: register the method where that is too many.
//
// With Mux or Route all requests without a route are one subject. If no
// router has matched yet, the subject is the method with the path as it was
// sent, and a client that can vary the path has as many quotas as it likes.
// Alone, ByPath is one quota for all clients; see [ByAll].
func ByPath() Key {
	return Key{func(r *http.Request, pattern string) (string, error) {
		if pattern == "" {
			pattern = r.URL.Path
		}
		if pattern == unmatched {
			return pattern, nil
		}
		patternMethod, path := splitPattern(pattern)
		method := patternMethod
		if patternMethod == "" {
			method = r.Method
		}
		switch {
		case !standardMethod(method) && pattern == r.Method: // of a request without a route
			return unmatched, nil
		case !standardMethod(method):
			return path, nil
		case method == http.MethodHead:
			method = http.MethodGet
		case patternMethod != "":
			return pattern, nil
		}
		return method + " " + path, nil
	}}
}

// standardMethod reports whether HTTP defines the method. Any token can be a
// method, so a client can make up as many as it likes.
func standardMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// ByFunc counts by the result of f: a user from the context, a field. An empty
// result is answered with 400 KEY_MISSING, an error with its problem: 500 unless
// it is a [problem.Describer]. f must be safe for concurrent use.
func ByFunc(f func(*http.Request) (string, error)) Key {
	if f == nil {
		misuse("ByFunc needs a function")
	}
	return Key{func(r *http.Request, _ string) (string, error) { return f(r) }}
}

// ByAll counts by all keys together: ByAll(ByClient(p), ByPath()) gives each
// client a quota on each route. Different parts never make the same subject. The
// first error is returned.
func ByAll(keys ...Key) Key {
	if len(keys) == 0 {
		misuse("ByAll needs keys")
	}
	for _, k := range keys {
		checkKey("ByAll", k)
	}
	keys = append([]Key(nil), keys...)
	return Key{func(r *http.Request, pattern string) (string, error) {
		var all []byte
		for i, k := range keys {
			s, err := k.subject(r, pattern)
			if err != nil {
				return "", err
			}
			if i > 0 {
				all = append(all, ',')
			}
			// The length distinguishes "a,b" and "c" from "a" and "b,c".
			all = strconv.AppendInt(all, int64(len(s)), 10)
			all = append(append(all, ':'), s...)
		}
		return string(all), nil
	}}
}

func checkKey(where string, k Key) {
	if k.of == nil {
		misuse(where + " was given the zero Key; make one with ByClient, ByHeader, ByPath, ByFunc or ByAll")
	}
}

// misuse panics for an argument with which the limit would not be enforced: at
// the start of the program, where it is noticed.
func misuse(text string) { panic("ratelimit: " + text) }

var (
	errZeroKey = errors.New("ratelimit: the zero Key")
	errNoKey   = &keyError{"Missing rate limit key"}
	errTwoKeys = &keyError{"The rate limit key header must be sent exactly once"}
)

// keyError is a request without a subject.
type keyError struct{ message string }

func (e *keyError) Error() string { return "ratelimit: no key: " + e.message }

func (e *keyError) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Code: "KEY_MISSING", Message: e.message}
}

// unknownClient is a request whose address the policy cannot determine.
type unknownClient struct{ err error }

func (e unknownClient) Error() string { return "ratelimit: " + e.err.Error() }
func (e unknownClient) Unwrap() error { return e.err }

func (unknownClient) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Code: "CLIENT_UNKNOWN", Message: "The client's address cannot be determined"}
}
