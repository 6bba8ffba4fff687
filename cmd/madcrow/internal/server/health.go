package server

import (
	"context"
	"net/http"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
)

// HealthController reports what is known of Redis. It makes no call: the
// connection is watched in the background, and this is its last state.
type HealthController struct {
	redis   *madcrow.Redis
	note    string
	monitor *health.Monitor
}

type noInput struct{}

// exampleHealth has the members of FastAPI Madcrow; without Redis only the first
// three.
type exampleHealth struct {
	Status           string `json:"status" enum:"healthy,unavailable"`
	Message          string `json:"message"`
	Available        bool   `json:"available"`
	Ping             *bool  `json:"ping,omitempty"`
	Version          string `json:"version,omitempty"`
	ConnectedClients *int   `json:"connected_clients,omitempty"`
	UsedMemoryHuman  string `json:"used_memory_human,omitempty"`
}

type healthAnswer struct {
	Status   string       `json:"status" enum:"healthy"`
	Services services     `json:"services"`
	Redis    health.Redis `json:"redis"`
}

type services struct {
	Redis    string `json:"redis" enum:"healthy,unavailable"`
	Database string `json:"database" enum:"healthy"`
}

type liveness struct {
	Status string `json:"status"`
}

func (c HealthController) registerExample(g routes) {
	handle(g, route{method: http.MethodGet, path: "/health", summary: "What is known of Redis"}, c.example)
}

func (c HealthController) register(g routes) {
	handle(g, route{method: http.MethodGet, path: "/health", summary: "Health of the server and its services"}, c.health)
	handle(g, route{method: http.MethodGet, path: "/livez", summary: "The process serves"}, c.live)
	handle(g, route{
		method: http.MethodGet, path: "/readyz", summary: "The process serves and has its Redis",
		errors: []int{http.StatusServiceUnavailable},
	}, c.ready)
}

func (c HealthController) example(context.Context, *noInput) (*exampleHealth, error) {
	if !c.redis.Available() {
		return &exampleHealth{Status: "unavailable", Message: "Redis is not available"}, nil
	}
	st := c.redis.Status()
	yes := true
	out := &exampleHealth{
		Status: "healthy", Message: "Redis is available", Available: true, Ping: &yes,
		Version: known(st.Server.Version), ConnectedClients: &st.Server.ConnectedClients,
		UsedMemoryHuman: known(st.Server.UsedMemoryHuman),
	}
	if c.note != "" {
		out.Message += ". " + c.note
	}
	return out, nil
}

// known is FastAPI Madcrow's word for a fact that the server does not report.
func known(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func (c HealthController) health(context.Context, *noInput) (*healthAnswer, error) {
	report := c.monitor.Report()
	return &healthAnswer{
		Status: "healthy", Redis: report.Redis,
		Services: services{Redis: report.Services["redis"], Database: "healthy"}, // the records of /data live in the process
	}, nil
}

func (c HealthController) live(context.Context, *noInput) (*liveness, error) {
	return &liveness{"alive"}, nil
}

func (c HealthController) ready(context.Context, *noInput) (*liveness, error) {
	status, err := c.monitor.Readiness()
	return &liveness{status.Status}, err
}
