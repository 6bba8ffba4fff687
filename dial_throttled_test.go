//go:build unix

package madcrow_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// throttledEnv names the Redis of the process that TestDial_ThrottledProcess
// starts, and makes it that process.
const throttledEnv = "MADCROW_TEST_THROTTLED"

// A process that gets a fifth of its time, far from its Redis and with TLS,
// was without Redis for a second again and again, and half of its calls failed,
// when its connections were killed: its dials were given up too early.
func TestDial_ThrottledProcessHasNoOutage(t *testing.T) {
	if text := os.Getenv(throttledEnv); text != "" {
		beThrottled(t, text)
		return
	}
	s := madcrowtest.StartRedis(t, madcrowtest.WithTLS())
	p := madcrowtest.StartProxy(t, s.Addr())
	p.SetDelay(5 * time.Millisecond)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDial_ThrottledProcessHasNoOutage$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", throttledEnv, p.Port(), s.Config().TLS.CAFile))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "connected") {
	}
	every := testkit.Length(time.Second, 250*time.Millisecond)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			_ = cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(80 * time.Millisecond)
			_ = cmd.Process.Signal(syscall.SIGCONT)
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	for range int(testkit.Length(2*time.Second, 10*time.Second) / every) {
		time.Sleep(every)
		s.Do(t, "CLIENT", "KILL", "TYPE", "normal")
	}
	time.Sleep(time.Second)
	close(stop)
	<-done
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Process.Signal(syscall.SIGCONT)
	var got struct {
		Calls, Failed int
		Longest       time.Duration
		Last          string
	}
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "RESULT "); ok {
			_ = json.Unmarshal([]byte(text), &got)
		}
	}
	_ = cmd.Wait()
	t.Logf("%+v", got)
	if got.Calls == 0 {
		t.Fatal("the process said nothing")
	}
	// With the race detector, on a busy machine, its fifth is next to nothing.
	if testkit.Chaos && got.Failed > got.Calls/4 || got.Longest > 3*time.Second {
		t.Errorf("%d of %d calls failed: %s", got.Failed, got.Calls, got.Last)
	}
}

// beThrottled calls Redis until it is interrupted, and tells of the longest
// time without a success in which calls failed.
func beThrottled(t *testing.T, text string) {
	cfg := madcrow.Config{Host: "127.0.0.1"}
	cfg.TLS.Enabled = true
	if _, err := fmt.Sscan(text, &cfg.Port, &cfg.TLS.CAFile); err != nil {
		t.Fatal(err)
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 10*time.Second)
	fmt.Println("connected")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	calls, failed, last := 0, 0, ""
	var longest time.Duration
	good, bad := time.Now(), false
	for {
		select {
		case <-interrupted:
			text, _ := json.Marshal(map[string]any{"Calls": calls, "Failed": failed, "Longest": longest, "Last": last})
			fmt.Println("RESULT " + string(text))
			return
		default:
		}
		err := r.Do(ctx, get(r, "a")).Err()
		calls++
		if err != nil {
			failed++
			bad, last = true, err.Error()
		} else {
			if bad {
				longest = max(longest, time.Since(good))
			}
			good, bad = time.Now(), false
		}
		time.Sleep(2 * time.Millisecond)
	}
}
