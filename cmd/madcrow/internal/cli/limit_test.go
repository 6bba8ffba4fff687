package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// command runs the real program to its end.
func command(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Env = t.TempDir(), cleanEnv(env)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String()), problem.String()
}

// limit runs madcrow limit against a server.
func limit(t *testing.T, s *madcrowtest.Server, args string) (code int, stdout string) {
	t.Helper()
	code, stdout, stderr := command(t, []string{"REDIS_URL=redis://" + s.Addr(), "REDIS_KEY_PREFIX=app:"}, append([]string{"limit"}, strings.Fields(args)...)...)
	if code != exitOK && code != exitDenied {
		t.Errorf("madcrow limit %s: exit code %d\n%s", args, code, stderr)
	}
	return code, stdout
}

func TestLimit_IsThatOfTheHTTPRoute(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	for _, step := range []struct {
		args string
		code int
		want string
	}{
		{"peek u1 --limit 2 --window 3600", exitOK, "allowed: 2 of 2 left, all free in 0s"},
		{"check u1 --limit 2 --window 3600", exitOK, "allowed: 1 of 2 left, all free in 1h0m0s"},
		{"check u1 --limit 2 --window 1h", exitOK, "allowed: 0 of 2 left, all free in"},
		{"check u1 --limit 2 --window 1h", exitDenied, "denied: try again in "},
		{"peek u1 --limit 2 --window 1h", exitDenied, "denied: try again in "},
		{"peek u1 --limit 3 --window 1h", exitOK, "allowed: 1 of 3 left"},
		{"reset u1", exitOK, "reset"},
		{"check u1 --limit 2 --window 1h", exitOK, "allowed: 1 of 2 left"},
	} {
		if code, out := limit(t, s, step.args); code != step.code || !strings.HasPrefix(out, step.want) {
			t.Errorf("madcrow limit %s: exit code %d: %s, want %d: %s", step.args, code, out, step.code, step.want)
		}
	}
	if n := s.Do(t, "ZCARD", "app:rate_limit:u1"); n != int64(1) {
		t.Errorf("%v entries under the key of the route", n)
	}

	p := launch(t, []string{"REDIS_URL=redis://" + s.Addr(), "REDIS_KEY_PREFIX=app:"})
	testkit.Eventually(t, "it is ready", func() bool { code, _ := p.get("/readyz"); return code == 200 })
	res, err := http.Post("http://"+p.addr+"/api/v1/redis-example/rate-limit/check", "application/json", strings.NewReader(`{"key":"u1","limit":2,"window_seconds":3600}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if want := `{"key":"u1","is_limited":false,"limit":2,"window_seconds":3600,"current_count":2}`; err != nil || strings.TrimSpace(string(body)) != want {
		t.Errorf("the route says %s, %v", body, err)
	}
}

func TestLimit_OfANameIsThatOfAProgram(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.KeyPrefix, cfg.Require = "app:", true
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	for algorithm, a := range map[string]ratelimit.Algorithm{
		algorithmLog: ratelimit.SlidingLog(), algorithmSet: ratelimit.SortedSetLog(),
		algorithmWindow + " --buckets 6": ratelimit.SlidingWindow(6), algorithmGCRA + " --burst 4": ratelimit.GCRA(4),
	} {
		t.Run(algorithm, func(t *testing.T) {
			l, err := ratelimit.New(r, "api", ratelimit.Options{Rate: ratelimit.PerHour(4), FailPolicy: madcrow.FailClosed, Algorithm: a, DeniedSubjects: -1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.AllowN(t.Context(), "bob", 2); err != nil {
				t.Fatal(err)
			}
			flags := " bob --name api --limit 4 --window 1h --algorithm " + algorithm
			for _, step := range []struct {
				args string
				code int
				want string
			}{
				{"peek" + flags, exitOK, "allowed: 2 of 4 left"},
				{"check --cost 2" + flags, exitOK, "allowed: 0 of 4 left"},
				{"check" + flags, exitDenied, "denied: try again in"},
				{"check --cost 5" + flags, exitDenied, "denied: the cost is above the limit of 4"},
				{"reset bob --name api --algorithm " + strings.Fields(algorithm)[0], exitOK, "reset"},
				{"peek" + flags, exitOK, "allowed: 4 of 4 left"},
				{"block bob --name api --for 90 --algorithm " + strings.Fields(algorithm)[0], exitOK, "blocked for 1m30s"},
				{"peek" + flags, exitDenied, "denied: try again in 1m"},
			} {
				if code, out := limit(t, s, step.args); code != step.code || !strings.HasPrefix(out, step.want) {
					t.Errorf("madcrow limit %s: exit code %d: %s, want %d: %s", step.args, code, out, step.code, step.want)
				}
			}
			if d, err := l.Allow(t.Context(), "bob"); err != nil || d.Allowed {
				t.Errorf("the program does not see the block: %+v %v", d, err)
			}
		})
	}
}

func TestLimit_JSON(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	for _, step := range []struct {
		args string
		code int
		want string // seconds are rounded to tens
	}{
		{"check k --limit 1 --window 60", exitOK, `{"algorithm":"sorted-set-log","allowed":true,"key":"k","limit":1,"remaining":0,"reset_after_seconds":60,"retry_after_seconds":0,"window_seconds":60}`},
		{"check k --limit 1 --window 60", exitDenied, `{"algorithm":"sorted-set-log","allowed":false,"key":"k","limit":1,"remaining":0,"reset_after_seconds":60,"retry_after_seconds":60,"window_seconds":60}`},
		{"check k --name n --limit 1 --window 1m --cost 2", exitDenied, `{"algorithm":"sliding-log","allowed":false,"key":"k","limit":1,"name":"n","remaining":0,"reset_after_seconds":0,"retry_after_seconds":null,"window_seconds":60}`},
		{"reset k", exitOK, `{"key":"k","reset":true}`},
		{"block k --name n --for 1m --algorithm sliding-log", exitOK, `{"blocked_for_seconds":60,"key":"k","name":"n"}`},
	} {
		code, out := limit(t, s, step.args+" -o json")
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		for name, v := range got {
			if f, ok := v.(float64); ok && strings.HasSuffix(name, "after_seconds") {
				got[name] = float64(int((f+9.9)/10)) * 10
			}
		}
		text, err := json.Marshal(got)
		if code != step.code || err != nil || string(text) != step.want {
			t.Errorf("madcrow limit %s: exit code %d: %s, want %d: %s", step.args, code, text, step.code, step.want)
		}
	}
}

func TestLimit_MistakesAreUsageErrors(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	url := "REDIS_URL=redis://" + s.Addr()
	for args, want := range map[string]string{
		"":                                "",
		"chek k":                          "unknown command",
		"check":                           "needs one KEY",
		"check a b":                       "needs one KEY",
		"check k --limit 1":               "needs --window",
		"check k --window 60":             "needs --limit",
		"check k --limit x":               "--limit",
		"peek k --cost 2":                 "unknown flag",
		"reset k --limit 2":               "unknown flag",
		"block k --name n":                "needs --for",
		"block k --for 1m":                "needs --name",
		"block k --name n --for -1":       "--for",
		"check k --limit 1 --window soon": "1m30s",
		"check k --limit 1 --window 1ms":  "window: must be from",
		"check k --limit 0 --window 60":   "limit: must be from 1",
		"check k --limit 99999999999 --window 60":                 "limit: must be from 1",
		"check k --limit 1 --window 60 --algorithm gcra":          "needs --name",
		"check k --limit 1 --window 60 --cost 2":                  "needs --name",
		"check k --limit 1 --window 60 --name=":                   "--name must not be empty",
		"check k --limit 1 --window 60 --name a:b":                "name: must be",
		"check k --limit 1 --window 60 --name n --cost 0":         "cost: must be",
		"check k --limit 1 --window 60 --name n --algorithm best": "sliding-log, sorted-set-log, sliding-window or gcra",
		"check k --limit 1 --window 60 --timeout 0s":              "--timeout",
		"check k --limit 1 --window 60 -o xml":                    "--output",
		"check k --limit 1 --window 60 --env-file nowhere":        "nowhere",
	} {
		code, _, stderr := command(t, []string{url}, append([]string{"limit"}, strings.Fields(args)...)...)
		if args == "" {
			if code != exitOK {
				t.Errorf("help: exit code %d", code)
			}
		} else if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("madcrow limit %s: exit code %d, want %q:\n%s", args, code, want, stderr)
		}
	}
	code, stdout, stderr := command(t, nil, "limit", "reset", "k")
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "REDIS_HOST") {
		t.Errorf("without a Redis: exit code %d\n%s", code, stderr)
	}
	if n := s.Do(t, "DBSIZE"); n != int64(0) {
		t.Errorf("%v keys were written", n)
	}
	if code, stdout, _ := command(t, nil, "limit", "check", "--help"); code != exitOK || !strings.Contains(stdout, "3 denied") {
		t.Errorf("the help lacks the exit codes: %d\n%s", code, stdout)
	}
}

// A dead and a frozen Redis, and what is none: the command ends in time, as a failure
// and never as an answer; Ctrl-C ends it at once.
func TestLimit_EndsInTimeWithoutRedis(t *testing.T) {
	frozen := madcrowtest.StartRedis(t)
	frozen.Pause()
	t.Cleanup(frozen.Resume)
	for name, url := range map[string]string{
		"dead":   fmt.Sprintf("REDIS_URL=redis://127.0.0.1:%d", madcrowtest.FreePort(t)),
		"frozen": "REDIS_URL=redis://" + frozen.Addr(),
	} {
		begin := time.Now()
		code, stdout, stderr := command(t, []string{url}, "limit", "check", "k", "--limit", "1", "--window", "60", "--timeout", "500ms")
		if took := time.Since(begin); code != exitFailed || stdout != "" || took > 8*time.Second {
			t.Errorf("%s: exit code %d after %v: %s%s", name, code, took, stdout, stderr)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	cmd := exec.Command(binary, "limit", "check", "k", "--limit", "1", "--window", "60", "--timeout", "1h")
	cmd.Dir, cmd.Env = t.TempDir(), cleanEnv([]string{"REDIS_CONNECT_TIMEOUT=1h", "REDIS_URL=redis://" + silent.Addr().String()})
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := silent.Accept() // it waits for an answer now
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if took := time.Since(begin); took > 3*time.Second || cmd.ProcessState.ExitCode() != exitFailed || stderr.String() != "madcrow: interrupted\n" {
		t.Errorf("after Ctrl-C it took %v, exit code %d: %s", took, cmd.ProcessState.ExitCode(), &stderr)
	}
}

// Nothing is asked for that Redis holds, and what does not exist is not "blocked".
func TestLimit_FindsAlgorithmAndNumbersByWhatIsCounted(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.KeyPrefix = "app:"
	r := madcrowtest.Open(t, cfg)
	for name, a := range map[string]ratelimit.Algorithm{
		"log": ratelimit.SlidingLog(), "set": ratelimit.SortedSetLog(), "day": ratelimit.SlidingWindow(6), "bucket": ratelimit.GCRA(4),
	} {
		rate := ratelimit.PerMinute(1000)
		if name == "bucket" {
			rate = ratelimit.PerHour(100)
		}
		l, err := ratelimit.New(r, name, ratelimit.Options{Rate: rate, FailPolicy: madcrow.FailClosed, Algorithm: a})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AllowN(t.Context(), "bob", 3); err != nil {
			t.Fatal(err)
		}
	}
	run := func(code int, want, args string) {
		t.Helper()
		got, stdout, stderr := command(t, appEnv(s), append([]string{"limit"}, strings.Fields(args)...)...)
		if ok, err := regexp.MatchString("^(?s:"+want+")$", strings.TrimSpace(stdout+stderr)); got != code || !ok || err != nil {
			t.Errorf("madcrow limit %s: exit code %d: %s%s, want %d: %s", args, got, stdout, stderr, code, want)
		}
	}
	facts := func(algorithm string) string {
		return `3 counted in a window of 1m0s \(` + algorithm + `\), all free in (1m0s|1m1[0-9.]*s|5\d[0-9.]*s); give --limit to see whether a request is allowed`
	}
	for name, algorithm := range map[string]string{"log": "sliding-log", "set": "sorted-set-log", "day": "sliding-window"} {
		run(exitOK, strings.Replace(facts(algorithm), "1m1[0-9.]*s", "1m[0-9.]*s", 1), "peek bob --name "+name)
		run(exitOK, `allowed: 997 of 1000 left, all free in .*`, "peek bob --name "+name+" --limit 1000")
		run(exitDenied, `denied: try again in .*`, "peek bob --name "+name+" --limit 3")
		run(exitOK, `nothing is counted \(`+algorithm+`\)`, "peek ann --name "+name)
		run(exitMiss, `madcrow: the limit "`+name+`" has nothing counted for "ann" by `+algorithm+`, and no block`, "reset ann --name "+name)
	}
	run(exitOK, `all free in 1m[0-9.]+s \(gcra\); give --limit, --window and --burst.*`, "peek bob --name bucket")
	run(exitUsage, `madcrow: give --window: Redis does not know it.*`, "peek bob --name bucket --limit 1000")
	run(exitOK, `\{"key":"bob","name":"day","algorithm":"sliding-window","counted":3,"window_seconds":60,"reset_after_seconds":[0-9.]+,"blocked_for_seconds":0\}`, "peek bob --name day -o json")
	run(exitOK, `blocked for 1h0m0s`, "block eve --name day --for 1h")
	run(exitDenied, `denied: blocked for (1h0m0s|59m\d+s) more`, "peek eve --name day")
	run(exitOK, `reset`, "reset eve --name day")

	const there = `limits that there are: bucket, day, log, set`
	run(exitMiss, `madcrow: there is no limit "dya": did you mean "day"; `+there, "peek bob --name dya")
	run(exitMiss, `madcrow: there is no limit "apii"; `+there, "reset bob --name apii")
	run(exitMiss, `madcrow: there is no limit "apii"; `+there+`; to block under a limit that has counted nothing yet give --algorithm`, "block bob --name apii --for 24h")
	run(exitMiss, `madcrow: nothing is counted for "no-one" by the HTTP route; give --name; `+there, "reset no-one")
	run(exitUsage, `madcrow: --algorithm: "gcar" is not .*did you mean "gcra"\?.*`, "peek bob --name bucket --algorithm gcar")
	s.Do(t, "SET", "app:m1:limit:day:g:{bob}", "1:0:1", "EX", "100")
	run(exitUsage, `madcrow: the limit "day" counts by several algorithms: give --algorithm sliding-window or --algorithm gcra.*`, "peek bob --name day")
}
