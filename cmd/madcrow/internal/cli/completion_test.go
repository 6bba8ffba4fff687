package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestCompletion_KnowsValuesAndNames(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	s.Do(t, "SET", "app:m1:limit:api:g:{x}", "1")
	s.Do(t, "SET", "app:m1:cache:users:gen", "1")
	s.Do(t, "SET", "app:m1:session:web:secret", "1")
	s.Do(t, "XGROUP", "CREATE", "app:m1:stream:{mails}:log", "senders", "0", "MKSTREAM")
	s.Do(t, "HSET", "app:m1:topic:{news}:meta", "e", "1")
	for args, want := range map[string]string{
		"limit peek x --algorithm |": "sliding-log sorted-set-log sliding-window gcra", "limit check -o |": "text json",
		"serve --log-level |": "debug info warn error", "cache set a b --codec |": "json text bytes", "ls |": strings.Join(kinds(), " "),
		"limit peek x --name |": "api", "cache clear --name |": "users", "session list 42 --name |": "web",
		"stream info |": "mails", "stream dead mails --group |": "senders", "tail |": "news", "publish |": "",
	} {
		code, stdout, stderr := command(t, appEnv(s), append([]string{"__complete"}, strings.Split(strings.ReplaceAll(args, "|", ""), " ")...)...)
		lines := strings.Fields(stdout)
		if n := len(lines); code != exitOK || n == 0 || lines[n-1] != ":4" || strings.Join(lines[:n-1], " ") != want {
			t.Errorf("%s: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, _ := command(t, nil, "completion", shell); code != exitOK || !strings.Contains(stdout, "__complete") {
			t.Errorf("%s: exit code %d", shell, code)
		}
	}
}

// A Redis that does not answer does not hold up the shell.
func TestCompletion_WaitsForNothing(t *testing.T) {
	frozen := madcrowtest.StartRedis(t)
	frozen.Pause()
	t.Cleanup(frozen.Resume)
	for _, url := range []string{"redis://" + frozen.Addr(), fmt.Sprintf("redis://127.0.0.1:%d", madcrowtest.FreePort(t))} {
		begin := time.Now()
		code, stdout, _ := command(t, []string{"REDIS_URL=" + url}, "__complete", "stream", "info", "")
		if took := time.Since(begin); code != exitOK || strings.TrimSpace(stdout) != ":4" || took > 3*time.Second {
			t.Errorf("exit code %d after %v: %s", code, took, stdout)
		}
	}
}
