package cache_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// The tests below start the test's own binary as real processes, which are given
// by environment what to do.

const childEnv = "MADCROW_CACHE_CHILD"

// childPlan is what a child does: Callers goroutines that call GetOrLoad of one
// key, once, or for a while.
type childPlan struct {
	Port    int
	Prefix  string
	Callers int
	For     time.Duration // 0: once
	Takes   time.Duration // a load; negative: for ever
	Fails   bool
	Options childOptions
}

// childOptions are those of the child's cache that the tests set: functions cannot be
// handed to another process.
type childOptions struct {
	NearCacheBytes                 int64
	LeaseTTL, Backoff, ReadTimeout time.Duration
}

// childReport is what came of it.
type childReport struct {
	Values map[string]int // how often each was returned
	Errors map[string]int
	Calls  int
	Most   time.Duration // the longest call
}

func init() {
	if plan := os.Getenv(childEnv); plan != "" {
		runChild(plan)
		os.Exit(0)
	}
}

func runChild(text string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	var plan childPlan
	fail(json.Unmarshal([]byte(text), &plan))
	ctx := context.Background()
	r, err := madcrow.Open(ctx, madcrow.Config{
		Host: "127.0.0.1", Port: plan.Port, KeyPrefix: plan.Prefix, Require: true, CommandTimeout: 10 * time.Second,
	})
	fail(err)
	opt := plan.Options
	c, err := cache.New(r, "c", cache.Options[string]{
		NearCacheBytes: opt.NearCacheBytes, LeaseTTL: opt.LeaseTTL, Backoff: opt.Backoff, ReadTimeout: opt.ReadTimeout,
	})
	fail(err)
	_, _, err = c.Get(ctx, "warm")
	fail(err)
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	_, err = in.ReadString('\n')
	fail(err)
	load := func(context.Context) (string, error) {
		m, err := r.Do(ctx, r.B().Incr().Key(plan.Prefix+"loads").Build()).Message()
		if err != nil {
			return "", err
		}
		n, _ := m.AsInt64()
		fmt.Println("loading")
		if plan.Takes < 0 {
			select {}
		}
		time.Sleep(plan.Takes)
		if plan.Fails {
			return "", errors.New("the source failed")
		}
		return fmt.Sprintf("load %d", n), nil
	}
	rep := childReport{Values: map[string]int{}, Errors: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for range plan.Callers {
		wg.Go(func() {
			for {
				start := time.Now()
				v, err := c.GetOrLoad(ctx, "k", load)
				took := time.Since(start)
				mu.Lock()
				rep.Calls++
				rep.Most = max(rep.Most, took)
				if err != nil {
					rep.Errors[err.Error()]++
				} else {
					rep.Values[v]++
				}
				mu.Unlock()
				if time.Since(began) >= plan.For {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	out, err := json.Marshal(rep)
	fail(err)
	fmt.Println("report", string(out))
}

// child is a process that was started.
type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func startChild(t testing.TB, plan childPlan) *child {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, in: in, lines: make(chan string, 1000)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
		close(c.lines)
	}()
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill() // this one process, which we have started
	_ = c.cmd.Wait()
}

// await returns what stands behind a word that the child prints.
func (c *child) await(word string) string {
	c.t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-c.lines:
			if !ok || strings.HasPrefix(line, "error") {
				c.t.Fatalf("the child ended before %q: %s", word, line)
			}
			if rest, found := strings.CutPrefix(line, word); found {
				return strings.TrimSpace(rest)
			}
		case <-limit:
			c.t.Fatalf("no %q", word)
		}
	}
}

func (c *child) begin() {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "go\n"); err != nil {
		c.t.Fatal(err)
	}
}

// reports starts children, lets them go at once, and returns what came of it
// all.
func reports(t testing.TB, children []*child, meanwhile func()) childReport {
	t.Helper()
	for _, c := range children {
		c.await("ready")
	}
	for _, c := range children {
		c.begin()
	}
	if meanwhile != nil {
		meanwhile()
	}
	sum := childReport{Values: map[string]int{}, Errors: map[string]int{}}
	for _, c := range children {
		var rep childReport
		if err := json.Unmarshal([]byte(c.await("report")), &rep); err != nil {
			t.Fatal(err)
		}
		for v, n := range rep.Values {
			sum.Values[v] += n
		}
		for e, n := range rep.Errors {
			sum.Errors[e] += n
		}
		sum.Calls += rep.Calls
		sum.Most = max(sum.Most, rep.Most)
	}
	return sum
}

// processes is how many a stampede has, and callers how many each of them.
const (
	processes = 16
	callers   = 64
)

type stampede struct {
	t    testing.TB
	r    *madcrow.Redis
	plan childPlan
}

func newStampede(t testing.TB, opt childOptions) *stampede {
	cfg := ownConfig(t)
	opt.ReadTimeout = 10 * time.Second
	return &stampede{t, openConfig(t, cfg), childPlan{Port: cfg.Port, Prefix: cfg.KeyPrefix, Callers: callers, Options: opt}}
}

func (s *stampede) start(n int) (list []*child) {
	for range n {
		list = append(list, startChild(s.t, s.plan))
	}
	return list
}

func (s *stampede) loads() int64 {
	s.t.Helper()
	m, err := s.r.Do(s.t.Context(), s.r.B().Get().Key(s.plan.Prefix+"loads").Build()).Message()
	if err != nil {
		s.t.Fatal(err)
	}
	if m.IsNil() {
		return 0
	}
	n, err := m.AsInt64()
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestStampede_OneLoadOfAllProcesses(t *testing.T) {
	s := newStampede(t, childOptions{NearCacheBytes: near})
	s.plan.Takes = 200 * time.Millisecond
	sum := reports(t, s.start(processes), nil)
	n := s.loads()
	t.Logf("%d processes with %d callers each: %d loads, the longest call took %v", processes, callers, n, sum.Most)
	if n != 1 || sum.Values["load 1"] != processes*callers {
		t.Errorf("%d loads: %+v", n, sum)
	}
}

func TestStampede_KilledHolderCostsOneMoreLoadWithinItsLease(t *testing.T) {
	const lease = time.Second
	s := newStampede(t, childOptions{NearCacheBytes: near, LeaseTTL: lease})
	s.plan.Takes = -1
	victim := s.start(1)[0]
	victim.await("ready")
	victim.begin()
	victim.await("loading")
	s.plan.Takes = 50 * time.Millisecond
	var killed time.Time
	sum := reports(t, s.start(processes-1), func() {
		time.Sleep(200 * time.Millisecond)
		victim.kill()
		killed = time.Now()
	})
	took := time.Since(killed)
	n := s.loads()
	t.Logf("the holder was killed in its load: %d loads in all, everybody had the value after %v (lease %v)", n, took, lease)
	if n != 2 || sum.Values["load 2"] != (processes-1)*callers {
		t.Errorf("%d loads: %+v", n, sum)
	}
	if most := lease + testkit.Slack(300*time.Millisecond); took > most {
		t.Errorf("it took %v, want within %v", took, most)
	}
}

func TestStampede_FailingLoaderIsAskedOncePerBackoff(t *testing.T) {
	const backoff = 200 * time.Millisecond
	s := newStampede(t, childOptions{NearCacheBytes: near, Backoff: backoff})
	s.plan.Fails = true
	s.plan.For = 2 * time.Second
	start := time.Now()
	sum := reports(t, s.start(processes), func() { start = time.Now() })
	took := time.Since(start)
	n := s.loads()
	t.Logf("%d calls in %v: %d loads (backoff %v, doubling)", sum.Calls, took, n, backoff)
	if most := int64(took/backoff) + 1; n < 2 || n > most {
		t.Errorf("%d loads, want 2 to %d", n, most)
	}
	if len(sum.Values) > 0 {
		t.Errorf("values: %v", sum.Values)
	}
	for e := range sum.Errors {
		if !strings.Contains(e, "the source failed") && !strings.Contains(e, cache.ErrLoadFailed.Error()) {
			t.Errorf("error: %s", e)
		}
	}
}
