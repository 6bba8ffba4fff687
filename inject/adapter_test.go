package inject_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
)

func TestNewWith_ErrorsOfHandlersAreAnsweredByTheRules(t *testing.T) {
	gone := errors.New("gone")
	set := inject.New(nil, inject.Options{Rules: []problem.Rule{problem.Is(gone, problem.Problem{Status: 410, Code: "GONE"})}})
	h := inject.With(inject.Plain(set, 1), func(http.ResponseWriter, *http.Request, int) error { return gone })
	if w := ask(h, "GET", "/"); w.Code != 410 || !strings.Contains(w.Body.String(), `"GONE"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if p := set.Problems().From(gone); p.Status != 410 {
		t.Errorf("adapters get other rules: %+v", p)
	}
}

func TestHandler_AnErrorAfterTheFirstBytesDoesNotEndTheAnswerAsAWhole(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	srv := httptest.NewServer(set.Problems().Recover(set.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, `[{"n":1},`)
		_ = http.NewResponseController(w).Flush()
		return errors.New("the rest is not to be had")
	})))
	defer srv.Close()
	res, err := http.Get(srv.URL)
	if err != nil {
		return // it came to nothing
	}
	defer func() { _ = res.Body.Close() }()
	if body, err := io.ReadAll(res.Body); err == nil || strings.Contains(string(body), "error_id") {
		t.Errorf("%d %q, ended with %v", res.StatusCode, body, err)
	}
}

func TestScoped_KeepsBuiltValues(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	built := 0
	d := inject.PerRequestPlain(set, func(*http.Request) (int, error) { built++; return built, nil })
	if !d.PerRequest() || !inject.Maybe(d).PerRequest() || d.Set() != set {
		t.Error("it is built for each request")
	}
	r := inject.Scoped(httptest.NewRequest("GET", "/", nil))
	if inject.Scoped(r) != r {
		t.Error("scoped again")
	}
	for range 2 {
		if v, err := inject.Get(r, d); v != 1 || err != nil {
			t.Error(v, err)
		}
		if o, err := inject.Get(r, inject.Maybe(d)); err != nil || o.Err() != nil {
			t.Error(err, o.Err())
		}
	}
	if built != 1 {
		t.Errorf("built %d times", built)
	}
}

func TestGet_WithoutPerRequestNeedsNoRequest(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	d := inject.Plain(set, "x")
	if d.PerRequest() || inject.Maybe(d).PerRequest() {
		t.Error("it is not built for each request")
	}
	if v, err := inject.Get(nil, d); v != "x" || err != nil {
		t.Error(v, err)
	}
	if o, err := inject.Get(nil, inject.Maybe(d)); err != nil || o.Err() != nil {
		t.Error(err, o.Err())
	}
}

func TestJoin_AsksBothInTurn(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	built := 0
	id := inject.PerRequestPlain(set, func(r *http.Request) (int, error) {
		if r.URL.Path == "/bad" {
			return 0, errors.New("bad")
		}
		built++
		return built, nil
	})
	name := inject.Plain(set, "x")
	d := inject.Join(inject.Join(id, name), id)
	if !d.PerRequest() || inject.Join(name, name).PerRequest() || d.Set() != set {
		t.Error("it is built for each request where one of them is")
	}
	for n := 1; n <= 2; n++ {
		r := inject.Scoped(httptest.NewRequest("GET", "/", nil))
		if v, err := inject.Get(r, d); err != nil || v.A.A != n || v.A.B != "x" || v.B != n {
			t.Error(v, err)
		}
	}
	if _, err := inject.Get(httptest.NewRequest("GET", "/bad", nil), d); err == nil {
		t.Error("no error")
	}
	if v, err := inject.Get(nil, inject.Join(name, name)); v.A != "x" || v.B != "x" || err != nil {
		t.Error(v, err)
	}
	defer inject.Override(name, "y")()
	if v, _ := inject.Get(nil, inject.Join(name, name)); v.A != "y" || v.B != "y" {
		t.Error("a joined dependency cannot be replaced")
	}
}

func TestJoin_AllocatesNothing(t *testing.T) {
	r := open(t, madcrowtest.StartRedis(t).Config())
	set := inject.New(r, inject.Options{})
	d := inject.Join(inject.Value(set, &greeter{}), inject.Plain(set, "x"))
	if n := testing.AllocsPerRun(1000, func() { _, _ = inject.Get(nil, d) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestInto_PutsDependenciesIntoTheContext(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	built := 0
	d := inject.PerRequestPlain(set, func(r *http.Request) (string, error) {
		if built++; r.URL.Path == "/bad" {
			return "", errors.New("bad")
		}
		return "x", nil
	})
	for _, path := range []string{"/", "/bad"} {
		good := path == "/"
		built = 0
		r := httptest.NewRequest("GET", path, nil)
		if _, ok := inject.From[string](r.Context()); ok {
			t.Error("it is there before")
		}
		r, failed := inject.Maybe(d).Into(r)
		if failed != nil {
			t.Fatal(failed)
		}
		r, err := d.Into(r)
		v, ok := inject.From[string](r.Context())
		o, has := inject.From[inject.Optional[string]](r.Context())
		if _, there := o.Get(); (err == nil) != good || ok != good || (v == "x") != good || !has || there != good || built != 1 {
			t.Errorf("%s: %v; %q %v; %v %v; built %d times", path, err, v, ok, o, has, built)
		}
	}
}

// A router whose handlers take no dependencies has them in the context.
func TestInto_IsAMiddlewareThatAnswersForWhatIsMissing(t *testing.T) {
	r := open(t, madcrowtest.StartRedis(t).Config())
	users := inject.Value(inject.New(r, inject.Options{}), &greeter{})
	h := inject.Into(users)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g, ok := inject.From[*greeter](r.Context()); !ok || g == nil {
			t.Error("it is not there")
		}
	}))
	for _, want := range []int{200, 503} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil)); w.Code != want {
			t.Errorf("%d, want %d", w.Code, want)
		}
		_ = r.Close(t.Context())
	}
}

func TestMaybe_AllocatesNothing(t *testing.T) {
	r := open(t, madcrowtest.StartRedis(t).Config())
	d := inject.Maybe(inject.Value(inject.New(r, inject.Options{}), &greeter{}))
	h := inject.With(d, func(http.ResponseWriter, *http.Request, inject.Optional[*greeter]) error { return nil })
	w, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, req) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSet_OfAZeroDepPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	inject.Dep[*madcrow.Redis]{}.Set()
}
