package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/pubsub"
)

// Messages are sent through one process while another one, to which a browser
// listens, and Redis are killed and started again.
func TestNotifications_EveryMessageOnceThroughRestarts(t *testing.T) {
	redis := startRedis(t)
	serves, sends := startProgram(t, redis), startProgram(t, redis)
	program.Wait(t, func() bool { return sends.send("other", "of another channel") })
	early := openBrowser(t, serves.url+"/feed/news")
	program.Wait(t, func() bool { _, events := early.seen(); return slices.Contains(events, "subscribed") })

	var sure []string
	faults := map[int]func(){
		40:  serves.stop,
		60:  serves.start,
		100: redis.Kill,
		110: redis.Start,
		140: func() { redis.Restart() },
		160: func() { _ = serves.cmd.Process.Kill(); <-serves.done; _ = serves.cmd.Wait() },
		170: serves.start,
	}
	for i := range 200 {
		if fault := faults[i]; fault != nil {
			fault()
		}
		if text := strconv.Itoa(i); sends.send("news", text) {
			sure = append(sure, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
	sends.mustSend("news", "last")
	sure = append(sure, "last")
	late := openBrowser(t, serves.url+"/feed/news?last-event-id="+pubsub.Beginning.String())
	for name, b := range map[string]*browser{"early": early, "late": late} {
		program.Wait(t, func() bool { got, _ := b.seen(); return len(got) > 0 && got[len(got)-1] == "last" })
		got, events := b.seen()
		if slices.Contains(events, "history-lost") || name == "early" && !slices.Contains(events, "interrupted") {
			t.Errorf("%s: %v", name, events)
		}
		want := slices.DeleteFunc(slices.Clone(got), func(text string) bool { return !slices.Contains(sure, text) })
		if !slices.Equal(want, sure) {
			t.Errorf("%s: got %v, sent %v", name, want, sure)
		}
		slices.Sort(got)
		if n := len(slices.Compact(slices.Clone(got))); n != len(got) {
			t.Errorf("%s: some came twice: %v", name, got)
		}
		t.Logf("%s: %d messages, of which %d were surely sent; %v", name, len(got), len(sure), events)
	}
}

func TestNotifications_WhatIsRefused(t *testing.T) {
	p := startProgram(t, startRedis(t))
	p.mustSend("news", "<b>one</b>")
	long := strings.Repeat("x", maxMessage+1)
	for _, tc := range []struct {
		method, path string
		status       int
		text         string
	}{
		{"POST", "/notify/news?message=two%0Alines", 200, `{"channel":"news","id":"`},
		{"POST", "/notify/news", 422, "query.message"},
		{"POST", "/notify/news?message=" + long, 422, "query.message"},
		{"POST", "/notify/" + long[:maxChannel+1] + "?message=x", 422, "path.channel"},
		{"GET", "/feed/" + long[:maxChannel+1], 422, "path.channel"},
		{"GET", "/notify/news?message=x", 405, ""},
		{"GET", "/nothing", 404, ""},
	} {
		req, err := http.NewRequest(tc.method, p.url+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != tc.status || !strings.Contains(string(body), tc.text) {
			t.Errorf("%s %.60s: %d %s %v, want %d %s", tc.method, tc.path, res.StatusCode, body, err, tc.status, tc.text)
		}
	}
	req, err := http.NewRequest(http.MethodPost, p.url+"/notify/news?message=forged", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 403 {
		t.Errorf("a page of another site may write: %d", res.StatusCode)
	}
	b := openBrowser(t, p.url+"/feed/news?last-event-id="+pubsub.Beginning.String())
	program.Wait(t, func() bool { got, _ := b.seen(); return len(got) == 2 })
	if got, _ := b.seen(); !slices.Equal(got, []string{"<b>one</b>", "two\nlines"}) {
		t.Errorf("%q", got)
	}
}

func TestNotifications_APageWithoutAnythingFromElsewhere(t *testing.T) {
	p := startProgram(t, startRedis(t))
	for path, kind := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css"} {
		res, err := http.Get(p.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), kind) || strings.Contains(string(body), "//cdn") || strings.Contains(string(body), "https://") {
			t.Errorf("%s: %d %v %v", path, res.StatusCode, res.Header, err)
		}
		if policy := res.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
}

// Without Redis sending fails at once, and a page waits for it.
func TestNotifications_WithoutRedis(t *testing.T) {
	redis := startRedis(t)
	p := startProgram(t, redis)
	p.mustSend("news", "one")
	redis.Kill()
	program.Wait(t, func() bool { return !p.send("news", "lost") })
	res, err := http.Post(p.url+"/notify/news?message=x", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var problem struct{ Code string }
	err = json.NewDecoder(res.Body).Decode(&problem)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != 503 || problem.Code != "MESSAGES_UNAVAILABLE" {
		t.Errorf("%d %+v %v", res.StatusCode, problem, err)
	}
	b := openBrowser(t, p.url+"/feed/news?last-event-id="+pubsub.Beginning.String())
	program.Wait(t, func() bool { _, events := b.seen(); return fmt.Sprint(events) == "[interrupted]" })
	redis.Start()
	program.Wait(t, func() bool {
		got, events := b.seen()
		return len(got) > 0 && got[0] == "one" && slices.Contains(events, "subscribed")
	})
}

func TestNotifications_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
