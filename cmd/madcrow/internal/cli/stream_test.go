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
	run(exitOK, `length   1\nwaiting  1\npending  0\nworkers  0\ndead     5\nlost     0`, "info", "mails", "--group", "senders")
	run(exitOK, `{"name":"mails","group":"senders","length":1,"waiting":1,"pending":0,"workers":0,"dead":5,"lost":0}`, "info", "mails", "--group", "senders", "-o", "json")
	run(exitOK, `length   0\nwaiting  0\npending  0\nworkers  0\ndead     0\nlost     0`, "info", "nothing", "--group", "senders")

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
		if _, stderr = run(exitFailed, `(replayed: 0)?`, append(args, "--group", "others")...); !strings.Contains(stderr, "no such group") {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	run(exitOK, `replayed: 3`, "replay", "mails", "--group", "senders", "--all")
	run(exitOK, `no dead letters`, "dead", "mails", "--group", "senders")
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
