package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
)

func TestErrors_BecomeAnswersThatTellNothingElse(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	binary := program.Build(t)
	p, debug := program.Start(t, binary, s), program.Start(t, binary, s, "DEBUG=true")
	s.Do(t, "SET", "a", "one")
	s.Do(t, "RPUSH", "secret-list", "x")

	p.Want(t, "GET", "/cache/a", "", 200, "value", "one")
	answers := []program.Answer{
		p.Want(t, "GET", "/cache/none", "", 404, "code", "NOT_FOUND", "message", "There is no such data"),
		p.Want(t, "GET", "/cache/secret-list", "", 409, "code", "REDIS_WRONG_TYPE", "operation", "get", "table", "redis_cache"),
		p.Want(t, "POST", "/orders", "pieces=x", 422, "code", "VALIDATION_ERROR"),
		p.Want(t, "POST", "/orders", "article=lamp&pieces=9", 409, "code", "OUT_OF_STOCK", "message", "Only 3 are left"),
		p.Want(t, "POST", "/orders", "article=lamp&pieces=0", 500, "code", "INTERNAL_ERROR"), // it divides by it
	}
	p.Want(t, "POST", "/orders", "article=lamp&pieces=3", 200, "pieces", "3")
	if text := answers[2].Text; !strings.Contains(text, `"article"`) || !strings.Contains(text, `"pieces"`) {
		t.Errorf("not every wrong member is named: %s", text)
	}
	if after := answers[3].Header.Get("Retry-After"); after != "3600" {
		t.Errorf("Retry-After: %s", after)
	}

	if detail := debug.Want(t, "GET", "/cache/secret-list", "", 409).Member("detail"); !strings.Contains(detail, "failed to retrieve cached data") {
		t.Errorf("with DEBUG the detail is %q", detail)
	}

	program.Faults(t, s, func() { p.Eventually(t, "GET", "/cache/a", 503) }, func() {
		answers = append(answers, p.Want(t, "GET", "/cache/a", "", 503, "code", "REDIS_UNAVAILABLE"))
		p.Want(t, "POST", "/orders", "article=lamp&pieces=1", 200) // it needs no Redis
	}, func() { p.Eventually(t, "GET", "/cache/none", 404) })

	for _, a := range answers {
		id := a.Member("error_id")
		if kind := a.Header.Get("Content-Type"); a.Member("error") != "true" || len(id) != 36 || kind != "application/problem+json" {
			t.Errorf("not a problem: %s %s", kind, a.Text)
		}
		for _, secret := range []string{"127.0.0.1", strconv.Itoa(s.Port()), "WRONGTYPE", "secret-list", "goroutine", "divide"} {
			if strings.Contains(a.Text, secret) {
				t.Errorf("it tells %q: %s", secret, a.Text)
			}
		}
		program.Wait(t, func() bool { return strings.Contains(p.Log(), id) })
	}
	if log := p.Log(); !strings.Contains(log, "WRONGTYPE") || !strings.Contains(log, "divide by zero") {
		t.Error("the log does not have the causes")
	}
}

func TestErrors_AFormHasABound(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader("article=lamp&pieces=1&more="+strings.Repeat("a", 1<<20)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if p := problem.From(order(httptest.NewRecorder(), r)); p.Status != 422 {
		t.Errorf("%+v", p)
	}
}

func TestErrors_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
