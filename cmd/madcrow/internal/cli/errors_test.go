package cli

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/madcrowtest"
)

// What a user sees of a mistake is one line that names what was meant, and the
// help of that very command.
func TestCommandLine_MistakesNameWhatWasMeant(t *testing.T) {
	for args, want := range map[string][2]string{
		"sesion":                 {`unknown command "sesion" for "madcrow": did you mean "session"?`, "madcrow --help"},
		"sessions":               {`unknown command "sessions" for "madcrow": did you mean "session"?`, "madcrow --help"},
		"xyzzy":                  {`unknown command "xyzzy" for "madcrow"`, "madcrow --help"},
		"session lst 42":         {`unknown command "lst" for "madcrow session": did you mean "list"?`, "madcrow session --help"},
		"session kill 42":        {`unknown command "kill" for "madcrow session": did you mean "revoke"?`, "madcrow session --help"},
		"cache tag remove x":     {`unknown command "remove" for "madcrow cache tag": did you mean "delete"?`, "madcrow cache tag --help"},
		"session list 42 --nmae": {"unknown flag: --nmae: did you mean \"--name\"? (before a USER that begins with '-' write --)", "madcrow session list --help"},
		"serve --adr :80":        {`unknown flag: --adr: did you mean "--addr"?`, "madcrow serve --help"},
		"serve --xyzzy":          {"unknown flag: --xyzzy", "madcrow serve --help"},
		"serve -x":               {"unknown shorthand flag: 'x' in -x", "madcrow serve --help"},
		"serve now":              {`madcrow serve takes no arguments: "now"`, "madcrow serve --help"},
	} {
		code, stdout, stderr := command(t, nil, strings.Fields(args)...)
		if text := fmt.Sprintf("madcrow: %s\nRun '%s' for usage.\n", want[0], want[1]); code != exitUsage || stdout != "" || stderr != text {
			t.Errorf("madcrow %s: exit code %d:\n%s%s, want\n%s", args, code, stdout, stderr, text)
		}
	}
}

// It took 5 seconds to say that no one listens there.
func TestCommandLine_ARefusedConnectionIsSaidAtOnce(t *testing.T) {
	closed := func() string { return fmt.Sprintf("127.0.0.1:%d", madcrowtest.FreePort(t)) }
	for name, url := range map[string]string{
		"standalone": "redis://" + closed(), "socket": "unix://" + t.TempDir() + "/none.sock", "name": "redis://no-such-host.invalid",
		"sentinel": "redis-sentinel://" + closed() + "," + closed() + "/0?master=m", "cluster": "redis-cluster://" + closed() + "," + closed(),
	} {
		begin := time.Now()
		code, stdout, stderr := command(t, []string{"REDIS_URL=" + url}, "publish", "news", "x")
		took := time.Since(begin)
		if code != exitFailed || stdout != "" || took > 3*time.Second || !strings.HasPrefix(stderr, "madcrow: connect: unavailable: ") || strings.Contains(stderr, "Run '") {
			t.Errorf("%s: exit code %d after %v: %s%s", name, code, took, stdout, stderr)
		}
	}
}

// A Redis that is only slow to answer is waited for.
func TestCommandLine_WaitsForARedisThatIsStarting(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	s.Pause()
	time.AfterFunc(1500*time.Millisecond, s.Resume)
	if code, stdout, stderr := command(t, appEnv(s), "publish", "news", "x", "--timeout", "15s"); code != exitOK || stdout != "0 receivers" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// In production localhost was tried for 5 seconds, though no one had named it.
func TestCommandLine_NoRedisIsNamedIsAMistakeOfTheSettings(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:6379") // whatever listens there is not asked
	if err == nil {
		t.Cleanup(func() { _ = ln.Close() })
	}
	for _, args := range []string{
		"serve --addr 127.0.0.1:0", "cache get x", "cache clear --name x", "limit reset k", "session list 42", "publish a b", "tail a", "stream info a --group g",
	} {
		for _, env := range [][]string{nil, {"DEPLOY_ENV=PRODUCTION"}} {
			if env == nil && strings.HasPrefix(args, "serve") {
				continue // it brings its own
			}
			begin := time.Now()
			code, stdout, stderr := command(t, env, strings.Fields(args)...)
			if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "madcrow: no Redis is named: set REDIS_HOST=localhost") || time.Since(begin) > 3*time.Second {
				t.Errorf("madcrow %s with %s: exit code %d: %s%s", args, env, code, stdout, stderr)
			}
		}
	}
}

func TestWithHandles_HandlesAreNoFlags(t *testing.T) {
	const handle = "-abcdefghijklmnopqrstuvwxyz0123456789_-ABCD"
	for in, want := range map[string]string{
		"session show 42 " + handle:                   "session show 42 -- " + handle,
		"session show 42 " + handle + " --data":       "session show 42 --data -- " + handle,
		"session revoke --name web 42 " + handle:      "session revoke --name web 42 -- " + handle,
		"session show -- 42 " + handle:                "session show -- 42 " + handle,
		"session show --fastapi " + handle:            "session show --fastapi " + handle,
		"session show 42 -short":                      "session show 42 -short",
		"cache get " + handle:                         "cache get " + handle,
		"session show 42 H" + handle[1:] + " -o json": "session show 42 H" + handle[1:] + " -o json",
	} {
		if got := withHandles(strings.Fields(in)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
