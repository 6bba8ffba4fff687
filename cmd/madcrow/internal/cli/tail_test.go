package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// tailing is a running madcrow tail.
type tailing struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout <-chan string
	stderr <-chan string
}

func appEnv(s *madcrowtest.Server) []string {
	return []string{"REDIS_URL=redis://" + s.Addr(), "REDIS_KEY_PREFIX=app:"}
}

func startTail(t *testing.T, s *madcrowtest.Server, args ...string) *tailing {
	t.Helper()
	return startTailIn(t, appEnv(s), args...)
}

func startTailIn(t *testing.T, env []string, args ...string) *tailing {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"tail", "--timeout", "15s"}, args...)...)
	cmd.Dir, cmd.Env = t.TempDir(), cleanEnv(env)
	lines := func(r io.Reader, err error) <-chan string {
		if err != nil {
			t.Fatal(err)
		}
		out := make(chan string, 10000)
		go func() {
			defer close(out)
			for lines := bufio.NewScanner(r); lines.Scan(); {
				out <- lines.Text()
			}
		}()
		return out
	}
	tl := &tailing{t: t, cmd: cmd, stdout: lines(cmd.StdoutPipe()), stderr: lines(cmd.StderrPipe())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return tl
}

func (tl *tailing) want(lines <-chan string, beginning string) string {
	tl.t.Helper()
	select {
	case line, ok := <-lines:
		if !ok || !strings.HasPrefix(line, beginning) {
			tl.t.Fatalf("got %q, want %q (open: %v)", line, beginning, ok)
		}
		return line
	case <-time.After(20 * time.Second):
		tl.t.Fatalf("no %q within 20 s", beginning)
		return ""
	}
}

// wantExit ends it by a signal, unless that is 0, and checks the exit code.
func (tl *tailing) wantExit(sig syscall.Signal, code int) {
	tl.t.Helper()
	begin := time.Now()
	if sig != 0 {
		if err := tl.cmd.Process.Signal(sig); err != nil {
			tl.t.Fatal(err)
		}
	}
	for range tl.stdout { // to the end
	}
	for line := range tl.stderr {
		tl.t.Errorf("at the end: %s", line)
	}
	_ = tl.cmd.Wait()
	if got, took := tl.cmd.ProcessState.ExitCode(), time.Since(begin); got != code || took > 5*time.Second {
		tl.t.Errorf("exit code %d after %v, want %d", got, took, code)
	}
}

func TestPublish_IsThatOfTheHTTPRoute(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(binary, append([]string{"publish"}, args...)...)
		cmd.Dir, cmd.Env, cmd.Stdin = t.TempDir(), cleanEnv(appEnv(s)), strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	refused := exec.Command(binary, "publish", "__sentinel__:hello", "x")
	refused.Dir, refused.Env = t.TempDir(), cleanEnv(appEnv(s))
	if out, _ := refused.CombinedOutput(); refused.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "must not begin with __, which is reserved") {
		t.Errorf("exit code %d: %s", refused.ProcessState.ExitCode(), out)
	}
	if out := run("", "news", "x"); out != "0 receivers" {
		t.Error(out)
	}
	tl := startTail(t, s, "news")
	tl.want(tl.stderr, "madcrow: listening to news")
	other := startTail(t, s, "news", "-o", "json")
	other.want(other.stderr, "madcrow: listening to news")
	if out := run("", "news", "hello"); out != "2 receivers" {
		t.Error(out)
	}
	if out := run("two\nlines\n", "news", "-", "-o", "json"); out != `{"channel":"news","receivers":2}` {
		t.Error(out)
	}
	if out := run("\xff\x00", "news", "-"); out != "2 receivers" {
		t.Error(out)
	}
	for _, want := range []string{"hello", `two\nlines\n`, `\xff\x00`} {
		if line := tl.want(tl.stdout, ""); line != want {
			t.Errorf("got %q, want %q", line, want)
		}
	}
	for _, want := range []string{`"message":"hello"`, `"message":"two\nlines\n"`, `"message_base64":"/wA="`} {
		if line := other.want(other.stdout, `{"channel":"news",`+want+`,"received":"`); !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	other.wantExit(syscall.SIGTERM, exitOK)
	if out := run("", "news", "last"); out != "1 receiver" {
		t.Error(out)
	}
	tl.want(tl.stdout, "last")
	tl.wantExit(syscall.SIGINT, exitOK)
}

func TestTail_PatternsTypedMessagesAndCount(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.KeyPrefix, cfg.Require = "app:", true
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	bus, err := pubsub.New(r, pubsub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tl := startTail(t, s, "--pattern", "order.*", "evil*", "--count", "4", "-o", "json")
	tl.want(tl.stderr, "madcrow: listening to order.*, evil*")
	text := startTail(t, s, "evil", "other")
	text.want(text.stderr, "madcrow: listening to evil, other")
	topic, err := pubsub.NewTopic(bus, "order.paid", pubsub.TopicOptions[map[string]int]{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := topic.Publish(t.Context(), map[string]int{"id": i}); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Channel, Message, Publisher string
			Number                      int
			Sent                        time.Time
		}
		line := tl.want(tl.stdout, "{")
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.Channel != "order.paid" || got.Message != fmt.Sprintf(`{"id":%d}`, i) || got.Number != i+1 || got.Publisher == "" || time.Since(got.Sent) > time.Hour {
			t.Errorf("%s: %+v %v", line, got, err)
		}
	}
	s.Do(t, "PUBLISH", "app:evil", "\x1b[2Jtwo\nlines\u202e\u00ad")
	tl.want(tl.stdout, `{"channel":"evil","message":"\u001b[2Jtwo\nlines`)
	tl.wantExit(0, exitOK)
	text.want(text.stdout, "evil\t"+`\x1b[2Jtwo\nlines\u202e\u00ad`)
	text.wantExit(syscall.SIGINT, exitOK)
}

// It said that it listens, and showed nothing while messages came.
func TestTail_HearsTopicsWithAHistory(t *testing.T) {
	for name, start := range map[string]func() (madcrow.Config, string){
		"standalone": func() (madcrow.Config, string) {
			s := madcrowtest.StartRedis(t)
			return s.Config(), "redis://" + s.Addr()
		},
		"cluster": func() (madcrow.Config, string) {
			cfg := madcrowtest.StartCluster(t).Config()
			return cfg, "redis-cluster://" + strings.Join(cfg.Cluster.Addresses, ",")
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, url := start()
			cfg.KeyPrefix, cfg.CommandTimeout = "app:", 5*time.Second
			bus, err := pubsub.New(madcrowtest.Open(t, cfg), pubsub.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = bus.Close(context.Background()) })
			publish := func(topic, text string) {
				t.Helper()
				to, err := pubsub.NewRecoverable(bus, topic, pubsub.RecoverableOptions[string]{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := to.Publish(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}
			for _, text := range []string{"1", "2", "3"} {
				publish("news", text)
			}
			env := []string{"REDIS_URL=" + url, "REDIS_KEY_PREFIX=app:", "REDIS_COMMAND_TIMEOUT=5s"}
			all := startTailIn(t, env, "news", "--history", "2", "--count", "3")
			now := startTailIn(t, env, "news", "later", "-o", "json")
			matching := startTailIn(t, env, "--pattern", "ne*", "--history", "100")
			all.want(all.stderr, "madcrow: news is a topic with a history of 3 messages")
			all.want(all.stderr, "madcrow: listening to news")
			all.want(all.stdout, "2")
			all.want(all.stdout, "3")
			now.want(now.stderr, "madcrow: news is a topic with a history of 3 messages")
			now.want(now.stderr, "madcrow: listening to news, later")
			matching.want(matching.stderr, "madcrow: news is a topic with a history of 3 messages")
			matching.want(matching.stderr, "madcrow: listening to ne*")
			for _, text := range []string{"1", "2", "3"} {
				matching.want(matching.stdout, "news\t"+text)
			}
			publish("news", "4")
			all.want(all.stdout, "4")
			all.wantExit(0, exitOK)
			now.want(now.stdout, `{"channel":"news","message":"4","received":"`)
			matching.want(matching.stdout, "news\t4")
			publish("later", "first")
			now.want(now.stdout, `{"channel":"later","message":"first"`)
			publish("later", "second")
			now.want(now.stdout, `{"channel":"later","message":"second"`)
			now.wantExit(syscall.SIGINT, exitOK)
			matching.wantExit(syscall.SIGTERM, exitOK)

			wrong := startTailIn(t, env, "newz", "--history", "2")
			wrong.want(wrong.stderr, `madcrow: there is no topic with a history "newz": did you mean "news"; topics that there are: later, news`)
			wrong.want(wrong.stderr, "madcrow: listening to newz")
			wrong.wantExit(syscall.SIGINT, exitOK)
		})
	}
}

func TestGlobMatches_AsRedis(t *testing.T) {
	for pattern, names := range map[string]map[string]bool{
		"*":         {"": true, "a/b": true},
		"order.*":   {"order.paid": true, "orderxpaid": false, "order": false},
		"h?llo":     {"hello": true, "hllo": false},
		"h[ae]llo":  {"hallo": true, "hillo": false},
		"h[^e]llo":  {"hallo": true, "hello": false},
		`a\*b`:      {"a*b": true, "axb": false},
		"a[":        {"a[": false},
		"(x)+|{1}$": {"(x)+|{1}$": true, "x": false},
	} {
		for name, want := range names {
			if got := globMatches(pattern, name); got != want {
				t.Errorf("%s and %q: %v", pattern, name, got)
			}
		}
	}
}

func TestTail_GoesOnAfterARestartOfRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	tl := startTail(t, s, "a", "b")
	tl.want(tl.stderr, "madcrow: listening to a, b")
	s.Kill()
	tl.want(tl.stderr, "madcrow: interrupted")
	time.Sleep(200 * time.Millisecond)
	s.Start()
	tl.want(tl.stderr, "madcrow: listening again: no message came from ")
	s.Do(t, "PUBLISH", "app:b", "again")
	tl.want(tl.stdout, "b\tagain")
	s.Kill() // Ctrl-C ends it then, too
	tl.want(tl.stderr, "madcrow: interrupted")
	tl.wantExit(syscall.SIGINT, exitOK)
}

func TestMessages_MistakesAreUsageErrors(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	for args, want := range map[string]string{
		"publish":                             "wrong number",
		"publish a":                           "wrong number",
		"publish a b c":                       "wrong number",
		"publish a b -o xml":                  "--output",
		"tail":                                "wrong number",
		"tail --pattern":                      "wrong number",
		"tail a --count -1":                   "--count",
		"tail a --timeout 0s":                 "--timeout",
		"tail " + strings.Repeat("x", 1025):   "channel: must have",
		"stream inf a":                        "unknown command",
		"stream info a --group=":              "--group must not be empty",
		"stream info":                         "wrong number",
		"stream info a b --group g":           "wrong number",
		"stream dead a --group g -n 0":        "--count",
		"stream dead a --group g --after x":   "--after",
		"stream dead a --group g --bytes -1":  "--bytes",
		"stream replay a --group g":           "or --all",
		"stream replay a 1-0 --group g --all": "or --all",
		"stream replay a 1 --group g":         "no id",
		"stream purge a --group g":            "or --all",
	} {
		code, stdout, stderr := command(t, appEnv(s), strings.Fields(args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("madcrow %s: exit code %d, want %q:\n%s%s", args, code, want, stdout, stderr)
		}
	}
	for _, args := range []string{"publish --help", "tail --help", "stream --help", "stream dead --help"} {
		if code, stdout, _ := command(t, nil, strings.Fields(args)...); code != exitOK || !strings.Contains(stdout, "Exit codes:") || !strings.Contains(stdout, "Examples:") {
			t.Errorf("madcrow %s: exit code %d\n%s", args, code, stdout)
		}
	}
	if code, _, stderr := command(t, nil, "tail", "a"); code != exitUsage || !strings.Contains(stderr, "REDIS_HOST") {
		t.Errorf("without a Redis: exit code %d\n%s", code, stderr)
	}
	dead := fmt.Sprintf("REDIS_URL=redis://127.0.0.1:%d", madcrowtest.FreePort(t))
	for _, args := range []string{"publish a b --timeout 300ms", "tail a --timeout 300ms", "stream info a --group g --timeout 300ms"} {
		if code, _, stderr := command(t, []string{dead}, strings.Fields(args)...); code != exitFailed || !strings.Contains(stderr, "unavailable") {
			t.Errorf("madcrow %s without Redis: exit code %d\n%s", args, code, stderr)
		}
	}
}

func TestOneLine_ShowsWhatWouldSteerATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"Zoë 日本 🎉":          "Zoë 日本 🎉",
		"a\tb\r\n":          `a\tb\r\n`,
		"\x1b]0;title\a":    `\x1b]0;title\a`,
		"\u009b1m":          `\u009b1m`,
		"a\xffb\xc3":        `a\xffb\xc3`,
		"\ufffd":            "\ufffd",
		"x\u2028y\u200ez":   `x\u2028y\u200ez`,
		`it's a "quote" \n`: `it's a "quote" \n`,
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, tc := range []struct {
		text string
		most int
		want string
	}{{"abc", 0, "abc"}, {"abc", 3, "abc"}, {"abc", 2, "ab"}, {"aë", 2, "a"}, {"日本", 1, ""}} {
		if got, cut := cutText(tc.text, tc.most); got != tc.want || cut != (got != tc.text) {
			t.Errorf("%+v: %q %v", tc, got, cut)
		}
	}
}

// Its output is not read: the second signal ends it all the same.
func TestTail_TheSecondSignalEndsItWhileItsOutputIsBlocked(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command(binary, "tail", "--timeout", "15s", "c")
	cmd.Dir, cmd.Env, cmd.Stdout = t.TempDir(), cleanEnv(appEnv(s)), w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill(); <-ended }()
	channel := ""
	testkit.Eventually(t, "it is subscribed", func() bool {
		list, _ := s.Do(t, "PUBSUB", "CHANNELS", "*c").([]any)
		for _, c := range list {
			channel, _ = c.(string)
		}
		return channel != ""
	})
	for range 300 {
		s.Do(t, "PUBLISH", channel, strings.Repeat("x", 1024)) // more than a pipe holds
	}
	for range 30 {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
	t.Error("it goes on")
}
