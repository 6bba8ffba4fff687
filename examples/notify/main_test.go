package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
)

func TestNotify_SendsAndListensThroughBreaks(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	binary := program.Build(t)
	one, two := program.Start(t, binary, s), program.Start(t, binary, s)

	// Both hear what is sent through one of them.
	const first = "/notify/notifications?message=one"
	program.Wait(t, func() bool { return one.Ask(t, "POST", first, "").Member("subscribers") == "2" })
	one.Want(t, "POST", "/notify/elsewhere?message=x", "", 200, "channel", "elsewhere", "message", "x", "subscribers", "0")
	one.Want(t, "POST", "/notify/notifications", "", 422, "code", "VALIDATION_ERROR")
	for _, p := range []*program.Program{one, two} {
		program.Wait(t, func() bool {
			return strings.HasSuffix(p.Ask(t, "GET", "/notifications", "").Member("messages"), `"one"]`)
		})
	}

	const next = "/notify/notifications?message=two"
	program.Faults(t, s, func() { one.Eventually(t, "POST", next, 503) }, func() {
		one.Want(t, "POST", next, "", 503, "code", "REDIS_UNAVAILABLE")
		one.Want(t, "GET", "/notifications", "", 200)
	}, func() { one.Eventually(t, "POST", next, 200) })
	program.Wait(t, func() bool {
		return two.Ask(t, "POST", "/notify/notifications?message=three", "").Member("subscribers") == "2"
	})
	for _, p := range []*program.Program{one, two} {
		program.Wait(t, func() bool {
			return strings.HasSuffix(p.Ask(t, "GET", "/notifications", "").Member("messages"), `"three"]`)
		})
		if gaps := p.Ask(t, "GET", "/notifications", "").Member("gaps"); gaps == "0" {
			t.Error("the gap was not notified")
		}
	}
}

func TestNotify_AFormHasABound(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/notify/a", strings.NewReader("message="+strings.Repeat("a", 1<<20)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if p := problem.From(notify(httptest.NewRecorder(), r, nil)); p.Status != 422 {
		t.Errorf("%+v", p)
	}
}

func TestNotify_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
