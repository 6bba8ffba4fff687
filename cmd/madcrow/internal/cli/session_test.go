package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/service"
	"github.com/madcrow-go/madcrow/session"
)

type basket struct {
	Note string `json:"note"`
}

// shop is a program with sessions, behind a middleware so that they have a
// device.
type shop struct {
	t      *testing.T
	server *madcrowtest.Server
	redis  *madcrow.Redis
	m      *session.Manager[basket]
}

func openShop(t *testing.T, name string, opt session.Options[basket]) *shop {
	t.Helper()
	s := &shop{t: t, server: madcrowtest.StartRedis(t)}
	cfg := s.server.Config()
	cfg.KeyPrefix, cfg.Require = "app:", true
	var err error
	if s.redis, err = madcrow.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.redis.Close(context.Background()) })
	opt.Client = clientip.RemoteAddr()
	if s.m, err = session.New(s.redis, name, opt); err != nil {
		t.Fatal(err)
	}
	return s
}

// login makes a session and returns its handle and identifier.
func (s *shop) login(user, agent, note string) (handle, token string) {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, "/", nil)
	r.Header.Set("User-Agent", agent)
	s.m.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		v := s.m.From(r.Context())
		err := v.Login(r.Context(), user)
		if err == nil {
			err = v.Update(r.Context(), func(b *basket) error { b.Note = note; return nil })
		}
		if err != nil {
			s.t.Error(err)
		}
		handle, token = v.Handle(), v.Token()
	})).ServeHTTP(httptest.NewRecorder(), r)
	return handle, token
}

func (s *shop) alive(token string) bool {
	s.t.Helper()
	_, found, err := s.m.Open(token).Get(s.t.Context())
	if err != nil {
		s.t.Error(err)
	}
	return found
}

// run runs madcrow session.
func (s *shop) run(stdin string, args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"session"}, args...)...)
	cmd.Dir, cmd.Stdin = s.t.TempDir(), strings.NewReader(stdin)
	cmd.Env = cleanEnv([]string{"REDIS_URL=redis://" + s.server.Addr(), "REDIS_KEY_PREFIX=app:"})
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	_ = cmd.Run() // the code says it
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String()), problem.String()
}

func TestSession_ListShowAndRevoke(t *testing.T) {
	s := openShop(t, "web", session.Options[basket]{})
	first, firstID := s.login("42", "a laptop\u009b31m\u202e", "for \u009b31m me")
	second, secondID := s.login("42", "a phone", "")
	other, otherID := s.login("43", "a tablet", "")

	code, out, _ := s.run("", "list", "42")
	lines := strings.Split(out, "\n")
	if code != exitOK || len(lines) != 3 || !strings.HasPrefix(lines[0], "HANDLE") || !strings.HasPrefix(lines[1], second+"  ") || !strings.HasPrefix(lines[2], first+"  ") ||
		!strings.Contains(lines[1], "192.0.2.1") || !strings.HasSuffix(lines[2], `a laptop\u009b31m\u202e`) {
		t.Errorf("%d %s", code, out)
	}
	code, show, _ := s.run("", "show", "--data", "--", "42", first)
	for _, want := range []string{first, "192.0.2.1", `a laptop\u009b31m\u202e`, "changes     2", "remembered  no", "left        30m0s without use", " bytes, JSON", "\n{\n  \"note\": \"for \\u009b31m me\"\n}"} {
		if code != exitOK || !strings.Contains(show, want) {
			t.Errorf("%d, want %q:\n%s", code, want, show)
		}
	}
	if _, out, _ := s.run("", "show", "--", "42", first); strings.Contains(out, "note") {
		t.Errorf("data that was not asked for: %s", out)
	}
	for _, text := range []string{out, show} {
		if strings.Contains(text, firstID) || strings.Contains(text, secondID) {
			t.Error("an identifier is shown")
		}
	}
	for _, args := range [][]string{{"show", "--", "42", other}, {"revoke", "--", "42", other}, {"revoke", "42", "x"}, {"show", "--name", "else", "--", "42", first}} {
		if code, out, stderr := s.run("", args...); code != exitMiss || out != "" || !strings.HasPrefix(stderr, "madcrow: ") || !strings.Contains(stderr, ` has no such session in "web"`) && !strings.Contains(stderr, `there is no session name "else"; sessions that there are: web`) {
			t.Errorf("%v: %d %s%s", args, code, out, stderr)
		}
	}

	if code, out, _ := s.run("", "revoke", "--", "42", first); code != exitOK || out != "revoked" || s.alive(firstID) || !s.alive(secondID) {
		t.Errorf("%d %s", code, out)
	}
	s.login("42", "", "")
	if code, out, _ := s.run("", "revoke", "42", "--all"); code != exitOK || out != "revoked 2" || s.alive(secondID) || !s.alive(otherID) {
		t.Errorf("%d %s", code, out)
	}
	for _, args := range []string{"list 42", "revoke 42 --all"} {
		if code, out, stderr := s.run("", strings.Fields(args)...); code != exitMiss || out != "" || stderr != "madcrow: user \"42\" has no sessions in \"web\"\n" {
			t.Errorf("%s: %d %s%s", args, code, out, stderr)
		}
	}
}

func TestSession_JSON(t *testing.T) {
	s := openShop(t, "web", session.Options[basket]{})
	handle, _ := s.login("42", "a laptop", "x")
	for _, step := range []struct {
		args string
		code int
		want string // times and numbers that vary are taken out
	}{
		{"list 42", exitOK, `{"name":"web","sessions":[{"address":"192.0.2.1","handle":"H","user_agent":"a laptop"}],"user":"42"}`},
		{"list 43", exitMiss, `{"name":"web","sessions":[],"user":"43"}`},
		{"show -- 42 H", exitOK, `{"address":"192.0.2.1","bytes":0,"changes":2,"encrypted":false,"found":true,"handle":"H","left_seconds":0,"messages":0,"name":"web","remembered":false,"user":"42","user_agent":"a laptop"}`},
		{"show --data -- 42 H", exitOK, `{"address":"192.0.2.1","bytes":0,"changes":2,"data":{"note":"x"},"encrypted":false,"found":true,"handle":"H","left_seconds":0,"messages":0,"name":"web","remembered":false,"user":"42","user_agent":"a laptop"}`},
		{"show -- 43 H", exitMiss, `{"found":false,"name":"web","user":"43"}`},
		{"revoke -- 43 H", exitMiss, `{"handle":"H","name":"web","revoked":false,"user":"43"}`},
		{"revoke -- 42 H", exitOK, `{"handle":"H","name":"web","revoked":true,"user":"42"}`},
		{"revoke 42 --all", exitMiss, `{"name":"web","revoked":0,"user":"42"}`},
	} {
		args := strings.Fields(strings.ReplaceAll(step.args, "H", handle))
		code, out, stderr := s.run("", slices.Insert(args, 1, "-o", "json")...)
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%s: %v %s%s", step.args, err, out, stderr)
		}
		for _, in := range []any{got, firstOf(got["sessions"])} {
			steady(t, in)
		}
		text, err := json.Marshal(got)
		if result := strings.ReplaceAll(string(text), handle, "H"); code != step.code || err != nil || result != step.want {
			t.Errorf("%s: exit code %d: %s, want %d: %s", step.args, code, result, step.code, step.want)
		}
	}
}

func firstOf(list any) any {
	if l, ok := list.([]any); ok && len(l) > 0 {
		return l[0]
	}
	return nil
}

// steady takes out what varies, and looks whether it can be right.
func steady(t *testing.T, in any) {
	t.Helper()
	m, _ := in.(map[string]any)
	for name, v := range m {
		switch name {
		case "created", "last_used", "ends":
			at, err := time.Parse(time.RFC3339, v.(string))
			if d := time.Since(at).Abs(); err != nil || name != "ends" && d > time.Minute || d > 13*time.Hour {
				t.Errorf("%s: %v", name, v)
			}
			delete(m, name)
		case "left_seconds", "bytes":
			if n, ok := v.(float64); !ok || n <= 0 || n > 30*60 {
				t.Errorf("%s: %v", name, v)
			}
			m[name] = 0
		}
	}
}

func TestSession_NameSecretAndEncryption(t *testing.T) {
	const secret = "a secret of the program"
	s := openShop(t, "admin", session.Options[basket]{Secret: []byte(secret), EncryptionKeys: [][]byte{make([]byte, 32)}})
	handle, id := s.login("42", "a laptop", "hidden")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--name", "admin", "--secret-file", file}
	if code, out, _ := s.run("", append([]string{"list", "42"}, flags...)...); code != exitOK || !strings.Contains(out, handle) {
		t.Errorf("%d %s", code, out)
	}
	if code, out, stderr := s.run("", append([]string{"list", "42"}, flags[2:]...)...); code != exitOK || !strings.Contains(out, handle) {
		t.Errorf("the only name is not found: %d %s%s", code, out, stderr)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("another secret of no one"), 0o600); err != nil {
		t.Fatal(err)
	}
	// It said "revoked 0" and "no sessions", with exit code 0, while the sessions lived on.
	for flags, want := range map[string]string{
		"": `the sessions of "admin" have a secret: give --secret-file`, "--name admin": `the sessions of "admin" have a secret: give --secret-file`,
		"--secret-file " + other: `the sessions of "admin" have another secret: give --secret-file with that of the program`,
	} {
		for _, args := range []string{"list 42", "revoke 42 --all", "revoke 42 x", "show 42 x", "list 42 -o json"} {
			if code, out, stderr := s.run("", strings.Fields(args+" "+flags)...); code != exitFailed || out != "" || stderr != "madcrow: "+want+"\n" || !s.alive(id) {
				t.Errorf("%s %s: %d %s%s", args, flags, code, out, stderr)
			}
		}
	}
	show := append(append([]string{"show", "--data"}, flags...), "--", "42", handle)
	if code, out, _ := s.run("", show...); code != exitOK || !strings.Contains(out, "bytes, encrypted") || strings.Contains(out, "hidden") {
		t.Errorf("%d %s", code, out)
	}
	if code, out, _ := s.run("", append([]string{"show", "-o", "json"}, show[1:]...)...); code != exitOK || !strings.Contains(out, `"encrypted":true,"data":null`) {
		t.Errorf("%d %s", code, out)
	}
	if code, _, _ := s.run("", append([]string{"revoke"}, show[2:]...)...); code != exitOK || s.alive(id) {
		t.Errorf("%d", code)
	}
}

var almostAnHour = regexp.MustCompile(`(left  |left_seconds":)(?:1h0m0s|59m[0-9]+s|3600|35[0-9.]+)( without|,)`)

func TestSession_InTheFastAPILayout(t *testing.T) {
	s := openShop(t, "web", session.Options[basket]{})
	const id = "0b9e7d52-8f0f-4d2a-9f6c-0c3f1d7b5a11"
	if err := service.New(s.redis, service.Options{}).SetSession(t.Context(), id, map[string]string{"username": "ada"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	const facts = "left  H without use\ndata  18 bytes, JSON"
	for _, step := range []struct {
		stdin, args string
		code        int
		want        string
	}{
		{"", "show --fastapi " + id, exitOK, facts},
		{id + "\n", "show --fastapi -", exitOK, facts},
		{id, "show --fastapi - --data", exitOK, facts + "\n{\n  \"username\": \"ada\"\n}"},
		{id, "show --fastapi - -o json --data", exitOK, `{"found":true,"left_seconds":H,"remembered":false,"messages":0,"bytes":18,"encrypted":false,"data":{"username":"ada"}}`},
		{"", "show --fastapi other", exitMiss, ""},
		{"", "revoke --fastapi other", exitMiss, ""},
		{id, "revoke --fastapi -", exitOK, "revoked"},
		{id, "revoke --fastapi - -o json", exitMiss, `{"revoked":false}`},
	} {
		code, out, stderr := s.run(step.stdin, strings.Fields(step.args)...)
		out = almostAnHour.ReplaceAllString(out, "${1}H$2")
		if code != step.code || out != step.want || strings.Contains(out+stderr, id) {
			t.Errorf("%s: %d %s %s", step.args, code, out, stderr)
		}
	}
	if n := s.server.Do(t, "DBSIZE"); n != int64(0) {
		t.Errorf("%v keys are left", n)
	}
}

func TestSession_NamesAreFoundOrListed(t *testing.T) {
	s := openShop(t, "shop", session.Options[basket]{})
	if code, out, stderr := s.run("", "list", "42"); code != exitMiss || out != "" || stderr != "madcrow: no sessions are under the prefix \"app:\"\n" {
		t.Errorf("%d %s%s", code, out, stderr)
	}
	handle, _ := s.login("42", "", "")
	if code, out, stderr := s.run("", "list", "42"); code != exitOK || !strings.Contains(out, handle) {
		t.Errorf("%d %s%s", code, out, stderr)
	}
	if code, _, stderr := s.run("", "revoke", "42", "--all", "--name", "shpo"); code != exitMiss || stderr != "madcrow: there is no session name \"shpo\": did you mean \"shop\"; sessions that there are: shop\n" {
		t.Errorf("%d %s", code, stderr)
	}
	other, err := session.New(s.redis, "admin", session.Options[basket]{})
	if err != nil {
		t.Fatal(err)
	}
	(&shop{t: t, redis: s.redis, m: other}).login("1", "", "")
	if code, _, stderr := s.run("", "list", "42"); code != exitUsage || !strings.HasPrefix(stderr, "madcrow: give --name; sessions that there are: admin, shop\n") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestSession_MistakesAreUsageErrors(t *testing.T) {
	s := openShop(t, "web", session.Options[basket]{})
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"kill":                               "unknown command",
		"list":                               "session list USER",
		"list a b":                           "session list USER",
		"list a --data":                      "unknown flag",
		"list a --fastapi x":                 "unknown flag",
		"list --name web " + long("x", 513):  "user: must have 1 to 512 bytes",
		"list a --name a:b":                  "name: must be",
		"list a --name=":                     "--name must not be empty",
		"list a --secret-file=":              "--secret-file must not be empty",
		"list a --secret-file nowhere":       "--secret-file: open nowhere",
		"list a --secret-file " + empty:      "the file is empty",
		"list a -o xml":                      "--output",
		"list a --timeout 0s":                "--timeout",
		"list a --env-file nowhere":          "nowhere",
		"show a":                             "wrong number of arguments",
		"show a -xyz":                        "begins with '-' write --",
		"show a --fastapi x":                 "wrong number of arguments",
		"show --fastapi=":                    "identifier is empty",
		"show --fastapi -":                   "identifier is empty",
		"show --fastapi x --name web":        "--name does not go with --fastapi",
		"revoke a":                           "wrong number of arguments",
		"revoke a b --all":                   "wrong number of arguments",
		"revoke --all":                       "wrong number of arguments",
		"revoke --all --fastapi x":           "--all does not go with",
		"revoke --fastapi " + long("x", 256): "session_id",
	} {
		code, out, stderr := s.run("", strings.Fields(args)...)
		if code != exitUsage || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("madcrow session %s: exit code %d, want %q:\n%s%s", args, code, want, out, stderr)
		}
	}
	if code, out, _ := s.run(""); code != exitOK || !strings.Contains(out, "3 there is no such session") {
		t.Errorf("help: %d %s", code, out)
	}
	s.server.Stop()
	for _, args := range []string{"list a", "show a b", "revoke a --all", "revoke --fastapi x"} {
		if code, out, stderr := s.run("", append(strings.Fields(args), "--timeout", "500ms")...); code != exitFailed || out != "" || stderr == "" {
			t.Errorf("without Redis: %s: %d %s%s", args, code, out, stderr)
		}
	}
}
