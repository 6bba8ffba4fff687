package inject_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/service"
)

func open(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

func ask(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

type greeter struct{ word string }

func TestWith_RequiredIs503AndOptionalRunsWithoutRedis(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	r := open(t, srv.Config())
	set := inject.New(r, inject.Options{})
	svc := inject.Value(set, service.New(r, service.Options{}))
	plain := inject.Plain(set, greeter{"hello"})
	ran := 0
	required := inject.With2(plain, svc, func(w http.ResponseWriter, r *http.Request, g greeter, s *service.Service) error {
		ran++
		_, found, err := s.GetCache(r.Context(), "k")
		fmt.Fprint(w, g.word, found)
		return err
	})
	optional := inject.With(inject.Maybe(svc), func(w http.ResponseWriter, _ *http.Request, s inject.Optional[*service.Service]) error {
		got, ok := s.Get()
		fmt.Fprint(w, ok, got != nil, s.Err() != nil)
		return nil
	})
	maybe := inject.With2(plain, inject.Maybe(svc), func(w http.ResponseWriter, _ *http.Request, _ greeter, s inject.Optional[*service.Service]) error {
		_, ok := s.Get()
		fmt.Fprint(w, ok)
		return nil
	})
	if w := ask(required, "GET", "/"); w.Code != 200 || w.Body.String() != "hellofalse" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(optional, "GET", "/"); w.Body.String() != "true true false" {
		t.Errorf("%s", w.Body)
	}
	srv.Kill()
	for r.Available() {
		_ = r.Do(t.Context(), r.B().Ping().Build()).Err()
	}
	w := ask(required, "GET", "/")
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"REDIS_UNAVAILABLE"`) || strings.Contains(w.Body.String(), "127.0.0.1") || ran != 1 {
		t.Errorf("%d %v %s, ran %d", w.Code, w.Header(), w.Body, ran)
	}
	if w := ask(optional, "GET", "/"); w.Code != 200 || w.Body.String() != "false false true" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(maybe, "GET", "/"); w.Code != 200 || w.Body.String() != "false" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	restore := inject.Override(svc, service.New(r, service.Options{}))
	if w := ask(optional, "GET", "/"); w.Body.String() != "true true false" {
		t.Errorf("overridden: %s", w.Body)
	}
	restore()
	if w := ask(optional, "GET", "/"); w.Body.String() != "false false true" {
		t.Errorf("restored: %s", w.Body)
	}
}

func TestPerRequest_IsBuiltOnceForEachRequest(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	var built atomic.Int64
	id := inject.PerRequestPlain(set, func(r *http.Request) (int64, error) {
		if r.URL.Path == "/bad" {
			return 0, errors.New("secret")
		}
		return built.Add(1), nil
	})
	double := inject.PerRequestPlain(set, func(r *http.Request) (string, error) {
		n, err := inject.Get(r, id)
		return fmt.Sprint(n, n), err
	})
	h := inject.With3(id, double, id, func(w http.ResponseWriter, _ *http.Request, a int64, s string, b int64) error {
		fmt.Fprint(w, a, b, s)
		return nil
	})
	for n := 1; n <= 2; n++ {
		if w := ask(h, "GET", "/"); w.Body.String() != fmt.Sprintf("%d %d%d %d", n, n, n, n) {
			t.Errorf("%s", w.Body)
		}
	}
	if w := ask(h, "GET", "/bad"); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	outer := inject.Scope(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := inject.Get(r, id)
		fmt.Fprint(w, n, " ")
		h.ServeHTTP(w, r)
	}))
	if w := ask(outer, "GET", "/"); w.Body.String() != "3 3 33 3" {
		t.Errorf("%s", w.Body)
	}
}

type users struct{ greeter inject.Dep[greeter] }

func (u users) Routes(g *inject.Routes) {
	g.Handle("GET", inject.With(u.greeter, u.list))
	g.Handle("GET /{id}", inject.With(u.greeter, u.get))
}

func (users) list(w http.ResponseWriter, _ *http.Request, g greeter) error {
	fmt.Fprint(w, g.word)
	return nil
}

func (users) get(w http.ResponseWriter, r *http.Request, g greeter) error {
	fmt.Fprint(w, g.word, r.PathValue("id"))
	return nil
}

func TestMount_PrefixAndMiddleware(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	mux := http.NewServeMux()
	inject.Mount(mux, "/users", users{inject.Plain(set, greeter{"hi "})}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Around", "1")
			next.ServeHTTP(w, r)
		})
	})
	if w := ask(mux, "GET", "/users"); w.Body.String() != "hi " || w.Header().Get("X-Around") != "1" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(mux, "GET", "/users/7"); w.Body.String() != "hi 7" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWith_AZeroDepPanicsWhenTheRouteIsMade(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	inject.With(inject.Dep[greeter]{}, func(http.ResponseWriter, *http.Request, greeter) error { return nil })
}

func TestWith_AllocatesNothing(t *testing.T) {
	r := open(t, madcrowtest.StartRedis(t).Config())
	h := inject.With(inject.Value(inject.New(r, inject.Options{}), &greeter{}), func(http.ResponseWriter, *http.Request, *greeter) error { return nil })
	w, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, req) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWith(b *testing.B) {
	r := open(b, madcrowtest.StartRedis(b).Config())
	h := inject.With(inject.Value(inject.New(r, inject.Options{}), &greeter{}), func(http.ResponseWriter, *http.Request, *greeter) error { return nil })
	w, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, req)
	}
}
