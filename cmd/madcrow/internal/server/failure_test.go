package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/service"
)

// required are the routes that need Redis, and what their failures are called.
var required = []struct{ method, path, body, operation, table string }{
	{"GET", "/cache/a", "", "get", service.TableCache},
	{"POST", "/cache", `{"key":"a","value":"b"}`, "set", service.TableCache},
	{"DELETE", "/cache/a", "", "delete", service.TableCache},
	{"GET", "/session/a", "", "get", service.TableSessions},
	{"POST", "/session", `{"session_id":"a","data":{}}`, "set", service.TableSessions},
	{"DELETE", "/session/a", "", "delete", service.TableSessions},
	{"POST", "/rate-limit/check", `{"key":"u","limit":1,"window_seconds":1}`, "check", service.TableRateLimits},
	{"POST", "/pub-sub/publish/ch?message=m", "", "publish", service.TablePubSub},
	{"GET", "/pub-sub/subscribe/ch", "", "subscribe", service.TablePubSub},
}

func TestFailure_RequiredRedisAwayIs503AtOnce(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	w := startWeb(t, srv.Config()).waitAvailable()
	srv.Kill()
	testkit.Eventually(t, "the loss is noticed", func() bool { return !w.r.Available() })
	for _, r := range required {
		a := w.do(r.method, api+r.path, r.body)
		w.wantProblem(a, 503, "REDIS_UNAVAILABLE", r.operation, r.table)
		wantNoRedisText(t, a, srv)
	}
	// Before the handler, and before the body: malformed is not even seen.
	w.wantProblem(w.do("POST", api+"/cache", `{"key":`), 503, "REDIS_UNAVAILABLE", "set", service.TableCache)
	if a := w.do("GET", api+"/data/1", ""); a.status != 200 || a.body != `{"data":"Record 1","source":"database"}` {
		t.Errorf("optional Redis: %d %s", a.status, a.body)
	}
	if a := w.do("GET", api+"/health", ""); a.status != 200 || a.body != `{"status":"unavailable","message":"Redis is not available","available":false}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.do("GET", "/readyz", ""); a.status != 503 {
		t.Errorf("%d %s", a.status, a.body)
	}
	srv.Start()
	w.waitAvailable()
	if a := w.do("GET", api+"/cache/a", ""); a.status != 200 {
		t.Errorf("after the restart: %d %s", a.status, a.body)
	}
}

func wantNoRedisText(t *testing.T, a answer, srv *madcrowtest.Server) {
	t.Helper()
	for _, secret := range []string{srv.Addr(), fmt.Sprint(srv.Port()), "127.0.0.1", "dial", "WRONGTYPE", "NOPERM", "OOM", "madcrow:", "ERR "} {
		if strings.Contains(a.body, secret) {
			t.Errorf("the answer shows %q: %s", secret, a.body)
		}
	}
}

func TestFailure_RedisThatStopsAnsweringIs504Or503(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	cfg.CommandTimeout = 200 * time.Millisecond
	w := startWeb(t, cfg).waitAvailable()
	srv.Pause()
	defer srv.Resume()
	a := w.do("GET", api+"/cache/a", "")
	if a.status == 503 { // the loss was noticed before the deadline passed
		w.wantProblem(a, 503, "REDIS_UNAVAILABLE", "get", service.TableCache)
	} else {
		w.wantProblem(a, 504, "REDIS_TIMEOUT", "get", service.TableCache)
	}
	wantNoRedisText(t, a, srv)
}

func TestFailure_WhatRedisRefusesHasItsOwnStatus(t *testing.T) {
	srv := madcrowtest.StartRedis(t, madcrowtest.WithUser("web", "pw-of-web", "~*", "&*", "+@all", "-del"))
	w := startWeb(t, srv.Config()).waitAvailable()

	srv.Do(t, "RPUSH", "list", "x")
	a := w.do("GET", api+"/cache/list", "")
	w.wantProblem(a, 409, "REDIS_WRONG_TYPE", "get", service.TableCache)
	wantNoRedisText(t, a, srv)

	a = w.do("DELETE", api+"/cache/a", "")
	w.wantProblem(a, 500, "REDIS_ERROR", "delete", service.TableCache)
	wantNoRedisText(t, a, srv)

	srv.Do(t, "SET", "session:bad", "no JSON")
	a = w.do("GET", api+"/session/bad", "")
	w.wantProblem(a, 500, "REDIS_ERROR", "get", service.TableSessions)

	srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	a = w.do("POST", api+"/cache", `{"key":"a","value":"b"}`)
	w.wantProblem(a, 503, "REDIS_OUT_OF_MEMORY", "set", service.TableCache)
	wantNoRedisText(t, a, srv)
}

func TestLimits_BodyAndValue(t *testing.T) {
	cfg := madcrowtest.StartRedis(t).Config()
	cfg.MaxValueSize, cfg.BulkThreshold = 2000, 1000
	w := startWeb(t, cfg, func(o *Options) { o.MaxBody = 4000 }).waitAvailable()
	body := func(size int) string {
		const frame = `{"key":"a","value":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1)
	}
	w.wantProblem(w.do("POST", api+"/cache", body(4001)), 413, "BODY_TOO_LARGE", "", "")
	w.wantProblem(w.do("POST", api+"/cache", body(4000)), 413, "VALUE_TOO_LARGE", "set", service.TableCache)
	if a := w.do("POST", api+"/cache", body(1500)); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestAuth_TokenIsNeededForAllButHealth(t *testing.T) {
	const token = "0123456789abcdef"
	w := startWeb(t, madcrowtest.StartRedis(t).Config(), func(o *Options) { o.Token, o.LocalOnly = token, false }).waitAvailable()
	for _, path := range []string{api + "/cache/a", api + "/health", "/docs", "/openapi.json", "/nothing"} {
		for _, header := range []string{"", token, "Bearer", "Bearer ", "Bearer " + token[1:], "Bearer " + token + "x", "Basic " + token} {
			a := w.do("GET", path, "", "Authorization", header)
			w.wantProblem(a, 401, "UNAUTHORIZED", "", "")
			if a.header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate")
			}
		}
	}
	for _, path := range []string{"/health", "/livez", "/readyz"} {
		if a := w.do("GET", path, ""); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	for _, scheme := range []string{"Bearer ", "bearer "} {
		if a := w.do("GET", api+"/cache/a", "", "Authorization", scheme+token, "Host", "api.example"); a.status != 200 {
			t.Errorf("%s: %d %s", scheme, a.status, a.body)
		}
	}
	if log := w.log.String(); strings.Contains(log, token) {
		t.Error("the token is in the log")
	}
}

func TestLocalOnly_OtherNamesAndOtherSitesAreRefused(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config()).waitAvailable()
	w.wantProblem(w.do("GET", api+"/cache/a", "", "Host", "evil.example:8080"), 403, "HOST_NOT_ALLOWED", "", "")
	for _, host := range []string{"localhost:8080", "[::1]:8080", "127.0.0.1", "app.localhost"} {
		if a := w.do("GET", api+"/cache/a", "", "Host", host); a.status != 200 {
			t.Errorf("%s: %d %s", host, a.status, a.body)
		}
	}
	w.wantProblem(w.do("POST", api+"/cache", `{"key":"a","value":"b"}`, "Sec-Fetch-Site", "cross-site"), 403, "CROSS_ORIGIN", "", "")
}

func TestUnknown_404And405AreProblems(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config()).waitAvailable()
	w.wantProblem(w.do("GET", "/nothing", ""), 404, "NOT_FOUND", "", "")
	a := w.do("PUT", api+"/cache/a", "")
	w.wantProblem(a, 405, "METHOD_NOT_ALLOWED", "", "")
	if got := a.header.Get("Allow"); got != "GET, DELETE" {
		t.Errorf("Allow: %s", got)
	}
}

func TestRequestID_IsTakenOverWhenHarmless(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config()).waitAvailable()
	if id := w.do("GET", "/livez", "", "X-Request-Id", "abc-1").header.Get("X-Request-Id"); id != "abc-1" {
		t.Errorf("%q", id)
	}
	for _, bad := range []string{"", "a b", strings.Repeat("x", 65), `a"b`} {
		if id := w.do("GET", "/livez", "", "X-Request-Id", bad).header.Get("X-Request-Id"); len(id) != 16 {
			t.Errorf("%q became %q", bad, id)
		}
	}
	w.do("GET", api+"/cache/private-key", "", "X-Request-Id", "in-the-log")
	testkit.Eventually(t, "the access log has the request id", func() bool { return strings.Contains(w.log.String(), `"request_id":"in-the-log"`) })
	if strings.Contains(w.log.String(), "private-key") {
		t.Error("the access log shows a key")
	}
}

func TestPanic_Is500AndTheServerGoesOn(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config()).waitAvailable()
	w.srv.mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("secret of the panic") })
	a := w.do("GET", "/panic", "")
	w.wantProblem(a, 500, "INTERNAL_ERROR", "", "")
	if strings.Contains(a.body, "secret") || !strings.Contains(w.log.String(), "secret of the panic") {
		t.Errorf("%s", a.body)
	}
	if a := w.do("GET", "/livez", ""); a.status != 200 {
		t.Errorf("%d", a.status)
	}
}

// A method that returns a plain error must not show its text, whatever huma
// does with one.
func TestHandle_PlainErrorNeverLeaks(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config())
	handle(w.srv.routes("test", "/test"), route{method: http.MethodGet, path: "/plain", summary: "x"},
		func(context.Context, *noInput) (*liveness, error) { return nil, fmt.Errorf("secret of the error") })
	a := w.do("GET", "/test/plain", "")
	w.wantProblem(a, 500, "INTERNAL_ERROR", "", "")
	if strings.Contains(a.body, "secret") {
		t.Error(a.body)
	}
}

// BenchmarkGetCache is the route with its middleware, beside a bare handler
// that does the same GET.
func BenchmarkGetCache(b *testing.B) {
	srv := madcrowtest.StartRedis(b)
	srv.Do(b, "SETEX", "bench", "3600", strings.Repeat("x", 128))
	r, err := madcrow.Open(b.Context(), srv.Config())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close(context.Background()) }()
	for !r.Available() {
		time.Sleep(time.Millisecond)
	}
	discard := newDiscardLog()
	web, err := New(Options{Redis: r, Logger: discard, AccessLog: discard})
	if err != nil {
		b.Fatal(err)
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m, err := r.Do(req.Context(), r.B().Get().Key("bench").Build()).Message()
		if err != nil {
			w.WriteHeader(500)
			return
		}
		text, _ := m.ToString()
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"key":"bench","value":%q}`, text)
	})
	for name, h := range map[string]http.Handler{"bare": bare, "route": web} {
		b.Run(name, func(b *testing.B) {
			hs := httptest.NewServer(h)
			defer hs.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					res, err := client.Get(hs.URL + api + "/cache/bench")
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			})
		})
	}
}

func TestDocs_ShowEveryRouteAndNeedNoInternet(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config())
	a := w.do("GET", "/docs", "")
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %v", a.status, a.header)
	}
	for path, item := range w.srv.api.OpenAPI().Paths {
		if !strings.Contains(a.body, "<code>"+path+"</code>") {
			t.Errorf("the documentation lacks %s", path)
		}
		_ = item
	}
	for _, foreign := range []string{"https://", "http://", "//cdn", "<script", "src="} {
		if strings.Contains(strings.ReplaceAll(a.body, "http://localhost:8080", ""), foreign) {
			t.Errorf("the page holds %s", foreign)
		}
	}
	_, style, _ := strings.Cut(a.body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	if style != docsStyle {
		t.Error("the style is not the one that the policy names by its hash")
	}
	if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy %q", policy)
	}
	if !bytes.Contains([]byte(a.body), []byte("curl -X POST")) {
		t.Error("no example")
	}
}

// A body that does not come is waited for as long as the server says, not as
// huma would.
func TestFailure_ABodyThatDoesNotCome(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config(), func(o *Options) { o.ReadTimeout = 300 * time.Millisecond }).waitAvailable()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	start := time.Now()
	_, _ = io.WriteString(conn, "POST "+api+"/cache HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if took := time.Since(start); res.StatusCode != http.StatusRequestTimeout || took > 4*time.Second {
		t.Errorf("%d after %v", res.StatusCode, took)
	}
}
