package carry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// It had 200 sent, and what was outside could answer no more.
func TestMiddleware_APanicWhileTheHandlerRunsSendsNoResponse(t *testing.T) {
	begun, leave := make(chan struct{}), make(chan struct{})
	serve := Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			go next.ServeHTTP(httptest.NewRecorder(), r)
			<-begun
			time.AfterFunc(20*time.Millisecond, func() { close(leave) })
			panic(http.ErrAbortHandler)
		})
	}, true, func(int, http.ResponseWriter, *http.Request) { close(begun); <-leave })
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // as net/http
				t.Errorf("%v", v)
			}
		}()
		serve(0, w, httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	if w.WriteHeader(500); w.Flushed || w.Code != 500 {
		t.Errorf("%d, flushed %v", w.Code, w.Flushed)
	}
}

// The framework's writer serves another request by then.
func TestMiddleware_AfterTheRequestNoOneReachesTheFrameworksWriter(t *testing.T) {
	begin, done := make(chan struct{}), make(chan struct{})
	var mine http.ResponseWriter
	serve := Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mine = w
			go func() {
				defer close(done)
				<-begin
				next.ServeHTTP(w, r)
			}()
		})
	}, true, func(int, http.ResponseWriter, *http.Request) { t.Error("the handler runs") })
	w := httptest.NewRecorder()
	serve(0, w, httptest.NewRequest(http.MethodGet, "/", nil))
	*w = *httptest.NewRecorder() // used again
	close(begin)
	<-done
	mine.Header().Set("X-Late", "1")
	mine.WriteHeader(http.StatusEarlyHints)
	mine.WriteHeader(418)
	_, _ = mine.Write([]byte("late"))
	control := http.NewResponseController(mine)
	if err := control.Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	if _, _, err := control.Hijack(); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	if err := control.SetReadDeadline(time.Time{}); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	if w.Flushed || w.Body.Len() > 0 || len(w.Header()) > 0 || w.Code != 200 {
		t.Errorf("%d %v %q, flushed %v", w.Code, w.Header(), w.Body, w.Flushed)
	}
}
