package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

const requestIDHeader = "X-Request-Id"

// noSniff is shared by all answers; it is never appended to.
var noSniff = []string{"nosniff"}

// ServeHTTP is all that stands around a route, in one place and with one
// wrapped writer, since every layer costs each request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rw := responses.Get().(*response)
	rw.ResponseWriter = w
	h := w.Header()
	h[requestIDHeader] = []string{requestID(r)}
	h["X-Content-Type-Options"] = noSniff
	defer s.finish(rw, r, time.Now())
	if err := s.admit(r); err != nil {
		s.fail(rw, r, err)
		return
	}
	lowerMediaType(r.Header)
	s.mux.ServeHTTP(rw, r)
}

// lowerMediaType writes the type of a body as huma looks for it: media types
// have no case.
func lowerMediaType(h http.Header) {
	for i, value := range h["Content-Type"] {
		kind, parameters, _ := strings.Cut(value, ";")
		if lower := strings.ToLower(kind); lower != kind {
			h["Content-Type"][i] = lower + value[len(kind):len(value)-len(parameters)] + parameters
		}
	}
}

// finish answers a panic and writes the access log.
func (s *Server) finish(rw *response, r *http.Request, begin time.Time) {
	cause := recover()
	if cause != nil {
		if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
			panic(cause)
		}
		err := problem.PanicError(cause)
		if rw.status != 0 {
			// Half an answer is out. Closing the connection tells the caller.
			problem.Log(r.Context(), s.opt.Logger, problem.From(err), err, requestAttrs(rw, r)...)
			panic(http.ErrAbortHandler)
		}
		s.fail(rw, r, err)
	}
	if s.opt.AccessLog != nil {
		s.logAccess(rw, r, begin)
	}
	if cause == nil {
		*rw = response{}
		responses.Put(rw)
	}
}

// logAccess writes one line. It tells the route, not the path: keys and session
// ids stand in paths. Five attributes and no source line: more would allocate.
func (s *Server) logAccess(rw *response, r *http.Request, begin time.Time) {
	h := s.opt.AccessLog.Handler()
	if !h.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	status := rw.status
	if status == 0 {
		status = http.StatusOK
	}
	took := time.Since(begin)
	rec := slog.NewRecord(begin.Add(took), slog.LevelInfo, "request", 0)
	rec.AddAttrs(
		slog.String("route", routeOf(r)),
		slog.Int("status", status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("remote", r.RemoteAddr),
		slog.String("request_id", rw.Header().Get(requestIDHeader)))
	_ = h.Handle(r.Context(), rec) // there is no place left to report that
}

// routeOf returns the pattern that matched: "GET /api/…/cache/{key}".
func routeOf(r *http.Request) string {
	if r.Pattern == "" || r.Pattern == "/" {
		return r.Method + " unmatched"
	}
	return r.Pattern
}

// admit says who may come in: nil, or why not.
func (s *Server) admit(r *http.Request) error {
	if s.opt.LocalOnly && !isLocalName(r.Host) {
		return problem.New(http.StatusForbidden, "HOST_NOT_ALLOWED",
			"This server answers only to localhost; use a token to serve other names")
	}
	if s.opt.Token != "" && !isHealthPath(r.URL.Path) && !s.authorized(r.Header.Get("Authorization")) {
		return problem.With(problem.Problem{
			Status: http.StatusUnauthorized, Code: "UNAUTHORIZED",
			Message: "A valid bearer token is needed", Challenge: `Bearer realm="madcrow"`,
		})
	}
	if err := s.foreign.Check(r); err != nil {
		return problem.New(http.StatusForbidden, "CROSS_ORIGIN", "Requests from other sites are not allowed")
	}
	return nil
}

func isHealthPath(path string) bool {
	return path == "/health" || path == "/livez" || path == "/readyz"
}

// authorized compares hashes in constant time: neither the content nor the
// length of the token can be measured.
func (s *Server) authorized(header string) bool {
	const scheme = "bearer "
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return false
	}
	sent := sha256.Sum256([]byte(strings.TrimSpace(header[len(scheme):])))
	return subtle.ConstantTimeCompare(sent[:], s.tokenHash[:]) == 1
}

// isLocalName says whether a Host header names this machine itself.
func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// requestID takes over the caller's id when it is harmless, so that one id
// runs through several services.
func requestID(r *http.Request) string {
	if id := r.Header.Get(requestIDHeader); id != "" && len(id) <= 64 && strings.IndexFunc(id, notIDRune) < 0 {
		return id
	}
	const digits = "0123456789abcdef"
	var text [16]byte
	for i, n := 0, rand.Uint64(); i < len(text); i, n = i+1, n>>4 { //nolint:gosec // no secret
		text[i] = digits[n&15]
	}
	return string(text[:])
}

func notIDRune(c rune) bool {
	ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	return !ok
}

// serveUnknown answers what no route does: 405 when the path is one of ours. A
// browser that asks for the root is sent to the documentation.
func (s *Server) serveUnknown(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		w.Header().Add("Vary", "Accept")
		if acceptsHTML(r.Header) {
			http.Redirect(w, r, "/docs", http.StatusFound)
			return
		}
	}
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := s.mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		s.fail(w, r, problem.With(problem.Problem{
			Status: http.StatusMethodNotAllowed, Code: "METHOD_NOT_ALLOWED",
			Message: "The method is not allowed here", Allow: strings.Join(allowed, ", "),
		}))
		return
	}
	s.fail(w, r, problem.New(http.StatusNotFound, "NOT_FOUND", "There is nothing here"))
}

// acceptsHTML says whether a request names HTML among what it takes, as browsers do
// and programs do not: theirs take anything.
func acceptsHTML(h http.Header) bool {
	for _, list := range h["Accept"] {
		for part := range strings.SplitSeq(list, ",") {
			kind, parameters, err := mime.ParseMediaType(part)
			if quality, bad := strconv.ParseFloat(parameters["q"], 64); err == nil && kind == "text/html" && (bad != nil || quality > 0) {
				return true
			}
		}
	}
	return false
}

// responses are reused: one of them would otherwise be garbage of each request.
var responses = sync.Pool{New: func() any { return new(response) }}

// response notes what was answered.
type response struct {
	http.ResponseWriter
	status int
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx answers precede the one that counts
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets [http.ResponseController] find what the server offers.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
