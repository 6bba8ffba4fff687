package madcrow_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// others says what other callers of the shared connection see after somebody
// has sent args through Do.
func others(t *testing.T, send func(r *madcrow.Redis, args ...string) error, args ...string) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.DB = 5
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	for i := range 5 {
		k := fmt.Sprint("k", i)
		mustSet(t, r, k, "v-"+k)
	}
	err := send(r, args...)
	t.Logf("%v: %v", args, err)
	big := strings.Repeat("x", 70<<10)
	for i := range 5 {
		k := fmt.Sprint("k", i)
		msg, err := r.Do(t.Context(), get(k))
		if v, _ := msg.ToString(); err != nil || v != "v-"+k {
			t.Errorf("GET %s = %.60q, %v, %v", k, v, msg.IsNil(), err)
		}
		key := fmt.Sprint("big", i)
		msg, err = r.Do(t.Context(), set(key, big))
		v, _ := msg.ToString()
		if err != nil || v != "OK" {
			t.Errorf("large SET: %.60q %v", v, err)
		}
	}
}

func byDo(r *madcrow.Redis, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := r.Do(ctx, arbitrary(args...))
	return err
}

func byBulk(r *madcrow.Redis, args ...string) error {
	_, err := r.DoBulk(context.Background(), arbitrary(args...))
	return err
}

var stateful = [][]string{
	{"MULTI"},
	{"CLIENT", "REPLY", "SKIP"},
	{"CLIENT", "REPLY", "OFF"},
	{"SELECT", "3"},
	{"RESET"},
	{"QUIT"},
	{"HELLO", "2"},
	{"BLPOP", "nothing", "3"},
}

func TestRegress_StatefulThroughDo(t *testing.T) {
	for _, args := range stateful {
		t.Run(strings.Join(args, " "), func(t *testing.T) { others(t, byDo, args...) })
	}
}

func TestRegress_StatefulThroughDoBulk(t *testing.T) {
	for _, args := range append(stateful, []string{"MONITOR"}) {
		if args[0] == "BLPOP" {
			continue
		}
		t.Run(strings.Join(args, " "), func(t *testing.T) { others(t, byBulk, args...) })
	}
}

func TestRegress_ProcessDies(t *testing.T) {
	if cmd := os.Getenv("MADCROW_TEST_CRASH"); cmd != "" {
		_, r := server(t)
		for w := range 20 {
			k := fmt.Sprint("k", w)
			mustSet(t, r, k, k)
			go func() {
				for {
					msg, err := r.Do(context.Background(), get(k))
					if v, _ := msg.ToString(); err == nil && v != k {
						fmt.Printf("WRONG: GET %s = %.40q nil=%v\n", k, v, msg.IsNil())
					}
				}
			}()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := r.Do(ctx, arbitrary(strings.Fields(cmd)...))
		t.Log(err)
		time.Sleep(50 * time.Millisecond)
		return
	}
	for _, cmd := range []string{"MONITOR", "SYNC", "MULTI", "SELECT 3", "CLIENT REPLY SKIP"} {
		t.Run(cmd, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run", "^TestRegress_ProcessDies$", "-test.v")
			c.Env = append(os.Environ(), "MADCROW_TEST_CRASH="+cmd)
			out, err := c.CombinedOutput()
			if n := strings.Count(string(out), "WRONG:"); n > 0 {
				t.Errorf("%d wrong replies: %.120s", n, out[strings.Index(string(out), "WRONG:"):])
			}
			if i := strings.Index(string(out), "panic:"); i >= 0 {
				t.Errorf("the process died: %v: %.200s", err, out[i:])
			}
		})
	}
}
