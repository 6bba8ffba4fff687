package server

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/sse"
)

// apiPrefix is the prefix of the routes of FastAPI Madcrow.
const apiPrefix = "/api/v1/redis-example"

// DefaultMaxBody is the default of Options.MaxBody.
const DefaultMaxBody = 1 << 20

// Options says how to serve.
type Options struct {
	// Redis is required. The server does not close it.
	Redis *madcrow.Redis
	// Logger receives failures. Required.
	Logger *slog.Logger
	// AccessLog receives one line a request. Nil: none.
	AccessLog *slog.Logger
	// Token, when set, must come as "Authorization: Bearer …" with every
	// request but those for health.
	Token string
	// LocalOnly refuses requests that were addressed to another name than
	// that of this machine: a web page could otherwise have its own name
	// resolve to 127.0.0.1 and speak to a server without a token.
	LocalOnly bool
	// MaxBody bounds a request's body, in bytes. Defaults to 1 MiB.
	MaxBody int64
	// ReadTimeout bounds the reading of a body. Defaults to 15 seconds.
	ReadTimeout time.Duration
	// Version is shown by the documentation.
	Version string
	// Note, when set, is what health says of the Redis in use.
	Note string
	// HealthDetails shows the addresses of Redis in /health, which needs no
	// token. Otherwise it tells counts and states only.
	HealthDetails bool
}

// Server answers HTTP requests. It is an [http.Handler].
type Server struct {
	opt       Options
	svc       *service.Service
	mux       *http.ServeMux
	api       huma.API
	tokenHash [sha256.Size]byte
	foreign   *http.CrossOriginProtection
	draining  atomic.Bool
	events    *sse.Handler
	spec      []byte
	docs      docsPage
}

// New builds the routes and renders their documentation.
func New(opt Options) (*Server, error) {
	if opt.MaxBody <= 0 {
		opt.MaxBody = DefaultMaxBody
	}
	if opt.ReadTimeout <= 0 {
		opt.ReadTimeout = 15 * time.Second
	}
	s := &Server{
		opt:       opt,
		svc:       service.New(opt.Redis, service.Options{}),
		mux:       http.NewServeMux(),
		tokenHash: sha256.Sum256([]byte(opt.Token)),
		foreign:   http.NewCrossOriginProtection(),
	}
	var err error
	if s.events, err = s.newEvents(); err != nil {
		return nil, fmt.Errorf("serve events: %w", err)
	}
	s.api = humago.New(s.mux, s.humaConfig())

	CacheController{s.svc}.register(s.routes("cache", apiPrefix+"/cache"))
	SessionController{s.svc}.register(s.routes("session", apiPrefix+"/session"))
	RateLimitController{s.svc}.register(s.routes("rate limit", apiPrefix+"/rate-limit"))
	PubSubController{s.svc, s.events}.register(s.routes("pub/sub", apiPrefix+"/pub-sub"))
	DataController{s.svc, s.opt.Logger}.register(s.routes("data", apiPrefix+"/data"))
	monitor, err := health.New(opt.Redis, health.Options{Note: opt.Note, Details: opt.HealthDetails, Draining: s.draining.Load})
	if err != nil {
		return nil, fmt.Errorf("serve health: %w", err)
	}
	controller := HealthController{opt.Redis, opt.Note, monitor}
	controller.registerExample(s.routes("health", apiPrefix))
	controller.register(s.routes("health", ""))

	// Rendered once: the same bytes for everybody, and no race on the first
	// request.
	if s.spec, err = json.MarshalIndent(s.api.OpenAPI(), "", "  "); err != nil {
		return nil, fmt.Errorf("render OpenAPI: %w", err)
	}
	if s.docs, err = renderDocs(s.api.OpenAPI()); err != nil {
		return nil, fmt.Errorf("render documentation: %w", err)
	}
	s.mux.HandleFunc("GET /openapi.json", s.serveSpec)
	s.mux.HandleFunc("GET /docs", s.serveDocs)
	s.mux.HandleFunc("/", s.serveUnknown)
	return s, nil
}

// Leave makes readiness fail, so that load balancers send no new clients. Requests are
// served as before.
func (s *Server) Leave() { s.draining.Store(true) }

// Drain is Leave, and ends the streams of events, which would not end by
// themselves.
func (s *Server) Drain() {
	s.Leave()
	s.events.Close()
}

// OpenAPI returns the description of the routes, as served.
func (s *Server) OpenAPI() []byte { return s.spec }

func (s *Server) serveSpec(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.spec)
}

func (s *Server) serveDocs(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.docs.policy)
	_, _ = w.Write(s.docs.html)
}
