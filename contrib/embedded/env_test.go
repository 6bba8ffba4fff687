package embedded

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// environment is one without variables of this process.
func environment(vars map[string]string) madcrow.Env {
	return madcrow.Env{Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
}

// A program that took Config in the place of the environment's lost the prefix and
// the time-outs.
func TestConfigFromEnv_KeepsTheOtherSettings(t *testing.T) {
	t.Setenv("DEPLOY_ENV", "")
	log := slog.New(slog.DiscardHandler)
	cfg, stop, err := ConfigFromEnv(Options{Logger: log, Env: environment(map[string]string{
		"REDIS_KEY_PREFIX": "shop:", "REDIS_COMMAND_TIMEOUT": "123ms", "REDIS_MAX_CONNECTIONS": "7", "REDIS_DB": "3",
		"REDIS_USERNAME": "ada", "REDIS_PASSWORD": "secret", "REDIS_USE_SSL": "true",
	})})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if !cfg.Embedded || cfg.KeyPrefix != "shop:" || cfg.CommandTimeout != 123*time.Millisecond || cfg.MaxConnections != 7 || cfg.DB != 3 || cfg.Logger != log {
		t.Errorf("%v", cfg)
	}
	r := madcrowtest.Open(t, cfg)
	if st := r.Status(); st.Mode != "embedded" || !r.Available() {
		t.Errorf("%+v", st)
	}
}

func TestConfigFromEnv_StartsNoneWhereOneIsNamed(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg, stop, err := ConfigFromEnv(Options{Env: environment(map[string]string{"REDIS_URL": "redis://" + s.Addr()})})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if cfg.Embedded || cfg.Port != s.Port() {
		t.Errorf("%v", cfg)
	}
}

// Without a name it tried localhost for 5 seconds.
func TestConfigFromEnv_ProductionNeedsANamedRedis(t *testing.T) {
	_, stop, err := ConfigFromEnv(Options{Env: environment(map[string]string{"DEPLOY_ENV": "PRODUCTION"})})
	stop()
	if !errors.Is(err, ErrProduction) || !errors.Is(err, madcrow.ErrConfig) || !strings.Contains(err.Error(), "no Redis is named") || !strings.Contains(err.Error(), "REDIS_HOST") {
		t.Errorf("%v", err)
	}
}

func TestConfigFromEnv_ReportsWrongSettings(t *testing.T) {
	_, stop, err := ConfigFromEnv(Options{Env: environment(map[string]string{"REDIS_COMMAND_TIMEOUT": "soon"})})
	stop()
	if !errors.Is(err, madcrow.ErrConfig) || !strings.Contains(err.Error(), "REDIS_COMMAND_TIMEOUT") {
		t.Errorf("%v", err)
	}
}

// The package said that there are no near copies; they are believed for NearTTL.
func TestServer_NearCopiesAreBelievedForNearTTL(t *testing.T) {
	s := start(t)
	open := func() *cache.Cache[string] {
		c, err := cache.New(madcrowtest.Open(t, s.Config()), "near", cache.Options[string]{NearCacheBytes: 1 << 20, NearTTL: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(t.Context()) })
		return c
	}
	here, elsewhere := open(), open()
	get := func() string {
		v, _, err := here.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := elsewhere.Set(t.Context(), "a", "old"); err != nil {
		t.Fatal(err)
	}
	get()
	if err := elsewhere.Set(t.Context(), "a", "new"); err != nil {
		t.Fatal(err)
	}
	if v := get(); v != "old" {
		t.Errorf("%q: it is not a near copy", v)
	}
	for end := time.Now().Add(10 * time.Second); get() != "new"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the near copy is believed for ever")
		}
	}
}
