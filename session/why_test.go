package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

// Nothing said why a session was gone: the log of each 401 was the same, and nothing
// more was logged at any level.
func TestWhy_IsInTheErrorTheLogAndTheEventAndNotInTheResponse(t *testing.T) {
	r, c := counted(t)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	m := newManager(t, r, options{Secret: key(1), Cookie: "sid", Logger: logger, OnUndecodable: func(context.Context, error) {}})
	host := newManager(t, r, options{Secret: key(1), Logger: logger})
	ended := func(end func(s *session.Session[cart])) string {
		s := login(t, m, "alice")
		end(s)
		return "sid=" + s.Token()
	}
	revoked := login(t, m, "bob")
	_, err := m.RevokeAll(t.Context(), "bob")
	must(t, err)
	rotated := login(t, m, "carol")
	before := rotated.Token()
	must(t, rotated.Rotate(t.Context()))
	must(t, rotated.Rotate(t.Context()))
	other := login(t, newManager(t, r, options{Secret: key(2)}), "alice")
	numbers, err := session.New(r, "web", session.Options[[]int]{Secret: key(1)})
	must(t, err)
	wrongType := numbers.Open("")
	must(t, wrongType.Update(t.Context(), func(n *[]int) error { *n = []int{1}; return nil }))
	two := login(t, m, "dave").Token() + "; sid=" + login(t, m, "dave").Token()
	bodies := map[string]bool{}
	for _, tc := range []struct {
		m      *session.Manager[cart]
		cookie string
		want   error
		reason string
	}{
		{m, "", session.ErrNoCookie, "no_cookie"},
		{m, "sid=x", session.ErrMalformed, "malformed"},
		{m, `sid={"a":1}`, session.ErrMalformed, "malformed"},
		{m, "sid=x; sid=y", session.ErrMalformed, "malformed"},
		{m, "sid=" + strings.Repeat("A", 56), session.ErrUnknown, "unknown"},
		{m, "sid=" + strings.Repeat("A", 56) + "; sid=AAAA" + two[4:56], session.ErrUnknown, "unknown"},
		{m, ended(func(s *session.Session[cart]) { _, err := m.Revoke(t.Context(), "alice", s.Handle()); must(t, err) }), session.ErrUnknown, "unknown"},
		{m, "sid=" + revoked.Token(), session.ErrRevoked, "revoked"},
		{m, "sid=" + before, session.ErrRotated, "rotated"},
		{m, "sid=" + other.Token(), session.ErrOtherSecret, "other_secret"},
		{m, "sid=" + wrongType.Token(), session.ErrUndecodable, "undecodable"},
		{m, "sid=" + two, session.ErrTwoCookies, "two_cookies"},
		{host, "__Host-session=x; __Host-session=" + two[:56], session.ErrTwoCookies, "two_cookies"},
	} {
		log.Reset()
		clear(c.events)
		var why error
		h := tc.m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tc.m.Require(http.NotFoundHandler()).ServeHTTP(w, r)
			why = tc.m.From(r.Context()).Why()
		}))
		req, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		if tc.cookie != "" {
			req.Header.Set("Cookie", tc.cookie)
		}
		h.ServeHTTP(w, req)
		if !errors.Is(why, tc.want) {
			t.Errorf("%s: %v, want %v", tc.cookie, why, tc.want)
		}
		if c.events["missing/"+tc.reason] != 1 {
			t.Errorf("%s: events %v", tc.cookie, c.events)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		line := lines[len(lines)-1]
		if !strings.Contains(line, `"reason":"`+tc.reason+`"`) || !strings.Contains(line, tc.want.Error()) {
			t.Errorf("%s: the log has %s", tc.cookie, line)
		}
		var body map[string]any
		must(t, json.Unmarshal(w.Body.Bytes(), &body))
		if !strings.Contains(line, body["error_id"].(string)) {
			t.Errorf("%s: the error_id of the response is not in %s", tc.cookie, line)
		}
		delete(body, "error_id")
		delete(body, "instance")
		text, _ := json.Marshal(body)
		if bodies[string(text)] = true; w.Code != 401 || len(bodies) != 1 {
			t.Errorf("%s: the client can tell reasons apart: %d %v", tc.cookie, w.Code, bodies)
		}
	}
}

func TestWhy_OfASessionThatIsThereIsNil(t *testing.T) {
	m := newManager(t, open(t), options{})
	s := m.Open(login(t, m, "alice").Token())
	if s.Why() != nil {
		t.Errorf("before the first read: %v", s.Why())
	}
	if _, _, err := s.Get(t.Context()); err != nil || s.Why() != nil {
		t.Errorf("%v, %v", err, s.Why())
	}
	must(t, s.Logout(t.Context()))
	if !errors.Is(s.Why(), session.ErrEnded) {
		t.Errorf("after a logout: %v", s.Why())
	}
	must(t, s.Update(t.Context(), add("x")))
	if s.Why() != nil {
		t.Errorf("of a new session: %v", s.Why())
	}
	_, err := s.RevokeOthers(t.Context())
	if !errors.Is(err, session.ErrNoUser) {
		t.Errorf("%v", err)
	}
}

// The write of a request under way says what ended its session.
func TestWhy_IsInTheErrorOfALateWrite(t *testing.T) {
	m := newManager(t, open(t), options{})
	for name, end := range map[error]func(s *session.Session[cart]) error{
		session.ErrRevoked: func(*session.Session[cart]) error { _, err := m.RevokeAll(t.Context(), "alice"); return err },
		session.ErrUnknown: func(s *session.Session[cart]) error { return m.Open(s.Token()).Logout(t.Context()) },
	} {
		s := login(t, m, "alice")
		must(t, end(s))
		if err := s.Update(t.Context(), add("x")); !errors.Is(err, session.ErrEnded) || !errors.Is(err, name) || !errors.Is(s.Why(), name) {
			t.Errorf("%v, %v, want %v", err, s.Why(), name)
		}
	}
}

// While Redis is away Why says so, where the read is allowed.
func TestWhy_OfADegradedReadIsTheErrorOfRedis(t *testing.T) {
	r := open(t)
	m := newManager(t, r, options{})
	token := login(t, m, "alice").Token()
	must(t, r.Close(context.Background()))
	serve(m, madcrow.FailOpen, token, func(s *session.Session[cart]) {
		if user, err := s.User(t.Context()); user != "" || err != nil || !errors.Is(s.Why(), madcrow.ErrClosed) {
			t.Errorf("%q, %v, %v", user, err, s.Why())
		}
	})
}

// Two cookies of one name shut a browser out for ever, without a line in the log.
func TestHTTP_TwoValidCookiesAreSaidOnceAMinuteAndCounted(t *testing.T) {
	r, c := counted(t)
	var log lines
	m := newManager(t, r, options{Cookie: "sid", InsecureCookie: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	cookie := "sid=" + login(t, m, "alice").Token() + "; sid=" + login(t, m, "alice").Token()
	for range 5 {
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set("Cookie", cookie)
		m.Middleware(madcrow.FailClosed)(m.Require(http.NotFoundHandler())).ServeHTTP(httptest.NewRecorder(), req)
	}
	if n := log.count("requests have several cookies"); n != 1 || log.count("Options.Cookie") == 0 {
		t.Errorf("said %d times", n)
	}
	if c.events["missing/two_cookies"] != 5 {
		t.Errorf("%v", c.events)
	}
}

// A handler that hands in no logger has the manager's.
func TestMiddleware_TheLogOfAProblemWithoutALoggerIsTheManagers(t *testing.T) {
	var log lines
	m := newManager(t, open(t), options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w := httptest.NewRecorder()
	m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, nil, errors.New("the cause"))
	})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || log.count("the cause") != 1 {
		t.Errorf("%d, and the log has it %d times", w.Code, log.count("the cause"))
	}
}
