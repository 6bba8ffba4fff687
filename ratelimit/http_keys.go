package ratelimit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/problem"
)

// Key says whose quota a request uses. Make it with [ByClient] and its like;
// the zero Key is refused by [Middleware].
type Key struct {
	of func(r *http.Request, pattern string) (string, error)
}

// Subject returns what r is counted by, for [Limiter.Reset], [Limiter.Block]
// and [TokenBucket.Penalize] of the same client. It is at most 96 bytes; what
// is longer is hashed. Its errors describe themselves as the problem that the
// middleware answers with.
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
	case len(s) > maxPlain:
		// Subjects are remembered in this process: what a caller chooses must
		// not be long.
		return digest(s), nil
	}
	return s, nil
}

// ByClient counts by the client's address, IPv6 by network, as p finds it. An
// address that p cannot tell is answered with 400 CLIENT_UNKNOWN: such a
// request has nobody's quota, and to give it another's or a common one would
// be a guess. It panics on the zero Policy.
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

// ByHeader counts by the value of a header, as an API key is. The value may be
// a secret: what is counted by, and stands in Redis, is its SHA-256 with the
// header's name. A header that is absent, empty or sent twice is answered with
// 400 KEY_MISSING.
//
// A client that can choose the value has as many quotas as it likes: whoever
// checks the header must stand before the limit. It panics for Host, which
// net/http keeps elsewhere, and for the headers that hold addresses, which are
// for [ByClient].
func ByHeader(name string) Key {
	name = keyHeader(name)
	return Key{func(r *http.Request, _ string) (string, error) {
		switch values := r.Header[name]; {
		case len(values) == 1 && values[0] != "":
			return digest(name + "\x00" + values[0]), nil
		case len(values) > 1:
			return "", errTwoKeys
		}
		return "", errNoKey
	}}
}

// ByHeaderOr is [ByHeader], and counts by otherwise what comes without the
// header, or with an empty one: ByHeaderOr("X-Api-Key", ByClient(p)). A header
// sent twice is still refused. Note that a client may leave the header out: it
// then has both quotas.
func ByHeaderOr(name string, otherwise Key) Key {
	checkKey("ByHeaderOr", otherwise)
	first := ByHeader(name)
	return Key{func(r *http.Request, pattern string) (string, error) {
		s, err := first.of(r, pattern)
		if errors.Is(err, errNoKey) { // and not for errTwoKeys: that is no honest client
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
		misuse("ByHeader(" + strconv.Quote(name) + ") counts by what a client may write itself; use ByClient")
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ':' }) {
		misuse("ByHeader: " + strconv.Quote(name) + " is no name of a header")
	}
	return canonical
}

// ByPath counts by the route: the pattern that matched, with its method
// ("GET /items/{id}"; that of the request where the router's patterns have none,
// and GET for HEAD), from http.Request.Pattern, [WithMux] or [WithRoute]. So what
// is registered without a method has a quota for each method of HTTP that is used,
// and one for all methods that clients make up: name the method where that is too
// many. With these two all requests that match none are one subject. Where no router has
// matched yet, it is the method with the path as it was sent, and a client that
// can vary the path has as many quotas as it likes. Alone it is one quota for all clients; see
// [ByAll].
func ByPath() Key {
	return Key{func(r *http.Request, pattern string) (string, error) {
		if pattern == "" {
			pattern = r.URL.Path
		}
		if pattern == unmatched {
			return pattern, nil
		}
		said, path := splitPattern(pattern)
		method := said
		if said == "" {
			method = r.Method
		}
		switch {
		case !known(method) && pattern == r.Method: // of a request without a route
			return unmatched, nil
		case !known(method):
			return path, nil
		case method == http.MethodHead:
			method = http.MethodGet
		case said != "":
			return pattern, nil
		}
		return method + " " + path, nil
	}}
}

// known says whether a method is one of HTTP. Any token can be one, so that a
// client has as many as it likes.
func known(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// ByFunc counts by what f returns: a user from the context, a field. An empty
// text is answered with 400 KEY_MISSING, an error with its problem, which is
// 500 for one that does not describe itself (see [problem.Describer]). f must
// be safe for concurrent use.
func ByFunc(f func(*http.Request) (string, error)) Key {
	if f == nil {
		misuse("ByFunc needs a function")
	}
	return Key{func(r *http.Request, _ string) (string, error) { return f(r) }}
}

// ByAll counts by all keys together: ByAll(ByClient(p), ByPath()) gives each
// client a quota on each route. Different parts never make the same subject.
// The first error is the answer.
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
			// The length in front keeps "a,b" and "c" apart from "a" and "b,c".
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

// misuse ends a program that could not keep its limit: better at its start
// than unnoticed.
func misuse(text string) { panic("ratelimit: " + text) }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

var (
	errZeroKey = errors.New("ratelimit: the zero Key")
	errNoKey   = &keyError{"The request lacks what its quota is counted by"}
	errTwoKeys = &keyError{"What the quota is counted by must be sent exactly once"}
)

// keyError is a request without a subject.
type keyError struct{ message string }

func (e *keyError) Error() string { return "ratelimit: no key: " + e.message }

func (e *keyError) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Code: "KEY_MISSING", Message: e.message}
}

// unknownClient is a request whose address the policy cannot tell.
type unknownClient struct{ err error }

func (e unknownClient) Error() string { return "ratelimit: " + e.err.Error() }
func (e unknownClient) Unwrap() error { return e.err }

func (unknownClient) Problem() problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Code: "CLIENT_UNKNOWN", Message: "The address of the client cannot be told"}
}
