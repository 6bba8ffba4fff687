package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestEmbedded_WorksWithNothingInstalledAndWithARedis(t *testing.T) {
	binary := program.Build(t)
	alone := program.Start(t, binary, nil)
	alone.Want(t, "GET", "/", "", 200, "visits", "1")
	alone.Want(t, "GET", "/", "", 200, "visits", "2")

	s := madcrowtest.StartRedis(t)
	shared := program.Start(t, binary, s, "REDIS_KEY_PREFIX=shop:")
	shared.Want(t, "GET", "/", "", 200, "visits", "1")
	if got := s.Do(t, "GET", "shop:visits"); got != "1" {
		t.Errorf("%v: it is not in the Redis that the environment names", got)
	}
}

func TestEmbedded_RefusesProductionAtOnce(t *testing.T) {
	t.Setenv("DEPLOY_ENV", "PRODUCTION")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no Redis is named") {
		t.Error(err)
	}
}
