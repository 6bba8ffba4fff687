package madcrow_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// stateful are commands that change the connection for all who share it.
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

// others sends args, which must be refused or time out, and says what other
// callers of the shared connection see afterwards.
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
	if err == nil {
		t.Errorf("%v was sent", args)
	}
	if args[0] != "BLPOP" && errors.Is(err, madcrow.ErrTimeout) {
		t.Errorf("%v was not refused: %v", args, err)
	}
	big := strings.Repeat("x", 70<<10)
	for i := range 5 {
		k := fmt.Sprint("k", i)
		msg, err := r.Do(t.Context(), get(r, k)).Message()
		if v, _ := msg.ToString(); err != nil || v != "v-"+k {
			t.Errorf("GET %s = %.60q, %v, %v", k, v, msg.IsNil(), err)
		}
		key := fmt.Sprint("big", i)
		msg, err = r.Do(t.Context(), set(r, key, big)).Message()
		v, _ := msg.ToString()
		if err != nil || v != "OK" {
			t.Errorf("large SET: %.60q %v", v, err)
		}
	}
}

func byDo(r *madcrow.Redis, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := r.Do(ctx, arbitrary(r, args...)).Err()
	return err
}

func byBulk(r *madcrow.Redis, args ...string) error {
	err := r.Do(context.Background(), arbitrary(r, args...), madcrow.Dedicated).Err()
	return err
}

// Such commands were sent on the connection that all callers share.
func TestDo_RefusesWhatChangesTheSharedConnection(t *testing.T) {
	for _, args := range stateful {
		t.Run(strings.Join(args, " "), func(t *testing.T) { others(t, byDo, args...) })
	}
}

// Such commands were sent on a dedicated connection, which the next caller got
// as it was left.
func TestDoBulk_RefusesWhatChangesAConnection(t *testing.T) {
	for _, args := range append(stateful, []string{"MONITOR"}) {
		if args[0] == "BLPOP" {
			continue
		}
		t.Run(strings.Join(args, " "), func(t *testing.T) { others(t, byBulk, args...) })
	}
}

// However it is spelt, a command that changes the connection is refused.
func TestDo_RefusesThemInAnySpelling(t *testing.T) {
	s, r := server(t)
	s.Do(t, "SET", "k", "v")
	for _, words := range [][]string{{"Select", "1"}, {"sElect", "1"}, {"Multi"}, {"Watch", "k"}, {"Auth", "x"}, {"MoniTor"}} {
		build := func(b builder) command { return b.Arbitrary(words...).Build() }
		if err := r.Do(t.Context(), build(r.B())).Err(); err == nil {
			t.Errorf("%v was sent", words)
		}
		if stream := r.Client().DoStream(t.Context(), build(r.Client().B())); stream.Error() == nil {
			t.Errorf("%v was sent, as a stream", words)
		}
	}
	if msg, err := r.Do(t.Context(), get(r, "k")).Message(); err != nil {
		t.Error(err)
	} else if v, err := msg.ToString(); err != nil || v != "v" {
		t.Errorf("%q %v", v, err)
	}
	large := strings.Repeat("x", r.Config().MaxValueSize+1)
	if stream := r.Client().DoStream(t.Context(), r.Client().B().Set().Key("k").Value(large).Build()); !errors.Is(stream.Error(), madcrow.ErrTooLarge) {
		t.Errorf("too large: %v", stream.Error())
	}
}

// Its first push met a reader without a waiting call, and ended the process.
func TestDo_RefusesMonitorOnAQuietConnection(t *testing.T) {
	s, r := server(t)
	err := r.Do(t.Context(), arbitrary(r, "MONITOR")).Err()
	if err == nil || errors.Is(err, madcrow.ErrTimeout) {
		t.Errorf("MONITOR was not refused: %v", err)
	}
	s.Do(t, "PING")
	time.Sleep(50 * time.Millisecond)
	if msg, err := r.Do(t.Context(), get(r, "a")).Message(); err != nil || !msg.IsNil() {
		t.Errorf("a call after it: %v", err)
	}
}

// MULTI stayed on: commands of other callers were queued.
func TestDoMulti_RefusesMultiWithoutExec(t *testing.T) {
	_, r := server(t)
	_, _ = r.DoMulti(t.Context(), r.B().Multi().Build(), r.B().Set().Key("a").Value("1").Build())
	msg, err := r.Do(t.Context(), get(r, "b")).Message()
	if v, _ := msg.ToString(); v == "QUEUED" {
		t.Errorf("GET gave %q, %v", v, err)
	}
}

// A WATCH on the shared connection failed a transaction of another caller, on
// other keys.
func TestDo_RefusesWatch(t *testing.T) {
	s, r := server(t)
	_ = r.Do(t.Context(), arbitrary(r, "WATCH", "a")).Err()
	s.Do(t, "SET", "a", "2")
	res, _ := r.DoMulti(t.Context(), r.B().Multi().Build(), r.B().Set().Key("b").Value("1").Build(), r.B().Exec().Build())
	if res[2].IsNil() {
		t.Errorf("a transaction of somebody else, on other keys, was not applied")
	}
}

// Pushes that no call waited for ended the process, or became the replies of
// other calls.
func TestDo_CommandsThatPushEndNoProcess(t *testing.T) {
	if cmd := os.Getenv("MADCROW_TEST_CRASH"); cmd != "" {
		_, r := server(t)
		for w := range 20 {
			k := fmt.Sprint("k", w)
			mustSet(t, r, k, k)
			go func() {
				for {
					msg, err := r.Do(context.Background(), get(r, k)).Message()
					if v, _ := msg.ToString(); err == nil && v != k {
						fmt.Printf("WRONG: GET %s = %.40q nil=%v\n", k, v, msg.IsNil())
					}
				}
			}()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		err := r.Do(ctx, arbitrary(r, strings.Fields(cmd)...)).Err()
		if err == nil {
			fmt.Printf("WRONG: %s was sent\n", cmd)
		}
		time.Sleep(50 * time.Millisecond)
		return
	}
	for _, cmd := range []string{"MONITOR", "SYNC", "MULTI", "SELECT 3", "CLIENT REPLY SKIP"} {
		t.Run(cmd, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run", "^TestDo_CommandsThatPushEndNoProcess$", "-test.v")
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
