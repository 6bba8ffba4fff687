package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

type mail struct {
	N    int
	Text string
}

// deadMails makes n dead letters of a program, and one message that waits.
func deadMails(t *testing.T, s *madcrowtest.Server, n int) *stream.Stream[mail] {
	t.Helper()
	cfg := s.Config()
	cfg.KeyPrefix = "app:"
	mails, err := stream.New(madcrowtest.Open(t, cfg), "mails", stream.Options[mail]{MaxLen: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := mails.Publish(t.Context(), mail{i, "Zoë\x1b\n" + strings.Repeat("x", 300*(i%2))}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- mails.Work(ctx, "senders", func(context.Context, stream.Delivery[mail]) error { return errors.New("no such\nmailbox") },
			stream.WorkOptions{Workers: 1, MaxDeliveries: 1})
	}()
	testkit.Eventually(t, "the letters are dead", func() bool { lag, err := mails.Lag(t.Context(), "senders"); return err == nil && lag.Dead == int64(n) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := mails.Publish(t.Context(), mail{N: 1000}); err != nil {
		t.Fatal(err)
	}
	return mails
}

func TestStream_LooksAtDeadLettersAndReplaysThem(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	mails := deadMails(t, s, 5)
	run := func(code int, want string, args ...string) (stdout, stderr string) {
		t.Helper()
		got, stdout, stderr := command(t, appEnv(s), append([]string{"stream"}, args...)...)
		if ok, err := regexp.MatchString("(?s)^"+want+"$", stdout); got != code || !ok || err != nil {
			t.Errorf("madcrow stream %s: exit code %d: %s, want %d: %s\n%s", args, got, stdout, code, want, stderr)
		}
		return stdout, stderr
	}
	run(exitOK, `length   1\nwaiting  1\npending  0\nworkers  0\ndead     5\nlost     0\ndelayed  0`, "info", "mails", "--group", "senders")
	run(exitOK, `{"name":"mails","group":"senders","length":1,"waiting":1,"pending":0,"workers":0,"dead":5,"lost":0,"delayed":0}`, "info", "mails", "--group", "senders", "-o", "json")
	run(exitOK, `STREAM +MESSAGES +GROUP.*\nmails +1 +senders +1 +0 +0 +5 +0`, "info", "mails")
	for _, args := range [][]string{{"info", "mials", "--group", "senders"}, {"info", "mials"}, {"dead", "mials"}, {"purge", "mials", "--all"}, {"delayed", "mials"}, {"add", "mials", "x"}} {
		if _, stderr := run(exitMiss, ``, args...); stderr != "madcrow: there is no stream \"mials\": did you mean \"mails\"; streams that there are: mails\n" {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	if _, stderr := run(exitMiss, ``, "info", "mails", "--group", "sender"); stderr != "madcrow: the stream \"mails\" has no such group \"sender\": did you mean \"senders\"; groups that there are: senders\n" {
		t.Errorf("%s", stderr)
	}

	id := `\d{13}-\d+`
	letter := id + `  was ` + id + `, deliveries: 1\n  reason   no such\\nmailbox\n  message  \{"N":%d,"Text":"Zoë\\u001b\\n%s`
	out, stderr := run(exitOK, fmt.Sprintf(letter, 0, `"}\n`)+fmt.Sprintf(letter, 1, `x{200,260}… \(329 bytes\)`), "dead", "mails", "--group", "senders", "-n", "2")
	first, _, _ := strings.Cut(out, " ")
	second := regexp.MustCompile(id+`  was`).FindAllString(out, -1)[1]
	second = strings.TrimSuffix(second, "  was")
	if !strings.Contains(stderr, "--after "+second) {
		t.Errorf("%s", stderr)
	}
	run(exitOK, `{"id":"`+id+`","original":"`+id+`","deliveries":1,"reason":"no such\\nmailbox","message":"{\\"N\\":2,\\"Text\\":\\"Zoë\\\\u001b\\\\n\\"}","message_bytes":29,"truncated":false}\n.*`,
		"dead", "mails", "--group", "senders", "-o", "json", "--after", second)

	run(exitOK, `replayed: 1`, "replay", "mails", first, "--group", "senders")
	_, stderr = run(exitMiss, `{"group":"senders","name":"mails","replayed":1}`, "replay", "mails", first, second, "--group", "senders", "-o", "json")
	if !strings.Contains(stderr, "no dead letter "+first) {
		t.Errorf("%s", stderr)
	}
	run(exitMiss, `purged: 0`, "purge", "mails", first, "--group", "senders")
	for _, args := range [][]string{{"dead", "mails"}, {"replay", "mails", first}, {"replay", "mails", "--all"}, {"purge", "mails", first}, {"purge", "mails", "--all"}} {
		if _, stderr = run(exitMiss, `(replayed: 0)?`, append(args, "--group", "others")...); !strings.Contains(stderr, "no such group") {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	run(exitOK, `replayed: 3`, "replay", "mails", "--group", "senders", "--all")
	run(exitOK, `no dead letters`, "dead", "mails") // the only group
	run(exitOK, `purged: 0`, "purge", "mails", "--group", "senders", "--all")
	if lag, err := mails.Lag(t.Context(), "senders"); err != nil || lag.Waiting != 6 || lag.Dead != 0 {
		t.Errorf("%+v %v", lag, err)
	}
	got := map[int]bool{}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := mails.Work(ctx, "senders", func(_ context.Context, d stream.Delivery[mail]) error {
		got[d.Message.N] = true
		if len(got) == 6 {
			cancel()
		}
		return nil
	}, stream.WorkOptions{Workers: 1}); err != nil || len(got) != 6 {
		t.Errorf("%v %v", got, err)
	}
}

// A program may keep more than the default: a replay must not cut its stream.
func TestStream_ReplayCutsNothing(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	deadMails(t, s, 1)
	s.Do(t, "CONFIG", "SET", "slowlog-log-slower-than", "0")
	code, out, stderr := command(t, appEnv(s), "stream", "replay", "mails", "--group", "senders", "--all")
	if code != exitOK || out != "replayed: 1" {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
	if log := fmt.Sprint(s.Do(t, "SLOWLOG", "GET", "-1")); !strings.Contains(log, " 9223372036854775807]") {
		t.Errorf("the script was called with another bound:\n%s", log)
	}
}

func TestStream_DelayedMessagesAreMadeShownAndTakenBack(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	run := func(code int, want string, args ...string) string {
		t.Helper()
		got, stdout, stderr := command(t, appEnv(s), append([]string{"stream"}, args...)...)
		if ok, err := regexp.MatchString("(?s)^"+want+"$", stdout); got != code || !ok || err != nil {
			t.Errorf("madcrow stream %s: exit code %d: %s, want %d: %s\n%s", args, got, stdout, code, want, stderr)
		}
		return stdout
	}
	id := `\d{13}-\d{8}-[A-Z2-7]{12}`
	run(exitMiss, ``, "add", "mails", "x", "--in", "1h")
	first := run(exitOK, id, "add", "mails", "in an hour", "--in", "1h", "--create")
	run(exitOK, `\{"delayed":true,"id":"`+id+`","name":"mails"\}`, "add", "mails", "soon\x1b", "--at", time.Now().Add(time.Minute).Format(time.RFC3339), "-o", "json")
	run(exitOK, `\d{13}-0`, "add", "mails", "now")
	run(exitOK, id+`  due \S+Z\n  message  soon\\x1b\n`+first+`  due \S+Z\n  message  in an hour`, "delayed", "mails")
	run(exitOK, `.*"id":"`+first+`","due":"[^"]+","message":"in","message_bytes":10,"truncated":true\}`, "delayed", "mails", "-o", "json", "--bytes", "2")
	run(exitOK, `.*mails +1 +- .*\n\ndelayed  2`, "info", "mails")
	run(exitOK, `canceled`, "cancel", "mails", first)
	run(exitMiss, ``, "cancel", "mails", first)
	run(exitUsage, ``, "cancel", "mails", "1-2")
	run(exitUsage, ``, "add", "mails", "x", "--in", "1s", "--at", "2030-01-02T08:00:00Z")
	run(exitUsage, ``, "add", "mails", "x", "--at", "soon")
	run(exitUsage, ``, "add", "mails", "x", "--in", "-1s")
	run(exitOK, id+`  due .*`, "delayed", "mails")
}

func TestStream_OneOfSeveralGroupsMustBeNamed(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	s.Do(t, "XGROUP", "CREATE", "app:m1:stream:{mails}:log", "senders", "0", "MKSTREAM")
	s.Do(t, "XGROUP", "CREATE", "app:m1:stream:{mails}:log", "audit", "0")
	code, stdout, stderr := command(t, appEnv(s), "stream", "dead", "mails")
	if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "madcrow: the stream \"mails\" has several groups: give --group audit or --group senders\nRun 'madcrow stream dead --help'") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
