package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// slowRedis is a cache whose Redis a proxy can make slow.
func slowRedis(t *testing.T, opt Options[string]) (*Cache[string], *recorder, *madcrowtest.Proxy) {
	s := madcrowtest.StartRedis(t)
	p, rec := madcrowtest.StartProxy(t, s.Addr()), &recorder{}
	r := startRedis(t, s, func(cfg *madcrow.Config) { cfg.Port, cfg.Recorder, cfg.CommandTimeout = p.Port(), rec, 5*time.Second })
	c := makeCache(t, r, opt)
	if _, err := c.GetOrLoad(t.Context(), "warm", func(context.Context) (string, error) { return "v", nil }); err != nil {
		t.Fatal(err)
	}
	return c, rec, p
}

// The callers waited for the end of the lease, for up to a second.
func TestGetOrLoad_FailedLoadIsKnownAfterReadTimeoutWhereRedisIsSlow(t *testing.T) {
	t.Parallel()
	c, _, p := slowRedis(t, Options[string]{ReadTimeout: 50 * time.Millisecond})
	boom := errors.New("boom")
	var failed time.Time
	_, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) {
		p.SetDelay(700 * time.Millisecond)
		failed = time.Now()
		return "", boom
	})
	if took := time.Since(failed); !errors.Is(err, boom) || took > 50*time.Millisecond+testkit.Slack(100*time.Millisecond) {
		t.Errorf("%v, %v after the load failed", err, took)
	}
}

// While the end of the lease took longer than what was left of LoadTimeout, the
// load was also reported as failed to other processes.
func TestGetOrLoad_LoadThatGaveItsResultIsNotReportedAsFailed(t *testing.T) {
	t.Parallel()
	c, rec, p := slowRedis(t, Options[string]{ReadTimeout: 50 * time.Millisecond, LoadTimeout: 200 * time.Millisecond})
	v, err := c.GetOrLoad(t.Context(), "k", func(context.Context) (string, error) {
		p.SetDelay(500 * time.Millisecond)
		return "v", nil
	})
	if v != "v" || err != nil {
		t.Fatalf("%q %v", v, err)
	}
	time.Sleep(400 * time.Millisecond) // LoadTimeout has passed
	p.SetDelay(0)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(600 * time.Millisecond) // what was sent has been answered
	if n, lost := rec.count("fenced"), rec.count("store_error"); n != 0 || lost != 0 {
		t.Errorf("%d ends of a lease that had ended, %d failed", n, lost)
	}
}
