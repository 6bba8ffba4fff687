package conn

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// A token service that is away was a line in the log every five seconds, and
// its return none.
func TestCredentials_LogsOnceThatTheyAreStaleAndThatItIsOver(t *testing.T) {
	var log strings.Builder
	away := errors.New("the token service is away")
	err := away
	ep := NewEndpoint(t.Context(), Config{
		Log: slog.New(slog.NewTextHandler(&log, nil)), ConnectTimeout: time.Second, MaxConnections: 1,
		Fetch: func(context.Context, string) (Credentials, error) { return Credentials{Password: "p"}, err },
	}, "127.0.0.1:6379")
	ep.creds.have = true
	use := func() {
		t.Helper()
		ep.creds.last.RefreshAfter = time.Now().Add(-time.Second)
		if _, err := ep.credentials(rueidis.AuthCredentialsContext{}); err != nil {
			t.Error(err)
		}
	}
	use()
	use()
	err = nil
	use()
	use()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "could not be refreshed") || !strings.Contains(lines[1], "refreshed again") {
		t.Errorf("%q", lines)
	}
}
