package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/contrib/codec"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// cached runs madcrow cache against a server.
func cached(t *testing.T, s *madcrowtest.Server, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	code, stdout, stderr = command(t, []string{"REDIS_URL=redis://" + s.Addr(), "REDIS_KEY_PREFIX=app:"}, append([]string{"cache"}, args...)...)
	if code != exitOK && code != exitMiss {
		t.Errorf("madcrow cache %s: exit code %d\n%s", args, code, stderr)
	}
	return code, stdout, stderr
}

type cacheStep struct {
	args string // separated by blanks
	code int
	want string // a pattern
}

func (step cacheStep) run(t *testing.T, s *madcrowtest.Server) {
	t.Helper()
	code, out, stderr := cached(t, s, strings.Fields(step.args)...)
	if ok, err := regexp.MatchString("(?s)^"+step.want+"$", out); code != step.code || !ok || err != nil {
		t.Errorf("madcrow cache %s: exit code %d: %s, want %d: %s\n%s", step.args, code, out, step.code, step.want, stderr)
	}
}

func TestCache_IsThatOfTheHTTPRoute(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	for _, step := range []cacheStep{
		{"get greeting", exitMiss, ""},
		{"ttl greeting", exitMiss, ""},
		{"del greeting", exitMiss, ""},
		{"set greeting hello", exitOK, "stored"},
		{"get greeting", exitOK, "hello"},
		{"ttl greeting", exitOK, "no lifetime"},
		{"set greeting hi --ttl 2h", exitOK, "stored"},
		{"ttl greeting", exitOK, "2h0m0s"},
		{"get greeting -o json", exitOK, `{"key":"greeting","found":true,"value":"hi","ttl_seconds":7[12]\d\d(\.\d+)?}`},
		{"ttl greeting -o json", exitOK, `{"key":"greeting","found":true,"ttl_seconds":7[12]\d\d(\.\d+)?}`},
		{"del greeting", exitOK, "deleted"},
		{"get greeting -o json", exitMiss, `{"key":"greeting","found":false,"ttl_seconds":null}`},
		{"del greeting -o json", exitMiss, `{"deleted":false,"key":"greeting"}`},
		{"set greeting hello -o json", exitOK, `{"key":"greeting","stored":true,"ttl_seconds":null}`},
	} {
		step.run(t, s)
	}
	s.Do(t, "SET", "app:raw", "\xff\x00")
	cacheStep{"get raw -o json", exitOK, `{"key":"raw","found":true,"value_base64":"/wA=","ttl_seconds":null}`}.run(t, s)
	if code, out, _ := cached(t, s, "get", "raw"); code != exitOK || out != "\xff\x00" {
		t.Errorf("%d %q", code, out)
	}
	if _, _, stderr := cached(t, s, "get", "nothing"); stderr != "not found\n" {
		t.Errorf("%q", stderr)
	}

	p := launch(t, []string{"REDIS_URL=redis://" + s.Addr(), "REDIS_KEY_PREFIX=app:"})
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	res, err := http.Get("http://" + p.addr + "/api/v1/redis-example/cache/greeting")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if want := `{"key":"greeting","value":"hello","exists":true,"ttl":null}`; err != nil || strings.TrimSpace(string(body)) != want {
		t.Errorf("the route says %s, %v", body, err)
	}
}

type member struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// typed opens what a Go program would.
func typed[T any](t *testing.T, s *madcrowtest.Server, name string, opt cache.Options[T]) *cache.Cache[T] {
	t.Helper()
	cfg := s.Config()
	cfg.KeyPrefix, cfg.Require = "app:", true
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.New(r, name, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close(context.Background())
		_ = r.Close(context.Background())
	})
	return c
}

func TestCache_OfANameIsThatOfAProgram(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	c := typed(t, s, "members", cache.Options[member]{TTL: time.Hour, StaleTTL: time.Hour, Jitter: -1, NearCacheBytes: 1 << 20, Tags: []string{"all"}})
	zoe := member{42, "Zoë"}
	load := func(_ context.Context, l *cache.Load[member]) (member, error) {
		time.Sleep(2 * time.Millisecond)
		l.SetETag(`"v1"`)
		return zoe, nil
	}
	if _, err := c.GetOrLoadWith(t.Context(), "42", load, cache.WithTags("m:42")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetOrLoad(t.Context(), "0", func(context.Context) (member, error) { return zoe, cache.ErrNotFound }); !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	for _, step := range []cacheStep{
		{"get 42 --name members", exitOK, "state  fresh for (1h0m0s|59m\\d+s), kept for (2h0m0s|1h59m\\d+s)\nage    \\d+m?s\nload   took [^\n]*\ntags   all, m:42\netag   \"v1\"\ncodec  json\nvalue  {\"id\":42,\"name\":\"Zoë\"}"},
		{"get 42 --name members -o json", exitOK, `{"key":"42","name":"members","found":true,"state":"fresh","value":"{\\"id\\":42,\\"name\\":\\"Zoë\\"}","codec":"json","codec_id":1,"negative":false,"age_seconds":[\d.]+,"ttl_seconds":3[56]\d\d(\.\d+)?,"kept_for_seconds":7[12]\d\d(\.\d+)?,"load_seconds":[\d.e-]+,"etag":"\\"v1\\"","tags":\["all","m:42"\]}`},
		{"ttl 42 --name members", exitOK, "1h0m0s|59m\\d+s"},
		{"get 0 --name members", exitMiss, "state  absent: it is cached for [\\d.]+s that there is no value\nage .*"},
		{"get 0 --name members -o json", exitMiss, `{"key":"0","name":"members","found":false,"state":"absent","negative":true,"age_seconds".*}`},
		{"get 7 --name members", exitMiss, ""},
		{"get 7 --name members -o json", exitMiss, `{"key":"7","name":"members","found":false,"negative":false,"ttl_seconds":null,"kept_for_seconds":null}`},
		{"tag expire m:42", exitOK, "expired"},
		{"get 42 --name members", exitOK, "state  stale, kept for .*"},
		{"ttl 42 --name members", exitOK, "stale, kept for .*"},
		{"tag delete none all -o json", exitMiss, `{"deleted":true,"tags":\["none","all"\],"unknown":\["none"\]}`},
		{"get 42 --name members", exitMiss, "state  removed: it is served no more\n.*"},
		{"ttl 42 --name members", exitMiss, ""},
		{"set 42 {\"id\":43} --name members --ttl 90 --stale-for 90 --tag all", exitOK, "stored"},
		{"ttl 42 --name members -o json", exitOK, `{.*"state":"fresh".*"ttl_seconds":(90|89\.\d+),"kept_for_seconds":(180|179\.\d+),"tags":\["all"\]}`},
	} {
		step.run(t, s)
	}
	testkit.Eventually(t, "the program sees the new value", func() bool {
		m, found, err := c.Get(t.Context(), "42")
		return m == member{ID: 43} && found && err == nil
	})
	for _, step := range []cacheStep{
		{"del 42 --name members", exitOK, "deleted"},
		{"del 42 --name members", exitMiss, ""},
		{"set 1 {} --name members --tag all -o json", exitOK, `{"key":"1","name":"members","stored":true,"ttl_seconds":300}`},
		{"set 1 {} --name other", exitOK, "stored"},
		{"clear --name members", exitOK, "cleared"},
		{"get 1 --name members", exitMiss, "state  removed.*"},
		{"get 1 --name other", exitOK, "state  fresh.*"},
	} {
		step.run(t, s)
	}
	testkit.Eventually(t, "the program sees the removal", func() bool { _, found, err := c.Get(t.Context(), "42"); return !found && err == nil })
}

func TestCache_CodecsOfTheLibraryAreShown(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	texts := typed(t, s, "texts", cache.Options[string]{})
	cacheStep{"set a two --name texts --codec text", exitOK, "stored"}.run(t, s)
	if v, found, err := texts.Get(t.Context(), "a"); v != "two" || !found || err != nil {
		t.Errorf("%q %v %v", v, found, err)
	}
	raw := typed(t, s, "bytes", cache.Options[[]byte]{})
	cacheStep{"set a two --name bytes --codec bytes", exitOK, "stored"}.run(t, s)
	if v, found, err := raw.Get(t.Context(), "a"); string(v) != "two" || !found || err != nil {
		t.Errorf("%q %v %v", v, found, err)
	}
	long := member{1, strings.Repeat("long ", 500)}
	for name, of := range map[string]madcrow.Codec[member]{
		"msgpack": codec.Msgpack[member](), "zstd": codec.Zstd[member](nil), "s2": codec.S2(codec.Zstd(codec.Msgpack[member]())),
	} {
		if err := typed(t, s, name, cache.Options[member]{Codec: of}).Set(t.Context(), "k", long); err != nil {
			t.Fatal(err)
		}
		want := `.*codec  ` + name + "\nvalue  {\"id\":1,\"name\":\"(long ){500}\"}"
		cacheStep{"get k --name " + name, exitOK, want}.run(t, s)
	}
	own := typed(t, s, "own", cache.Options[member]{Codec: ownCodec{madcrow.JSON[member]()}})
	if err := own.Set(t.Context(), "k", long); err != nil {
		t.Fatal(err)
	}
	cacheStep{"get k --name own", exitOK, ".*codec  200\nvalue  \\(\\d+ bytes\\)"}.run(t, s)
	s.Do(t, "SET", "app:m1:cache:own:{bad}", "no entry")
	code, _, stderr := command(t, []string{"REDIS_URL=redis://" + s.Addr(), "REDIS_KEY_PREFIX=app:"}, "cache", "get", "bad", "--name", "own")
	if code != exitFailed || !strings.Contains(stderr, "not an entry") {
		t.Errorf("%d %s", code, stderr)
	}
	cacheStep{"del bad --name own", exitOK, "deleted"}.run(t, s)
}

type ownCodec struct{ madcrow.Codec[member] }

func (ownCodec) ID() byte { return 200 }

func TestCache_ValueFromStandardInput(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cmd := exec.Command(binary, "cache", "set", "page", "-")
	cmd.Dir, cmd.Env = t.TempDir(), cleanEnv([]string{"REDIS_URL=redis://" + s.Addr()})
	cmd.Stdin = strings.NewReader("two\nlines\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if v := s.Do(t, "GET", "page"); v != "two\nlines\n" {
		t.Errorf("%q", v)
	}
	cmd = exec.Command(binary, "cache", "set", "page", "-")
	cmd.Dir, cmd.Env = t.TempDir(), cleanEnv([]string{"REDIS_MAX_VALUE_SIZE=1000", "REDIS_URL=redis://" + s.Addr()})
	cmd.Stdin = bytes.NewReader(make([]byte, 1001))
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "too large") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCache_MistakesAreUsageErrors(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	url := "REDIS_URL=redis://" + s.Addr()
	for args, want := range map[string]string{
		"gett k":                       "unknown command",
		"get":                          "get KEY",
		"get a b":                      "get KEY",
		"set k":                        "set KEY VALUE",
		"set k v --ttl soon":           "1m30s",
		"set k v --ttl -1":             "--ttl",
		"set k v --tag a":              "--tag needs --name",
		"set k v --codec text":         "--codec needs --name",
		"set k v --stale-for 1m":       "--stale-for needs --name",
		"set k v --name n":             "--codec text",
		"set k v --name n --codec xml": "json, text or bytes",
		"set k 1 --name n --ttl 1ms":   "TTL: must be from",
		"set k 1 --name n --tag=":      "tags: each must",
		"set m1:cache:n:{k} v":         "reserved",
		"get session:1":                "reserved",
		"get k --ttl 1m":               "unknown flag",
		"get k --name=":                "--name must not be empty",
		"get k --name a:b":             "name: must be",
		"del k --name a:b":             "name: must be",
		"ttl k -o xml":                 "--output",
		"ttl k --timeout 0s":           "--timeout",
		"get k --env-file nowhere":     "nowhere",
		"clear":                        "--name",
		"clear k --name n":             "clear",
		"tag delete":                   "delete TAG",
		"tag remove a":                 "unknown command",
		"tag delete a --name n":        "unknown flag",
		"tag expire " + long("a", 257): "tags: each must",
	} {
		code, _, stderr := command(t, []string{url}, append([]string{"cache"}, strings.Fields(args)...)...)
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("madcrow cache %s: exit code %d, want %q:\n%s", args, code, want, stderr)
		}
	}
	if code, stdout, stderr := command(t, nil, "cache", "get", "k"); code != exitUsage || stdout != "" || !strings.Contains(stderr, "REDIS_HOST") {
		t.Errorf("without a Redis: exit code %d\n%s", code, stderr)
	}
	if n := s.Do(t, "DBSIZE"); n != int64(0) {
		t.Errorf("%v keys were written", n)
	}
	for _, args := range []string{"cache", "cache get --help", "cache set --help", "cache del --help", "cache ttl --help", "cache tag", "cache tag delete --help", "cache clear --help"} {
		code, stdout, _ := command(t, nil, strings.Fields(args)...)
		if code != exitOK || !strings.Contains(stdout, "3 there is no such key") || !strings.Contains(stdout, "Examples:\n  madcrow cache ") {
			t.Errorf("madcrow %s: %d\n%s", args, code, stdout)
		}
	}
}

func long(s string, n int) string { return strings.Repeat(s, n) }

// Without Redis a removal is a failure, and the output does not say that it will be sent.
func TestCache_EndsInTimeWithoutRedis(t *testing.T) {
	frozen := madcrowtest.StartRedis(t)
	frozen.Pause()
	t.Cleanup(frozen.Resume)
	for name, url := range map[string]string{
		"dead":   fmt.Sprintf("REDIS_URL=redis://127.0.0.1:%d", madcrowtest.FreePort(t)),
		"frozen": "REDIS_URL=redis://" + frozen.Addr(),
	} {
		for _, args := range []string{"get k", "set k {} --name n", "tag delete a", "del k --name n", "clear --name n"} {
			t.Run(name+" "+args, func(t *testing.T) {
				t.Parallel() // each waits for its time-out
				begin := time.Now()
				code, stdout, stderr := command(t, []string{url}, append([]string{"cache", "--timeout", "500ms"}, strings.Fields(args)...)...)
				if took := time.Since(begin); code != exitFailed || stdout != "" || took > 4*time.Second || strings.Contains(stderr, "is back") {
					t.Errorf("exit code %d after %v: %s%s", code, took, stdout, stderr)
				}
			})
		}
	}
}

func TestCache_ARefusedRemovalIsAFailure(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	s.Do(t, "SET", "m1:cache:n:gen", "1") // there is such a cache
	s.Do(t, "REPLICAOF", "127.0.0.1", fmt.Sprint(madcrowtest.FreePort(t)))
	for _, args := range []string{"set k {} --name n", "tag delete a", "del k --name n", "clear --name n"} {
		code, stdout, stderr := command(t, []string{"REDIS_URL=redis://" + s.Addr()}, append([]string{"cache"}, strings.Fields(args)...)...)
		if code != exitFailed || stdout != "" || strings.Contains(stderr, "is back") {
			t.Errorf("%s: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
}

func TestCache_JSONIsOneObject(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	for _, args := range []string{"set k v", "get k", "ttl k", "del k", "get k", "set k 1 --name n", "get k --name n", "tag delete a", "clear --name n", "get k --name n"} {
		_, out, _ := cached(t, s, append(strings.Fields(args), "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &map[string]any{}); err != nil {
			t.Errorf("%s: %s: %v", args, out, err)
		}
	}
}

// A cache or a tag that does not exist was "cleared", "deleted".
func TestCache_WhatDoesNotExistIsSaid(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	users := typed(t, s, "users", cache.Options[member]{TTL: time.Minute})
	if err := users.Set(t.Context(), "42", member{ID: 42}, cache.WithTags("user:42")); err != nil {
		t.Fatal(err)
	}
	const noCache = "madcrow: there is no cache \"usres\": did you mean \"users\"; caches that there are: users\n"
	for args, want := range map[string]string{
		"clear --name usres": noCache, "get 42 --name usres": noCache, "ttl 42 --name usres": noCache, "del 42 --name usres": noCache,
		"get 43 --name users": "not found\n", "tag delete user:43": "madcrow: no entry has the tag user:43\n",
		"tag expire user:42 a b": "madcrow: no entry has the tag a, b\n",
	} {
		if code, stdout, stderr := cached(t, s, strings.Fields(args)...); code != exitMiss || stdout != "" || stderr != want {
			t.Errorf("madcrow cache %s: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	if code, stdout, _ := cached(t, s, "get", "42", "--name", "usres", "-o", "json"); code != exitMiss || !strings.HasPrefix(stdout, `{"key":"42","name":"usres","found":false`) {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	for args, want := range map[string]string{"tag delete user:42": "deleted", "clear --name users": "cleared"} {
		if code, stdout, stderr := cached(t, s, strings.Fields(args)...); code != exitOK || stdout != want {
			t.Errorf("madcrow cache %s: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
}
