// Package shop is what the programs beside it have in common: a cached article,
// a session, a limit. Each of them shows the same routes with another framework:
//
//	GET  /articles/{id}  from the cache, or from the database: with and without Redis
//	GET  /notes/{key}    needs Redis: 503 without it, before the handler runs
//	GET  /features       sees whether there is Redis
//	POST /visits         a session: 503 without Redis
//	POST /orders         three a minute for each client, with and without Redis
//	GET  /health/live, /health/ready, /health
package shop

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/examples/internal/serve"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
)

// Shop is the application without its routes.
type Shop struct {
	Log   *slog.Logger
	Redis *madcrow.Redis
	Deps  *inject.Set
	// Health is not ready without Redis, for sessions need it. A shop of articles
	// alone would set health.Options.Optional.
	Health *health.Monitor

	// Articles go on without Redis, from the database; so they do not need it.
	Articles inject.Dep[*cache.Cache[Article]]
	// Notes are in Redis alone.
	Notes inject.Dep[*service.Service]

	Sessions *session.Manager[Visits]
	Session  func(http.Handler) http.Handler
	Limited  func(http.Handler) http.Handler

	life   context.Context
	cached *cache.Cache[Article]
}

// Article is a record of the database.
type Article struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

// Visits is what a session holds.
type Visits struct {
	Count int `json:"count"`
}

// The answers.
type (
	ReadArticle struct {
		Article
		Source string `json:"source"` // "cache" or "database"
	}
	Note struct {
		Value string `json:"value"`
		Found bool   `json:"found"`
	}
	Features struct {
		Notes bool `json:"notes"`
	}
	Order struct {
		Ordered bool `json:"ordered"`
	}
)

// Open makes it, with the Redis of the environment: REDIS_HOST, REDIS_URL, …
// It is ready at once, with or without a Redis.
func Open(ctx context.Context) (*Shop, error) {
	s := &Shop{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), life: ctx}
	cfg, err := madcrow.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	cfg.Logger = s.Log
	if s.Redis, err = madcrow.Open(ctx, cfg); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Shop) build() (err error) {
	if s.cached, err = cache.New(s.Redis, "articles", cache.Options[Article]{TTL: 5 * time.Minute}); err != nil {
		return err
	}
	// Without TLS, for this example: otherwise leave InsecureCookie out.
	if s.Sessions, err = session.New(s.Redis, "web", session.Options[Visits]{InsecureCookie: true, Logger: s.Log}); err != nil {
		return err
	}
	s.Session = s.Sessions.Middleware(madcrow.FailClosed)
	// While Redis is away this process goes on counting alone.
	limit, err := ratelimit.New(s.Redis, "orders", ratelimit.Options{Rate: ratelimit.PerMinute(3), FailPolicy: madcrow.FailLocal(1)})
	if err != nil {
		return err
	}
	// Right for a server that clients reach directly; see package clientip.
	s.Limited = ratelimit.Middleware(limit, ratelimit.ByClient(clientip.RemoteAddr()), ratelimit.MiddlewareOptions{Logger: s.Log})

	if s.Health, err = health.New(s.Redis, health.Options{Draining: func() bool { return s.life.Err() != nil }}); err != nil {
		return err
	}
	s.Deps = inject.New(s.Redis, inject.Options{Logger: s.Log})
	s.Articles = inject.Plain(s.Deps, s.cached)
	s.Notes = inject.Value(s.Deps, service.New(s.Redis, service.Options{}))
	return nil
}

// Close closes the cache, then the Redis.
func (s *Shop) Close() {
	ctx := context.WithoutCancel(s.life)
	if s.cached != nil {
		_ = s.cached.Close(ctx)
	}
	_ = s.Redis.Close(ctx)
}

// Read returns an article; 404 where there is none.
func Read(ctx context.Context, articles *cache.Cache[Article], id string) (ReadArticle, error) {
	res, err := articles.GetOrLoadWith(ctx, id, func(context.Context, *cache.Load[Article]) (Article, error) {
		if title, ok := database[id]; ok {
			return Article{id, title}, nil
		}
		return Article{}, cache.ErrNotFound
	})
	out := ReadArticle{res.Value, "cache"}
	if res.Source == cache.SourceLoad {
		out.Source = "database"
	}
	return out, err
}

// database stands for a database.
var database = map[string]string{"1": "A lamp", "2": "A chair"}

// ReadNote returns a note.
func ReadNote(ctx context.Context, notes *service.Service, key string) (Note, error) {
	value, found, err := notes.GetCache(ctx, key)
	return Note{value, found}, err
}

// Has says which features there are.
func Has(notes inject.Optional[*service.Service]) Features {
	_, ok := notes.Get()
	return Features{Notes: ok}
}

// Visit counts the visits of a session.
func (s *Shop) Visit(ctx context.Context) (out Visits, err error) {
	err = s.Sessions.From(ctx).Update(ctx, func(v *Visits) error {
		v.Count++
		out = *v
		return nil
	})
	return out, err
}

// Listen is where the program is reached: at ADDR.
func (s *Shop) Listen() (net.Listener, error) { return serve.Listen(s.Log) }

// Serve ends when the program is to end, and finishes the requests in flight.
func (s *Shop) Serve(h http.Handler) error { return serve.HTTP(s.life, s.Log, h) }
