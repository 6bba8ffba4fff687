package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// recorder keeps what a handler writes, and decides what becomes of it. It knows
// neither clients nor other goroutines: the mutex of the [handoff] guards it.
type recorder struct {
	rule    func(status int, header http.Header) ruling
	maxBody int
	// confirmed is the stored response whose validators the handler was sent: a 304
	// is about that one. nil: it was sent none.
	confirmed    *storedResponse
	confirmedAge time.Duration // since it was stored
	// staleOK says that a stale response may be served where the handler fails.
	staleOK bool

	header http.Header // the handler's, which it may still change
	status int         // 0: no header yet
	sent   http.Header // the header as it was when the status came
	body   []byte
	ruling ruling
}

// fate is what a response is good for.
type fate uint8

const (
	// fateKeep: others may have it, as far as is known by now. Of a failure for
	// which there is a stale response the body is not kept.
	fateKeep fate = iota
	// fatePass: it is for its own client alone.
	fatePass
)

// begin notes the header.
func (r *recorder) begin(status int) { r.status, r.sent = status, r.header.Clone() }

// failed says whether the handler reports that it failed.
func (r *recorder) failed() bool { return r.status >= http.StatusInternalServerError }

// decide says, once, by status and header, whether the body is worth keeping.
func (r *recorder) decide() fate {
	switch {
	case r.failed():
		r.staleOK = r.staleOK && r.status != http.StatusNotImplemented && r.status <= http.StatusGatewayTimeout
		if !r.staleOK {
			return fatePass
		}
		return fateKeep
	case r.hasConfirmed():
		return fateKeep
	}
	r.ruling = r.rule(r.status, r.sent)
	n, err := strconv.Atoi(r.sent.Get("Content-Length"))
	if err == nil && n > r.maxBody && r.ruling.share {
		r.ruling.why = whyTooLarge
		return fatePass
	}
	if !r.ruling.share {
		return fatePass
	}
	return fateKeep
}

// fits says whether n bytes more can be kept.
func (r *recorder) fits(n int) bool {
	if len(r.body)+n <= r.maxBody || r.failed() {
		return true
	}
	r.ruling.why = whyTooLarge
	return false
}

func (r *recorder) write(p []byte) {
	if !r.failed() {
		r.body = append(r.body, p...)
	}
}

// response is what was kept, when the handler has returned: nil where it failed.
// fatePass is a response whose body is not whole, or that has trailers.
func (r *recorder) response() (*storedResponse, fate) {
	length := r.sent.Get("Content-Length")
	switch {
	case r.failed():
		return nil, fateKeep
	case r.hasConfirmed():
		return r.renewed(), fateKeep
	case length != "" && length != strconv.Itoa(len(r.body)), r.hasTrailers():
		r.ruling.why = whyIncomplete
		return nil, fatePass
	}
	return r.assemble(r.status, r.sent.Clone(), r.body, false), fateKeep
}

// assemble makes a response as far as it is known here.
func (r *recorder) assemble(status int, header http.Header, body []byte, ownTag bool) *storedResponse {
	endToEnd(header)
	for _, name := range []string{"Content-Length", "Age"} {
		delete(header, name)
	}
	if _, set := header["Content-Type"]; !set && len(body) > 0 && header["Content-Encoding"] == nil {
		header.Set("Content-Type", http.DetectContentType(body))
	}
	if header["Etag"] == nil && status == http.StatusOK {
		header.Set("ETag", etagOf(body))
		ownTag = true
	}
	ru := &r.ruling
	return &storedResponse{
		kind: kindResponse, status: status, strict: ru.strict, ownTag: ownTag,
		fresh: ru.fresh, swr: ru.swr, sie: ru.sie, initialAge: ru.initialAge,
		header: header, body: body,
	}
}

func (r *recorder) hasTrailers() bool {
	for name := range r.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// code is the status of a response that clients do not get, as a parameter of
// Cache-Status.
func (r *recorder) code() string {
	if r.failed() || r.status == http.StatusNotModified {
		return "; fwd-status=" + strconv.Itoa(r.status)
	}
	return ""
}
