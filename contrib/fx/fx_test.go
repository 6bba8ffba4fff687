package madcrowfx_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	madcrowfx "github.com/madcrow-go/madcrow/contrib/fx"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
)

type words = cache.Cache[string]

// newWords is a constructor of a user, closed before the Redis.
func newWords(lc fx.Lifecycle, r *madcrow.Redis, deps *inject.Set) (inject.Dep[*words], error) {
	c, err := cache.New(r, "words", cache.Options[string]{TTL: time.Minute})
	if err != nil {
		return inject.Dep[*words]{}, err
	}
	lc.Append(fx.StopHook(func(ctx context.Context) error {
		if !r.Available() {
			return errors.New("the Redis was closed first")
		}
		return c.Close(ctx)
	}))
	return inject.Value(deps, c), nil
}

func TestModule_OpensSuppliesAndCloses(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	cfg := madcrowtest.StartRedis(t).Config()
	cfg.Require = true
	gone := errors.New("gone")
	var r *madcrow.Redis
	var deps *inject.Set
	var dep inject.Dep[*words]
	app := fxtest.New(t, madcrowfx.Module, fx.NopLogger,
		fx.Supply(&cfg, &inject.Options{Rules: []problem.Rule{problem.Is(gone, problem.Problem{Status: 410})}}),
		fx.Provide(newWords), fx.Populate(&r, &deps, &dep))
	app.RequireStart()
	h := inject.With(dep, func(w http.ResponseWriter, r *http.Request, c *words) error {
		if err := c.Set(r.Context(), "a", "b"); err != nil {
			return err
		}
		v, _, err := c.Get(r.Context(), "a")
		_, _ = w.Write([]byte(v))
		return err
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Body.String() != "b" || deps.Problems().From(gone).Status != 410 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	app.RequireStop()
	if err := r.Err(); !errors.Is(err, madcrow.ErrClosed) {
		t.Errorf("after the stop: %v", err)
	}
}

func TestModule_ReadsTheEnvironmentAndLogs(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	t.Setenv("REDIS_HOST", "127.0.0.1")
	t.Setenv("REDIS_PORT", strconv.Itoa(s.Port()))
	t.Setenv("DEPLOY_ENV", "PRODUCTION")
	var log strings.Builder
	var r *madcrow.Redis
	var deps *inject.Set
	app := fxtest.New(t, madcrowfx.Module, fx.NopLogger, fx.Populate(&r, &deps),
		fx.Provide(func() *slog.Logger { return slog.New(slog.NewTextHandler(&log, nil)) }))
	app.RequireStart()
	if !r.Available() || r.Config().Port != s.Port() {
		t.Errorf("%v", r.Err())
	}
	deps.Problems().Write(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), errors.New("the cause"))
	app.RequireStop()
	if !strings.Contains(log.String(), "the cause") {
		t.Errorf("%s", log.String())
	}
}

func TestModule_AWrongConfigurationIsNamedAtTheStart(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	err := fx.New(madcrowfx.Module, fx.NopLogger, fx.Invoke(func(*madcrow.Redis) {})).Err()
	if err == nil || !strings.Contains(err.Error(), "REDIS_PORT") || !errors.Is(err, madcrow.ErrConfig) {
		t.Error(err)
	}
	err = fx.New(madcrowfx.Module, fx.NopLogger, fx.Supply(&madcrow.Config{Port: -1}), fx.Invoke(func(*madcrow.Redis) {})).Err()
	if !errors.Is(err, madcrow.ErrConfig) {
		t.Error(err)
	}
}
