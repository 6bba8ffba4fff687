package health

import (
	"encoding/json"
	"net/http"

	"github.com/madcrow-go/madcrow/problem"
)

// Status is the body of [Monitor.Live] and [Monitor.Ready].
type Status struct {
	// Status is "alive", "ready", or "degraded": ready, without what is optional.
	Status string `json:"status"`
	// Unavailable names what is not available while Status is "degraded".
	Unavailable []string `json:"unavailable,omitempty"`
}

// Live answers 200 as long as the process serves. It is for a probe that restarts
// the process: it never depends on Redis or on a check.
func (m *Monitor) Live() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, Status{Status: "alive"}) })
}

// Ready answers 200 when the process may receive requests: Redis is available and
// every check passes, but for what is optional. Otherwise it answers a 503 problem:
// DRAINING, REDIS_UNAVAILABLE or CHECK_FAILED. A check that has not run yet does not
// pass.
func (m *Monitor) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		status, err := m.Readiness()
		if err != nil {
			problem.Write(w, req, nil, err)
			return
		}
		write(w, status)
	})
}

// Readiness returns the body of [Monitor.Ready], or its problem, for frameworks that
// write the response themselves.
func (m *Monitor) Readiness() (Status, error) {
	if err := m.notReady(); err != nil {
		return Status{}, err
	}
	if names := m.unavailable(); names != nil {
		return Status{Status: "degraded", Unavailable: names}, nil
	}
	return Status{Status: "ready"}, nil
}

// Detail answers 200 with a [Report], whatever is in it.
func (m *Monitor) Detail() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, m.Report()) })
}

func write(w http.ResponseWriter, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(body) // an error means that the client has gone
}
