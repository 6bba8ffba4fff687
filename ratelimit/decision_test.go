package ratelimit_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/ratelimit"
)

func TestDecision_ErrIsAnsweredWithTheHeadersOfItsLimit(t *testing.T) {
	l := newLimit(t, openAgain(t), "uploads", ratelimit.PerMinute(1), madcrow.FailClosed)
	d, err := l.Allow(t.Context(), "ann")
	if err != nil || d.Err() != nil {
		t.Fatal(err, d.Err())
	}
	for _, source := range []ratelimit.Source{ratelimit.SourceRedis, ratelimit.SourceLocal} {
		d, err = l.Allow(t.Context(), "ann")
		if err != nil || d.Source != source {
			t.Fatalf("%+v %v", d, err)
		}
		w := httptest.NewRecorder()
		problem.Write(w, httptest.NewRequest(http.MethodPost, "/", nil), nil, d.Err())
		h := w.Header()
		if w.Code != 429 || h.Get("Retry-After") != "60" || h.Get("RateLimit-Policy") != `"uploads";q=1;w=60` || h.Get("RateLimit") != `"uploads";r=0;t=60` {
			t.Errorf("%v: %d %v", source, w.Code, h)
		}
		var p problem.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code != "QUOTA_EXCEEDED" || !slices.Equal(p.ViolatedPolicies, []string{"uploads"}) {
			t.Errorf("%v: %s %v", source, w.Body, err)
		}
	}
	if d, err = l.AllowN(t.Context(), "ann", 2); err != nil || problem.From(d.Err()).Code != "QUOTA_NEVER" {
		t.Errorf("above the limit: %v %v", d.Err(), err)
	}
	if p := problem.From((ratelimit.Decision{}).Err()); p.Status != 500 {
		t.Errorf("a decision that no limiter made: %+v", p)
	}
}

func TestJoint_ErrDescribesEachLimit(t *testing.T) {
	r := openAgain(t)
	g := must[*ratelimit.Group](t)(ratelimit.Join(
		newLimit(t, r, "minute", ratelimit.PerMinute(1), madcrow.FailClosed), newLimit(t, r, "day", ratelimit.PerDay(9), madcrow.FailClosed)))
	if _, err := g.Allow(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	j, err := g.Allow(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	p := problem.From(j.Err())
	if p.Status != 429 || p.Header.Get("RateLimit-Policy") != `"minute";q=1;w=60, "day";q=9;w=86400` || !slices.Equal(p.ViolatedPolicies, []string{"minute"}) {
		t.Errorf("%+v", p)
	}
}

// Every service wrote this function itself, most of them without the headers.
func TestRefuse_IsInTheLogOfTheLimit(t *testing.T) {
	var log strings.Builder
	cfg := config
	cfg.KeyPrefix, cfg.Logger = t.Name()+":", slog.New(slog.NewTextHandler(&log, nil))
	r := openConfig(t, cfg)
	l := newLimit(t, r, "x", ratelimit.PerHour(1), madcrow.FailClosed)
	if err := l.Reset(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	var d ratelimit.Decision
	for range 2 {
		var err error
		if d, err = l.Allow(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	ratelimit.Refuse(w, httptest.NewRequest(http.MethodPost, "/", nil), d)
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 429 || !strings.Contains(log.String(), p.ErrorID) {
		t.Errorf("%d %s, logged %s", w.Code, w.Body, log.String())
	}
}

func TestLimitBy_IsALimitAndItsMiddleware(t *testing.T) {
	r := openAgain(t)
	h := ratelimit.LimitBy(r, "line", ratelimit.PerMinute(1), byAddress(), madcrow.FailOpen)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, want := range []int{200, 429} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil)); w.Code != want {
			t.Errorf("%d, want %d", w.Code, want)
		}
	}
	defer func() {
		var wrong *madcrow.ArgumentError
		if err, _ := recover().(error); !errors.As(err, &wrong) {
			t.Fatalf("%v", err)
		}
		for _, name := range []string{"name", "Options.Rate", "Options.FailPolicy"} {
			if !strings.Contains(wrong.Reason, name+" ") {
				t.Errorf("%s is missing: %v", name, wrong)
			}
		}
		if n := strings.Count(wrong.Argument, ","); n != 2 {
			t.Errorf("more than what is wrong: %v", wrong)
		}
	}()
	ratelimit.LimitBy(r, "bad name!", ratelimit.Rate{}, byAddress(), madcrow.FailPolicy{})
}
