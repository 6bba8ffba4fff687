package madcrow_test

import (
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A real server is called by its own name and version.
func TestStatus_NamesTheServer(t *testing.T) {
	s, r := server(t)
	text, _ := s.Do(t, "INFO", "server").(string)
	name, rest := "redis", ""
	for _, other := range []string{"redis", "valkey"} {
		if _, after, ok := strings.Cut(text, "\n"+other+"_version:"); ok {
			name, rest = other, after
		}
	}
	version, _, _ := strings.Cut(rest, "\r")
	testkit.Eventually(t, "INFO is read", func() bool { return r.Status().Server.Version != "" })
	if got := r.Status().Server; got.Name != name || got.Version != version || version == "" {
		t.Errorf("%q %q, want %q %q", got.Name, got.Version, name, version)
	}
}
