package health

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// Status is the body of [Live] and [Ready].
type Status struct {
	Status string `json:"status"`
}

// Report is the body of [Detail].
type Report struct {
	// Status is "healthy", or "degraded" when a service is unavailable. A degraded
	// process still serves.
	Status string `json:"status"`
	// Services are "healthy" or "unavailable", by name.
	Services map[string]string `json:"services"`
	Redis    Redis             `json:"redis"`
}

// Live answers 200 as long as the process serves.
func Live() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, Status{"alive"}) })
}

// Ready answers 200 when Redis is available, and a 503 problem otherwise or while
// draining returns true. draining may be nil.
func Ready(r *madcrow.Redis, draining func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := Check(r, draining); err != nil {
			problem.Write(w, req, nil, err)
			return
		}
		write(w, Status{"ready"})
	})
}

// Check returns nil when [Ready] answers 200, or the problem otherwise.
func Check(r *madcrow.Redis, draining func() bool) error {
	switch {
	case draining != nil && draining():
		return problem.With(problem.Problem{Status: http.StatusServiceUnavailable, Code: "DRAINING", Message: "The server is shutting down", RetryAfter: time.Second})
	case !r.Available():
		return problem.With(problem.Problem{Status: http.StatusServiceUnavailable, Code: "REDIS_UNAVAILABLE", Message: "Redis is not available", RetryAfter: time.Second})
	}
	return nil
}

// Options are the options of [Detail].
type Options struct {
	// Details shows addresses. Never set it on a public route.
	Details bool
	// Services are further checks by name; nil is healthy. They must not block.
	Services map[string]func() error
	// Note is shown with Redis, unless Redis has a note of its own.
	Note string
}

// Detail answers 200 with a [Report].
func Detail(r *madcrow.Redis, opt Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, ReportOf(r, opt)) })
}

// ReportOf returns the body of [Detail].
func ReportOf(r *madcrow.Redis, opt Options) Report {
	out := Report{Status: "healthy", Services: map[string]string{}, Redis: Of(r, opt.Details)}
	if out.Redis.Note == "" {
		out.Redis.Note = opt.Note
	}
	add := func(name string, healthy bool) {
		out.Services[name] = "healthy"
		if !healthy {
			out.Services[name], out.Status = "unavailable", "degraded"
		}
	}
	add("redis", out.Redis.Available)
	for name, check := range opt.Services {
		add(name, check() == nil)
	}
	return out
}

func write(w http.ResponseWriter, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(body) // an error means that the client has gone
}
