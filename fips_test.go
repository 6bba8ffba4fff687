package madcrow_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/health"
	"github.com/madcrow-go/madcrow/inject"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/ratelimit"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
	"github.com/madcrow-go/madcrow/stream"
)

const envFIPSProgram = "MADCROW_FIPS_PROGRAM"

// With GODEBUG=fips140=only five packages ended the program when it started,
// for the names of their scripts, and sessions with keys could not be made.
func TestFIPSOnly_EveryPackageStartsAndWorks(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithMutualTLS(), madcrowtest.WithPassword("long enough a password"))
	cert, key := s.ClientCert()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFIPSOnly_Program$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", envFIPSProgram+"=1",
		"REDIS_HOST=127.0.0.1", "REDIS_PORT="+strconv.Itoa(s.Port()), "REDIS_PASSWORD=long enough a password",
		"REDIS_USE_SSL=true", "REDIS_SSL_CA_FILE="+s.CAFile(), "REDIS_SSL_CERT_FILE="+cert, "REDIS_SSL_KEY_FILE="+key)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFIPSOnly_Program") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFIPSOnly_Program is the program: it uses each package a little.
func TestFIPSOnly_Program(t *testing.T) {
	if os.Getenv(envFIPSProgram) == "" {
		t.Skip("run by TestFIPSOnly_EveryPackageStartsAndWorks")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	cfg, err := madcrow.ConfigFromEnv()
	must("config", err)
	useEveryPackage(ctx, t, cfg, must)
}

// A server that speaks RESP2 alone serves every package.
func TestRESP2_EveryPackageWorks(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--rename-command", "HELLO", ""))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	useEveryPackage(ctx, t, s.Config(), func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
}

// useEveryPackage uses each package a little.
func useEveryPackage(ctx context.Context, t *testing.T, cfg madcrow.Config, must func(string, error)) {
	t.Helper()
	cfg.CommandTimeout, cfg.Require = 5*time.Second, true
	r := open(t, cfg)

	c, err := cache.New(r, "fips", cache.Options[string]{NearCacheBytes: 1 << 20, Tags: []string{"x"}})
	must("cache", err)
	v, err := c.GetOrLoad(ctx, "k", func(context.Context) (string, error) { return "v", nil })
	if must("load", err); v != "v" {
		t.Errorf("loaded %q", v)
	}
	must("delete a tag", c.DeleteTag(ctx, "x"))

	type cart struct{ N int }
	m, err := session.New(r, "web", session.Options[cart]{EncryptionKeys: [][]byte{[]byte(strings.Repeat("k", 32))}, Secret: []byte(strings.Repeat("s", 32))})
	must("session", err)
	s := m.Open("")
	must("update", s.Update(ctx, func(c *cart) error { c.N++; return nil }))
	must("login", s.Login(ctx, "alice"))
	must("rotate", s.Rotate(ctx))
	if got, found, err := m.Open(s.Token()).Get(ctx); !found || err != nil || got.N != 1 {
		t.Errorf("session: %+v %v %v", got, found, err)
	}

	l, err := ratelimit.New(r, "fips", ratelimit.Options{Rate: ratelimit.PerMinute(10), FailPolicy: madcrow.FailClosed})
	must("limit", err)
	d, err := l.Allow(ctx, strings.Repeat("a long subject ", 100))
	if must("allow", err); !d.Allowed {
		t.Errorf("%+v", d)
	}

	b, err := pubsub.New(r, pubsub.Options{})
	must("bus", err)
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	topic, err := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	must("topic", err)
	for e, err := range topic.Subscribe(ctx) {
		must("subscribe", err)
		if e.Kind == pubsub.EventSubscribed {
			_, err = topic.Publish(ctx, "hello")
			must("publish", err)
		} else if e.Kind == pubsub.EventMessage {
			break
		}
	}
	feed, err := pubsub.NewRecoverable(b, "feed", pubsub.RecoverableOptions[string]{})
	must("recoverable", err)
	for e, err := range feed.Subscribe(ctx, pubsub.Position{}) {
		must("subscribe with a history", err)
		if e.Kind == pubsub.EventSubscribed {
			_, err = feed.Publish(ctx, "hello")
			must("publish with a history", err)
		} else if e.Kind == pubsub.EventMessage {
			break
		}
	}
	if !madcrowtest.OlderThan(t, "6.2") {
		jobs, err := stream.New(r, "work", stream.Options[string]{})
		must("stream", err)
		_, err = jobs.Publish(ctx, "job")
		must("publish work", err)
		working, done := context.WithCancel(ctx)
		must("work", jobs.Work(working, "workers", func(_ context.Context, d stream.Delivery[string]) error {
			if done(); d.Message != "job" {
				t.Errorf("work %q", d.Message)
			}
			return nil
		}, stream.WorkOptions{}))
	}

	sv := service.New(r, service.Options{})
	must("service", sv.SetCache(ctx, "k", "v", time.Minute))
	_, err = sv.CheckRateLimit(ctx, "requests", 5, time.Minute)
	must("service limit", err)

	monitor, err := health.New(r, health.Options{})
	must("health", err)
	set := inject.New(r, inject.Options{})
	dep := inject.Value(set, 7)
	h := inject.Scope(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, err := inject.Get(req, dep)
		if err != nil {
			problem.Write(w, req, slog.New(slog.DiscardHandler), err)
			return
		}
		_, _ = fmt.Fprint(w, n)
	}))
	for path, h := range map[string]http.Handler{
		"7": h, "ready": monitor.Ready(),
		"problem": http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			problem.Write(w, req, slog.New(slog.DiscardHandler), problem.New(http.StatusNotFound, "GONE", "it is gone"))
		}),
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+filepath.Base(path), nil))
		if want := map[bool]int{true: http.StatusNotFound, false: http.StatusOK}[path == "problem"]; w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
