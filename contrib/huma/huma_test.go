package madcrowhuma

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/madcrow-go/madcrow/inject"
	. "github.com/madcrow-go/madcrow/internal/conformance"
	"github.com/madcrow-go/madcrow/problem"
)

func TestConformance_Huma(t *testing.T) {
	Run(t, func(t *testing.T, k *Kit) Serve {
		mux := http.NewServeMux()
		api := newAPI(mux, k.Set)
		routes(api, k)
		mux.Handle("GET /health/live", k.Health.Live())
		mux.Handle("GET /health/ready", k.Health.Ready())
		mux.Handle("GET /health", k.Health.Detail())
		documented(t, api)
		return HTTP(k.Recover(mux))
	})
}

func newAPI(mux *http.ServeMux, s *inject.Set) huma.API {
	cfg := huma.DefaultConfig("Conformance", "1")
	cfg.CreateHooks = nil
	cfg.Transformers = append(cfg.Transformers, Problems(s))
	return humago.New(mux, cfg)
}

type (
	none   struct{}
	output struct{ Body Reply }
)

func reply(a Reply, err error) (*output, error) { return &output{a}, err }

func op(pattern string, mw ...func(huma.Context, func(huma.Context))) huma.Operation {
	method, path, _ := strings.Cut(pattern, " ")
	return huma.Operation{Method: method, Path: path, OperationID: pattern, Middlewares: mw}
}

func routes(api huma.API, k *Kit) {
	session := Middleware(k.Session)
	in := func(pattern string, f func(context.Context) (Reply, error)) {
		Register(k.Set, api, op(pattern, session), func(ctx context.Context, _ *none) (*output, error) { return reply(f(ctx)) })
	}
	Register(k.Set, api, op("GET /plain"), func(_ context.Context, in *struct{ G Required[Greeter] }) (*output, error) {
		return reply(Greet(in.G.Get()), nil)
	})
	Register(k.Set, api, op("GET /store/{key}"), func(ctx context.Context, in *struct {
		Key   string `path:"key"`
		Store Required[*Store]
	},
	) (*output, error) {
		return reply(in.Store.Get().Read(ctx, in.Key))
	})
	Register(k.Set, api, op("GET /optional"), func(_ context.Context, in *struct{ Store Optional[*Store] }) (*output, error) {
		return reply(ReadOptional(in.Store.Optional), nil)
	})
	Register(k.Set, api, op("GET /caller"), func(_ context.Context, in *struct {
		Caller   Required[Caller]
		Greeting Required[Greeting]
	},
	) (*output, error) {
		return reply(Called(in.Caller.Get(), in.Greeting.Get()), nil)
	})
	in("GET /session", k.Visits)
	in("POST /session", k.Visit)
	in("POST /session/fail", func(ctx context.Context) (Reply, error) {
		_, err := k.Visit(ctx)
		if err == nil {
			err = ErrForeign
		}
		return Reply{}, err
	})
	Register(k.Set, api, op("POST /session/empty", session), func(ctx context.Context, _ *none) (*none, error) {
		_, err := k.Visit(ctx)
		return nil, err
	})
	Register(k.Set, api, op("POST /login/{user}", session), func(ctx context.Context, in *struct {
		User string `path:"user"`
	},
	) (*output, error) {
		return reply(k.Login(ctx, in.User))
	})
	Register(k.Set, api, op("POST /login/{user}/panic", session), func(ctx context.Context, in *struct {
		User string `path:"user"`
	},
	) (*none, error) {
		if _, err := k.Login(ctx, in.User); err != nil {
			return nil, err
		}
		panic(Secret)
	})
	in("POST /rotate", k.Rotate)
	Register(k.Set, api, Limited(op("GET /limited"), k.Limited), func(_ context.Context, in *struct{ G Required[Greeter] }) (*output, error) {
		return reply(Greet(in.G.Get()), nil)
	})
	Register(k.Set, api, op("GET /fail/{kind}"), func(ctx context.Context, in *struct {
		Kind string `path:"kind"`
	},
	) (*output, error) {
		return nil, k.Fail(ctx, in.Kind)
	})
	Register(k.Set, api, op("GET /panic"), func(context.Context, *none) (*output, error) { panic(Secret) })
	Register(k.Set, api, op("POST /validate"), func(_ context.Context, in *struct{ Body In }) (*output, error) {
		return reply(Validate(in.Body))
	})
	Register(k.Set, api, op("GET /stream", session), func(ctx context.Context, _ *none) (*huma.StreamResponse, error) {
		_, err := k.Visit(ctx)
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			_, w := humago.Unwrap(ctx)
			_, _ = w.Write([]byte("one\n"))
			_ = http.NewResponseController(w).Flush()
			k.Hold()
			_, _ = w.Write([]byte("two\n"))
		}}, err
	})
}

// documented looks at what the OpenAPI document says by itself.
func documented(t *testing.T, api huma.API) {
	t.Helper()
	for path, want := range map[string]string{"/store/{key}": "503", "/limited": "429 503 504", "/optional": "-503 -429", "/plain": "-429"} {
		responses := api.OpenAPI().Paths[path].Get.Responses
		for code := range strings.FieldsSeq(want) {
			absent := strings.HasPrefix(code, "-")
			res := responses[strings.TrimPrefix(code, "-")]
			if absent != (res == nil) {
				t.Errorf("%s: %s is %v", path, code, res)
			}
			if res != nil && (res.Content["application/problem+json"] == nil || code != "504" && res.Headers["Retry-After"] == nil) {
				t.Errorf("%s: %s is %+v", path, code, res)
			}
		}
	}
	text, err := json.Marshal(api.OpenAPI())
	if err != nil || !strings.Contains(string(text), `"error_id"`) || strings.Contains(string(text), "Store\"") {
		t.Errorf("%v %s", err, text)
	}
}

func TestRegister_AMissingDependencyPanicsWhenTheRouteIsMade(t *testing.T) {
	set := inject.New(nil, inject.Options{})
	inject.Plain(set, 1)
	inject.Plain(set, 2)
	for name, route := range map[string]func(huma.API){
		"required": func(api huma.API) {
			Register(set, api, op("GET /a"), func(context.Context, *struct{ A Required[string] }) (*none, error) { return nil, nil })
		},
		"optional": func(api huma.API) {
			Register(set, api, op("GET /b"), func(context.Context, *struct{ A Optional[string] }) (*none, error) { return nil, nil })
		},
		"two": func(api huma.API) {
			Register(set, api, op("GET /c"), func(context.Context, *struct{ A Required[int] }) (*none, error) { return nil, nil })
		},
	} {
		func() {
			defer func() {
				if v, ok := recover().(string); !ok || !strings.Contains(v, "GET /") || !strings.Contains(v, ": A: ") {
					t.Errorf("%s: %v", name, v)
				}
			}()
			route(newAPI(http.NewServeMux(), set))
		}()
	}
}

func TestRegister_ErrorsOfHumaKeepTheirStatus(t *testing.T) {
	set, mux := inject.New(nil, inject.Options{}), http.NewServeMux()
	Register(set, newAPI(mux, set), op("GET /taken"), func(context.Context, *none) (*none, error) {
		return nil, huma.Error409Conflict("It is taken")
	})
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/taken", nil))
	if w.Code != 409 || !strings.Contains(w.Body.String(), `"message":"It is taken"`) || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// Dependencies of several operations.
type (
	Deps   struct{ N Required[int] }
	Single struct {
		Required[int]
		Word Required[string]
	}
	hidden struct{ N Required[int] }
)

func TestRegister_FindsFieldsInsideOfStructs(t *testing.T) {
	set, mux := inject.New(nil, inject.Options{}), http.NewServeMux()
	inject.Plain(set, 7)
	inject.Plain(set, "x")
	api := newAPI(mux, set)
	say := func(v ...any) (*output, error) { return &output{Reply{Value: fmt.Sprint(v...)}}, nil }
	Register(set, api, op("GET /embedded"), func(_ context.Context, in *struct {
		Deps
		Body struct{ N int }
	},
	) (*output, error) {
		return say(in.N.Get())
	})
	Register(set, api, op("GET /nested"), func(_ context.Context, in *struct {
		In  struct{ Deps Deps }
		Dep struct{ Word Optional[string] }
	},
	) (*output, error) {
		word, ok := in.Dep.Word.Get()
		return say(in.In.Deps.N.Get(), word, ok)
	})
	Register(set, api, op("GET /single"), func(_ context.Context, in *struct{ S Single }) (*output, error) {
		return say(in.S.Get(), in.S.Word.Get())
	})
	for path, want := range map[string]string{"/embedded": "7", "/nested": "7xtrue", "/single": "7x"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, strings.NewReader(`{"N":1}`)))
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"value":"`+want+`"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if api.OpenAPI().Paths[path].Get.Responses["503"] == nil {
			t.Errorf("%s: 503 is not documented", path)
		}
	}
	for name, route := range map[string]func(){
		"missing": func() {
			Register(set, api, op("GET /a"), func(context.Context, *struct{ In struct{ A Required[error] } }) (*none, error) { return nil, nil })
		},
		"field": func() {
			Register(set, api, op("GET /b"), func(_ context.Context, in *struct{ n Required[int] }) (*none, error) { _ = in.n; return nil, nil })
		},
		"embedded": func() {
			Register(set, api, op("GET /c"), func(_ context.Context, in *struct{ hidden }) (*none, error) { _ = in.N; return nil, nil })
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			route()
		}()
	}
}

func TestRegister_WhatItHasNotFoundIsNotNil(t *testing.T) {
	set, mux := inject.New(nil, inject.Options{}), http.NewServeMux()
	inject.Plain(set, 7)
	api, ran := newAPI(mux, set), false
	huma.Register(api, op("GET /required"), func(context.Context, *Deps) (*none, error) { ran = true; return nil, nil })
	huma.Register(api, op("GET /optional"), func(context.Context, *struct{ N Optional[int] }) (*none, error) { ran = true; return nil, nil })
	for _, path := range []string{"/required", "/optional"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != 500 || ran {
			t.Errorf("%s: %d, it ran: %v", path, w.Code, ran)
		}
	}
}

type teapot struct{}

func (teapot) Error() string  { return Secret }
func (teapot) GetStatus() int { return http.StatusTeapot }

type describing struct{ teapot }

func (describing) Problem() problem.Problem { return problem.Problem{Status: 410, Code: "OWN"} }

func TestRegister_StatusAndHeadersOfHumasErrorsStay(t *testing.T) {
	var log bytes.Buffer
	set, mux := inject.New(nil, inject.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}), http.NewServeMux()
	api := newAPI(mux, set)
	for path, c := range map[string]struct {
		err    error
		status int
		header string
		value  string
		body   string
		logged bool
	}{
		"/same":  {huma.Status304NotModified(), 304, "Cache-Control", "", "", false},
		"/tag":   {huma.ErrorWithHeaders(huma.Status304NotModified(), http.Header{"Etag": {`"1"`}}), 304, "Etag", `"1"`, "", false},
		"/moved": {huma.ErrorWithHeaders(huma.NewError(http.StatusFound, ""), http.Header{"Location": {"/x"}}), 302, "Location", "/x", "", false},
		"/slow":  {huma.ErrorWithHeaders(huma.Error429TooManyRequests("Slow down"), http.Header{"Retry-After": {"7"}}), 429, "Retry-After", "7", `"message":"Slow down"`, true},
		"/tea":   {teapot{}, 418, "Cache-Control", "no-store", `"code":"IM_A_TEAPOT"`, true},
		"/own":   {describing{}, 410, "Cache-Control", "no-store", `"code":"OWN"`, true},
		"/zero":  {&huma.ErrorModel{}, 500, "Cache-Control", "no-store", `"code":"INTERNAL_ERROR"`, true},
		"/plain": {huma.ErrorWithHeaders(errors.New(Secret), http.Header{"X-Why": {"1"}}), 500, "X-Why", "1", `"code":"INTERNAL_ERROR"`, true},
	} {
		log.Reset()
		Register(set, api, op("GET "+path), func(context.Context, *none) (*none, error) { return nil, c.err })
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != c.status || w.Header().Get(c.header) != c.value || !strings.Contains(w.Body.String(), c.body) || strings.Contains(w.Body.String(), Secret) {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
		if logged := strings.Contains(log.String(), "request failed"); logged != c.logged {
			t.Errorf("%s: logged %q", path, &log)
		}
	}
}
