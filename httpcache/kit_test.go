package httpcache_test

import (
	"context"
	"crypto/rand"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

var config madcrow.Config

func TestMain(m *testing.M) {
	madcrowtest.RunWithRedis(m, func(s *madcrowtest.Server) { config = s.Config() })
}

// ownConfig is of the server of the package, under a key prefix that no other
// test and no other run of this one has.
func ownConfig(t testing.TB) madcrow.Config {
	cfg := config
	cfg.KeyPrefix = t.Name() + ":" + rand.Text() + ":"
	return cfg
}

func open(t testing.TB) *madcrow.Redis {
	t.Helper()
	return openConfig(t, ownConfig(t))
}

func openConfig(t testing.TB, cfg madcrow.Config) *madcrow.Redis {
	t.Helper()
	cfg.Require = true
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

const near = 1 << 20
