package sse

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

const (
	// bodyTimeout is how long the body of a request may still be on its way.
	bodyTimeout = 2 * time.Second
	// maxBody is how much of it is discarded, as much as by net/http.
	maxBody = 256 << 10
)

// finishBody reads the rest of the body of a request. net/http reads it before it
// sends a header, for which no write timeout holds, and again at the end: a client
// that keeps back a part of it would hold the response for ever, and all that waits
// for it. A timeout of reading ends the request for net/http, so without its whole
// body there is no response. HTTP/2 does not wait for bodies.
func (h *Handler) finishBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || r.ProtoMajor != 1 {
		return nil
	}
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Now().Add(bodyTimeout)) != nil {
		// The server's own time-out holds, since it cannot be lifted either. The
		// header leaves without it.
		w.Header().Set("Connection", "close")
		return nil
	}
	forbid := func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }
	ended := context.AfterFunc(h.ctx, forbid)
	_, err := io.CopyN(io.Discard, r.Body, maxBody+1)
	over := !ended()
	if err == io.EOF || errors.Is(err, http.ErrBodyReadAfterClose) { //nolint:errorlint // as CopyN returns it
		return nil // whoever closed it has read it, or net/http closes the connection
	}
	forbid() // nor is it read for the refusal
	_ = r.Body.Close()
	_ = rc.SetWriteDeadline(time.Now().Add(h.settings.timeout)) // the server's may be over
	w.Header().Set("Connection", "close")
	switch {
	case over:
		return errEnded
	case err == nil:
		return problem.New(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE", "The request body is too large")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(http.StatusRequestTimeout, "BODY_TIMEOUT", "The request body did not arrive in time")
	}
	return problem.New(http.StatusBadRequest, "BODY_INCOMPLETE", "The request body could not be read")
}
