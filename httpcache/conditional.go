package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// Conditional requests (RFC 9110 §13) happen on both sides of the cache. A client
// that sends validators gets a 304 in the place of a response that it has. And the
// handler gets the validators of a stale response, which its 304 renews.

// notModified says whether the client has the response already.
func notModified(r *http.Request, s *storedResponse, age time.Duration) bool {
	if s.status != http.StatusOK {
		return false
	}
	if lines := r.Header["If-None-Match"]; lines != nil {
		return matches(strings.Join(lines, ","), s.etag())
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	changed, err := http.ParseTime(s.header.Get("Last-Modified"))
	if err != nil {
		changed = time.Now().Add(-age).Truncate(time.Second) // as its Date
	}
	return !changed.After(since)
}

// matches compares weakly: RFC 9110 §8.8.3.2.
func matches(list, etag string) bool {
	weak := func(s string) string { return strings.TrimPrefix(strings.TrimSpace(s), "W/") }
	if strings.TrimSpace(list) == "*" {
		return true
	}
	for one := range splitOutsideQuotes(list, ",") {
		if etag != "" && weak(one) == weak(etag) {
			return true
		}
	}
	return false
}

// answerNotModified answers 304, with the header that is set already.
func answerNotModified(w http.ResponseWriter) {
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Language"} {
		delete(header, name)
	}
	w.WriteHeader(http.StatusNotModified)
}

// validate has the handler say whether a stored response is still right.
func (x *exchange) validate(s *storedResponse, age time.Duration) {
	tag, date := s.etag(), s.header.Get("Last-Modified")
	if s.ownTag {
		tag = "" // the handler does not know it
	}
	if tag != "" {
		x.req.Header.Set("If-None-Match", tag)
	}
	if date != "" {
		x.req.Header.Set("If-Modified-Since", date)
	}
	if tag != "" || date != "" {
		x.recorder.confirmed, x.recorder.confirmedAge = s, age
	}
}

// hasConfirmed says whether the handler has confirmed the stored response by a 304.
func (r *recorder) hasConfirmed() bool {
	return r.confirmed != nil && r.status == http.StatusNotModified
}

// renewed is the stored response with the header of the 304 that confirmed it.
func (r *recorder) renewed() *storedResponse {
	s := r.confirmed
	header := s.header.Clone()
	delete(header, "Date")
	for name, values := range r.sent {
		if !strings.HasPrefix(name, "Content-") {
			header[name] = values
		}
	}
	r.ruling = r.rule(s.status, header)
	return r.assemble(s.status, header, s.body, s.ownTag)
}
