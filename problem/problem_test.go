package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

type packageError struct{ err error }

func (e packageError) Error() string { return "package: " + e.err.Error() }
func (e packageError) Unwrap() error { return e.err }
func (e packageError) Problem() Problem {
	return Problem{
		Status: 503, Code: "REDIS_UNAVAILABLE", Message: "Redis is not available",
		Operation: "get", Table: "redis_cache", RetryAfter: 1500 * time.Millisecond,
	}
}

func answer(t *testing.T, err error) (*httptest.ResponseRecorder, map[string]any, string) {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := httptest.NewRecorder()
	Write(w, httptest.NewRequest(http.MethodGet, "/x", nil), logger, err)
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return w, body, log.String()
}

func TestWrite_DescribedErrorCarriesEveryMember(t *testing.T) {
	err := fmt.Errorf("outer: %w", packageError{errors.New("dial tcp 10.1.2.3:6379: refused")})
	w, body, log := answer(t, err)
	if w.Code != 503 || w.Header().Get("Content-Type") != ContentType || w.Header().Get("Retry-After") != "2" {
		t.Fatalf("status %d, headers %v", w.Code, w.Header())
	}
	want := map[string]any{
		"type": "about:blank", "title": "Service Unavailable", "status": 503.0, "error": true,
		"code": "REDIS_UNAVAILABLE", "message": "Redis is not available", "detail": "Redis is not available",
		"operation": "get", "table": "redis_cache",
	}
	for k, v := range want {
		if body[k] != v {
			t.Errorf("%s = %v, want %v", k, body[k], v)
		}
	}
	id, _ := body["error_id"].(string)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("error_id = %q, want a random UUID", id)
	}
	if body["instance"] != "urn:uuid:"+id {
		t.Errorf("instance = %v", body["instance"])
	}
	if strings.Contains(w.Body.String(), "10.1.2.3") {
		t.Error("the client receives an address")
	}
	if !strings.Contains(log, id) || !strings.Contains(log, "10.1.2.3") || !strings.Contains(log, "level=ERROR") {
		t.Errorf("the log lacks the id or the cause: %s", log)
	}
}

func TestWrite_PlainErrorIsAFixed500(t *testing.T) {
	w, body, log := answer(t, errors.New("secret detail"))
	if w.Code != 500 || body["code"] != CodeInternal {
		t.Fatalf("status %d, body %v", w.Code, body)
	}
	if strings.Contains(w.Body.String(), "secret detail") {
		t.Error("the text of a plain error reached the caller")
	}
	if !strings.Contains(log, "secret detail") {
		t.Error("the text of a plain error is not in the log")
	}
	for _, member := range []string{"operation", "table", "errors"} {
		if _, ok := body[member]; ok {
			t.Errorf("%s is there without need", member)
		}
	}
}

func TestWrite_ValidationListsFields(t *testing.T) {
	w, _, log := answer(t, Validation(FieldError{"body.key", "expected length >= 1"}))
	if w.Code != 422 || !strings.Contains(w.Body.String(), `"errors":[{"field":"body.key","message":"expected length >= 1"}]`) {
		t.Fatalf("status %d, body %s", w.Code, w.Body)
	}
	if !strings.Contains(log, "level=INFO") {
		t.Errorf("a caller's mistake is not in the log, or as an error: %s", log)
	}
}

func TestWrite_TwoProblemsHaveTwoIDs(t *testing.T) {
	if a, b := From(nil), From(nil); a.ErrorID == b.ErrorID {
		t.Errorf("both have id %s", a.ErrorID)
	}
}

func TestRecover_PanicIsA500WithStackInTheLog(t *testing.T) {
	var log bytes.Buffer
	h := Recover(slog.New(slog.NewTextHandler(&log, nil)))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("boom at 10.1.2.3")
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), "problem_test.go") {
		t.Errorf("log = %s", &log)
	}
}

func TestRecover_AbortHandlerPassesThrough(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"abort":                       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"panic after the first bytes": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("half")); panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // identity is the promise
					t.Errorf("recovered %v", v)
				}
			}()
			Recover(nil)(handler).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
			t.Error("did not panic")
		})
	}
}

// An error, or a panic, after the first bytes: the caller must not take them for
// the whole answer.
func TestWrite_AStartedResponseDoesNotEndAsIfComplete(t *testing.T) {
	half := func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, `[{"n":1},`)
		return errors.New("boom")
	}
	flushed := func(w http.ResponseWriter, _ *http.Request) error {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		return errors.New("boom")
	}
	var log bytes.Buffer
	f := Writer{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	write := func(h func(http.ResponseWriter, *http.Request) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := h(&passing{w}, r); err != nil {
				f.Write(&passing{w}, r, err)
			}
		})
	}
	throw := func(h func(http.ResponseWriter, *http.Request) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(h(w, r)) })
	}
	for name, h := range map[string]http.Handler{
		"error after bytes": f.Recover(write(half)),
		"error after flush": f.Recover(write(flushed)),
		"panic after bytes": f.Recover(throw(half)),
		"panic after flush": f.Recover(throw(flushed)),
		"swallowed":         swallow(f.Recover(write(flushed))),
		"swallowed panic":   swallow(f.Recover(throw(flushed))),
	} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			srv := httptest.NewServer(h)
			defer srv.Close()
			res, err := http.Get(srv.URL)
			if err == nil {
				var body []byte
				body, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err == nil || strings.Contains(string(body), "error_id") {
					t.Errorf("%d %q, ended with %v", res.StatusCode, body, err)
				}
			}
			srv.Close() // the handler has logged
			if !strings.Contains(log.String(), "boom") {
				t.Errorf("log = %s", &log)
			}
		})
	}
}

// passing is the writer of some middleware.
type passing struct{ http.ResponseWriter }

func (w *passing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// swallow takes every panic for its own.
func swallow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }()
		next.ServeHTTP(w, r)
	})
}

// What says itself that it failed is left as it is.
func TestWrite_AfterAnAnswerOf400AndMoreOnlyLogs(t *testing.T) {
	var log bytes.Buffer
	f := Writer{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	w := httptest.NewRecorder()
	f.Recover(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not here", http.StatusNotFound)
		f.Write(w, r, errors.New("boom"))
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 404 || w.Body.String() != "not here\n" || !strings.Contains(log.String(), "boom") {
		t.Errorf("%d %q, log %s", w.Code, w.Body, &log)
	}
}

// keeping is like the writer of a cache: to unwrap it changes what it does.
type keeping struct {
	http.ResponseWriter
	t *testing.T
}

func (w *keeping) SetReadDeadline(time.Time) error { return nil }

func (w *keeping) Unwrap() http.ResponseWriter {
	w.t.Error("it was unwrapped")
	return w.ResponseWriter
}

func TestWrite_UnwrapsNoWriterThatKeepsTheAnswer(t *testing.T) {
	w := httptest.NewRecorder()
	Recover(nil)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Write(&keeping{w, t}, r, nil, errors.New("boom"))
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 500 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A body that cannot be read is an error that the client sees: nothing of the
// response was sent before it.
func TestWrite_AnswersTheErrorOfASourceThatGaveNoByte(t *testing.T) {
	for _, withType := range []bool{false, true} {
		srv := httptest.NewServer(Recover(nil)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if withType {
				w.Header().Set("Content-Type", "text/csv")
			}
			if _, err := io.Copy(w, iotest.ErrReader(io.ErrUnexpectedEOF)); err != nil {
				Write(w, r, nil, err)
			}
		})))
		res, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusInternalServerError || res.Header.Get("Content-Type") != ContentType {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
		_ = res.Body.Close()
		srv.Close()
	}
}

func TestWrite_LeavesAHijackedConnectionAlone(t *testing.T) {
	for _, panics := range []bool{false, true} {
		srv := httptest.NewServer(Recover(nil)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() {
				_, _ = io.WriteString(conn, "0\r\n\r\n") // the last chunk
				_ = conn.Close()
			}()
			if panics {
				panic("boom")
			}
			Write(w, r, nil, errors.New("boom"))
		})))
		res, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); len(body) != 0 || err != nil {
			t.Errorf("%q %v", body, err)
		}
		_ = res.Body.Close()
		srv.Close()
	}
}
