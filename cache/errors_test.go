package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
)

var errDatabase = errors.New("no such column: nmae")

type row struct{ name string }

// answerOf is what a client gets from a handler that loads a value.
func answerOf(t testing.TB, c *cache.Cache[string], load func(context.Context) (string, error)) (status int, document map[string]any, header http.Header, err error) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var v string
		if v, err = c.GetOrLoad(r.Context(), t.Name(), load); err != nil {
			problem.Write(w, r, nil, err)
			return
		}
		_, _ = w.Write([]byte(v))
	})
	s := httptest.NewServer(h)
	defer s.Close()
	res, failure := http.Get(s.URL) //nolint:noctx // a test
	if failure != nil {
		t.Fatal(failure)
	}
	defer res.Body.Close()
	_ = json.NewDecoder(res.Body).Decode(&document)
	return res.StatusCode, document, res.Header, err
}

// A closed database, a typing error in SQL and a nil pointer were answered with 503
// CACHE_UNAVAILABLE, Retry-After: 1 and the name of a table in Redis.
func TestGetOrLoad_AFailingLoaderIsAnsweredAsTheApplicationsFault(t *testing.T) {
	r := open(t)
	var none *row
	for name, tc := range map[string]struct {
		load   func(context.Context) (string, error)
		is     error
		status int
		code   string
	}{
		"an error":                   {func(context.Context) (string, error) { return "", errDatabase }, errDatabase, 500, "LOAD_FAILED"},
		"a panic":                    {func(context.Context) (string, error) { return none.name, nil }, nil, 500, "LOAD_FAILED"},
		"a goroutine that ends":      {func(context.Context) (string, error) { runtime.Goexit(); return "", nil }, nil, 500, "LOAD_FAILED"},
		"its own time-out":           {func(context.Context) (string, error) { return "", context.DeadlineExceeded }, context.DeadlineExceeded, 500, "LOAD_FAILED"},
		"a busy source":              {func(context.Context) (string, error) { return "", problem.New(429, "SLOW_DOWN", "Slow down") }, nil, 429, "SLOW_DOWN"},
		"a Redis of the application": {func(context.Context) (string, error) { return "", madcrow.ErrUnavailable }, madcrow.ErrUnavailable, 500, "LOAD_FAILED"},
		"no such value":              {func(context.Context) (string, error) { return "", cache.ErrNotFound }, cache.ErrNotFound, 404, "NOT_FOUND"},
		"another cache is closed": {func(context.Context) (string, error) {
			other, err := cache.New(r, "other", cache.Options[string]{})
			if err != nil {
				return "", err
			}
			_ = other.Close(context.Background())
			return other.GetOrLoad(context.Background(), "k", always("v"))
		}, cache.ErrClosed, 503, "CACHE_UNAVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCache(t, r, cache.Options[string]{})
			for _, when := range []string{"first", "within the backoff"} {
				status, p, header, err := answerOf(t, c, tc.load)
				if status != tc.status || p["code"] != tc.code || tc.status == 500 && header.Get("Retry-After") != "" {
					t.Errorf("%s: %d %v, Retry-After %q", when, status, p, header.Get("Retry-After"))
				}
				for _, member := range []string{"operation", "table"} {
					if _, there := p[member]; there {
						t.Errorf("%s: %s is in %v", when, member, p)
					}
				}
				if tc.is != nil && !errors.Is(err, tc.is) {
					t.Errorf("%s: %v is not %v", when, err, tc.is)
				}
				if e := (*madcrow.Error)(nil); !errors.As(err, &e) || e.Kind != 0 || e.Name != "c" && tc.status != 503 {
					t.Errorf("%s: %#v", when, err)
				}
			}
		})
	}
}

func TestGetOrLoad_AFailureOfAnotherProcessIsAnsweredAlike(t *testing.T) {
	ra, rb := openTwice(t)
	opt := cache.Options[string]{Backoff: time.Minute}
	a, b := newCache(t, ra, opt), newCache(t, rb, opt)
	load := func(context.Context) (string, error) { return "", errDatabase }
	if status, p, _, _ := answerOf(t, a, load); status != 500 || p["code"] != "LOAD_FAILED" {
		t.Errorf("%d %v", status, p)
	}
	if status, p, _, err := answerOf(t, b, load); status != 500 || p["code"] != "LOAD_FAILED" || !errors.Is(err, cache.ErrLoadFailed) {
		t.Errorf("%d %v %v", status, p, err)
	}
}

func TestErrors_RedisAndTheCacheItselfAreUnavailable(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r := openConfig(t, s.Config())
	c := newCache(t, r, cache.Options[string]{MaxLoads: 1, LoadTimeout: 100 * time.Millisecond, Backoff: time.Millisecond})
	end := make(chan struct{})
	defer close(end)
	if status, p, _, err := answerOf(t, c, func(context.Context) (string, error) { <-end; return "", nil }); status != 504 || p["code"] != "LOAD_TIMEOUT" || !errors.Is(err, cache.ErrLoadTimeout) {
		t.Errorf("too slow: %d %v %v", status, p, err)
	}
	_, busy := c.GetOrLoad(t.Context(), "other", always("v"))
	s.Kill()
	testkit.Eventually(t, "Redis is away", func() bool { _, _, err := c.Get(t.Context(), "k"); return err != nil })
	_, _, away := c.Get(t.Context(), "k")
	_ = c.Close(t.Context())
	_, closed := c.GetOrLoad(t.Context(), "k", always("v"))
	for name, err := range map[string]error{"busy": busy, "Redis is away": away, "closed": closed} {
		if p := problem.From(err); p.Status != 503 || p.Code != "CACHE_UNAVAILABLE" || p.RetryAfter == 0 || p.Operation != "" || p.Table != "" {
			t.Errorf("%s: %+v of %v", name, p, err)
		}
	}
	if !errors.Is(busy, cache.ErrBusy) || !errors.Is(away, madcrow.ErrUnavailable) || !errors.Is(closed, cache.ErrClosed) {
		t.Errorf("%v, %v, %v", busy, away, closed)
	}
	_, err := newCache(t, open(t), cache.Options[chan int]{}).GetOrLoad(t.Context(), "k", always(make(chan int)))
	if err != nil {
		t.Errorf("a value that cannot be encoded: %v", err)
	}
	err = newCache(t, open(t), cache.Options[chan int]{}).Set(t.Context(), "k", nil)
	if p := problem.From(err); p.Status != 500 || p.Code != problem.CodeInternal {
		t.Errorf("a value that cannot be encoded: %+v of %v", p, err)
	}
}
