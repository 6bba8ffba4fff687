//go:build soak

package server

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

// TestDocs_InABrowserWithoutInternet loads the page in Chromium, which can
// resolve no name, and looks at what was rendered.
func TestDocs_InABrowserWithoutInternet(t *testing.T) {
	web := startWeb(t, madcrowtest.StartRedis(t).Config())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var log strings.Builder
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--enable-logging=stderr",
		"--user-data-dir="+t.TempDir(), "--dump-dom", web.url+"/docs")
	cmd.Stderr = &log
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	for _, want := range []string{"/api/v1/redis-example/cache/{key}", "/api/v1/redis-example/rate-limit/check", "/openapi.json", "<details"} {
		if !strings.Contains(string(dom), want) {
			t.Errorf("the page does not show %s", want)
		}
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") || strings.Contains(line, "Content Security Policy") {
			t.Errorf("the browser complains: %s", line)
		}
	}
}
