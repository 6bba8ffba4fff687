package main

import (
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestHealth_OfRedisAndOfTheDatabase(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	file := filepath.Join(t.TempDir(), "records.db")
	p := program.Start(t, program.Build(t), s, "DATABASE="+file)

	is := func(status, redis, database string) func() bool {
		return func() bool {
			a := p.Want(t, "GET", "/health", "", 200)
			return a.Member("status") == status && a.Member("services.redis") == redis && a.Member("services.database") == database
		}
	}
	healthy := is("healthy", "healthy", "healthy")
	program.Wait(t, healthy)
	p.Want(t, "GET", "/health/live", "", 200, "status", "alive")
	p.Want(t, "GET", "/health/ready", "", 200, "status", "ready")
	if a := p.Ask(t, "GET", "/health", ""); strings.Contains(a.Text, "127.0.0.1") || strings.Contains(a.Text, file) {
		t.Errorf("it shows where things are: %s", a.Text)
	}

	program.Faults(t, s, func() { program.Wait(t, is("degraded", "unavailable", "healthy")) }, func() {
		begin := time.Now()
		p.Want(t, "GET", "/health/ready", "", 503, "error", "true")
		p.Want(t, "GET", "/health/live", "", 200, "status", "alive")
		p.Want(t, "GET", "/health", "", 200, "redis.available", "false")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("three answers took %v: somebody was asked", took)
		}
	}, func() { program.Wait(t, healthy) })
	p.Want(t, "GET", "/health/ready", "", 200)

	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(`ALTER TABLE records RENAME TO gone`); err != nil {
		t.Fatal(err)
	}
	program.Wait(t, is("degraded", "healthy", "unavailable"))
	p.Want(t, "GET", "/health/ready", "", 200, "status", "degraded") // it can be sent requests
	if _, err := db.Exec(`ALTER TABLE gone RENAME TO records`); err != nil {
		t.Fatal(err)
	}
	program.Wait(t, healthy)
}

func TestHealth_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
