package server

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/service"
)

// follower is a client of the subscribe route.
type follower struct {
	t     *testing.T
	res   *http.Response
	lines chan string // "event: x" and "data: y"; closed at the end
	leave func()
}

func (w *web) follow(channel string, headers ...string) *follower {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+api+"/pub-sub/subscribe/"+channel, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	f := &follower{w.t, res, make(chan string, 1000), cancel}
	go func() {
		defer close(f.lines)
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if name, _, _ := strings.Cut(lines.Text(), ":"); name == "event" || name == "data" {
				f.lines <- lines.Text()
			}
		}
	}()
	w.t.Cleanup(func() {
		cancel()
		_ = res.Body.Close()
	})
	return f
}

func (f *follower) want(lines ...string) {
	f.t.Helper()
	for _, want := range lines {
		select {
		case got, ok := <-f.lines:
			if !ok || !strings.HasPrefix(got, want) {
				f.t.Fatalf("got %q, want %q (open: %v)", got, want, ok)
			}
		case <-time.After(15 * time.Second):
			f.t.Fatalf("no %q within 15 s", want)
		}
	}
}

func (f *follower) wantEnd() {
	f.t.Helper()
	for end := time.After(5 * time.Second); ; {
		select {
		case _, ok := <-f.lines:
			if !ok {
				return
			}
		case <-end:
			f.t.Fatal("the stream does not end")
		}
	}
}

func subscribersGet(t *testing.T, cfg madcrow.Config) {
	cfg.KeyPrefix = "app:"
	w := startWeb(t, cfg).waitAvailable()
	f, other := w.follow("a%2Fb%20%C3%BC"), w.follow("other")
	if h := f.res.Header; f.res.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" || h.Get(requestIDHeader) == "" {
		t.Errorf("%d %v", f.res.StatusCode, h)
	}
	f.want("event: subscribed", "data: {}")
	other.want("event: subscribed", "data: {}")
	for _, text := range []string{"hello", "<b>ü", "two%0Alines", "m1%20looks%20like%20ours"} {
		if a := w.do("POST", api+"/pub-sub/publish/a%2Fb%20%C3%BC?message="+text, ""); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	f.want("data: hello", "data: <b>ü", "data: two", "data: lines", "data: m1 looks like ours")
	w.do("POST", api+"/pub-sub/publish/other?message=last", "")
	other.want("data: last")
}

func TestSubscribe_TellsThatRedisWasAway(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	w := startWeb(t, srv.Config()).waitAvailable()
	f := w.follow("news")
	f.want("event: subscribed", "data: {}")
	srv.Kill()
	f.want("event: interrupted", "data: {}")
	srv.Start()
	f.want("event: gap", `data: {"seconds":`)
	srv.Do(t, "PUBLISH", "news", "again")
	f.want("data: again")
}

func TestSubscribe_DrainEndsItAtOnce(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	w := startWeb(t, madcrowtest.StartRedis(t).Config()).waitAvailable()
	var all []*follower
	for i := range 20 {
		f := w.follow(fmt.Sprint("c", i%3))
		f.want("event: subscribed", "data: {}")
		all = append(all, f)
	}
	begin := time.Now()
	w.srv.Drain()
	for _, f := range all {
		f.wantEnd()
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	w.wantProblem(w.do("GET", api+"/pub-sub/subscribe/news", ""), 503, "EVENTS_ENDED", "", "")
}

func TestSubscribe_NoPermissionIsTheProblemOfTheOtherRoutes(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("users have rules for channels from Redis 6.2 on")
	}
	srv := madcrowtest.StartRedis(t, madcrowtest.WithUser("mute", "pw-of-mute", "~*", "+@all", "resetchannels"))
	w := startWeb(t, srv.Config()).waitAvailable()
	a := w.do("GET", api+"/pub-sub/subscribe/news", "")
	w.wantProblem(a, 500, "REDIS_ERROR", "subscribe", service.TablePubSub)
	wantNoRedisText(t, a, srv)
}

func TestSubscribe_NeedsTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	w := startWeb(t, madcrowtest.StartRedis(t).Config(), func(o *Options) { o.Token = token }).waitAvailable()
	w.wantProblem(w.do("GET", api+"/pub-sub/subscribe/news", ""), 401, "UNAUTHORIZED", "", "")
	w.follow("news", "Authorization", "Bearer "+token).want("event: subscribed", "data: {}")
}

// Media types have no case.
func TestBody_TheTypeHasNoCase(t *testing.T) {
	w := startWeb(t, madcrowtest.StartRedis(t).Config()).waitAvailable()
	for _, kind := range []string{"APPLICATION/JSON", "Application/Json; Charset=UTF-8", "application/json;charset=\"X\""} {
		if a := w.do("POST", api+"/cache", `{"key":"a","value":"b"}`, "Content-Type", kind); a.status != 200 {
			t.Errorf("%s: %d %s", kind, a.status, a.body)
		}
	}
	w.wantProblem(w.do("POST", api+"/cache", `{"key":"a","value":"b"}`, "Content-Type", "TEXT/PLAIN"), 422, "VALIDATION_ERROR", "", "")
}

// Whoever listens under a pattern of its own would have heard it, and Sentinels
// believe it; nothing may leave.
func TestPublish_NothingReachesAReservedChannel(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	w := startWeb(t, srv.Config()).waitAvailable()
	for _, channel := range []string{"__sentinel__:hello", "%5F%5Fsentinel%5F%5F%3Ahello", "__redis__:invalidate"} {
		m := w.wantProblem(w.do("POST", api+"/pub-sub/publish/"+channel+"?message=x", ""), 422, "VALIDATION_ERROR", "", "")
		if errs, _ := m["errors"].([]any); len(errs) != 1 {
			t.Errorf("%v", m)
		}
	}
	if stats := srv.Do(t, "INFO", "commandstats").(string); strings.Contains(stats, "cmdstat_publish") {
		t.Errorf("something was published:\n%s", stats)
	}
}
