package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/stream"
)

// arrivals are the messages that a worker was given, in order, each with its time.
type arrivals struct {
	mu    sync.Mutex
	order []string
	at    map[string]time.Time
	times map[string]int
}

func (a *arrivals) do(_ context.Context, d stream.Delivery[string]) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at, a.times = map[string]time.Time{}, map[string]int{}
	}
	a.order = append(a.order, d.Message)
	a.at[d.Message] = time.Now()
	a.times[d.Message]++
	return nil
}

func (a *arrivals) n() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.order)
}

func TestPublishAt_IsNeverEarlyAndInTheOrderOfTheTimes(t *testing.T) {
	needStreams(t)
	r := open(t)
	s, err := stream.New(r, "s", stream.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	var got arrivals
	working(t, s, got.do, stream.WorkOptions{Workers: 1})
	begin := time.Now()
	base := begin.Add(1500 * time.Millisecond).Truncate(time.Millisecond)
	due := map[string]time.Time{}
	var want []string
	for i := range 30 {
		at := base.Add(time.Duration(i/3) * 20 * time.Millisecond) // three each time
		m := fmt.Sprintf("%02d", i)
		due[m], want = at, append(want, m)
	}
	for _, i := range []int{9, 3, 6, 0, 1, 4, 7, 2, 5, 8} { // times in any order, equal ones in order
		for k := range 3 {
			m := want[3*i+k]
			if _, err := s.PublishAt(t.Context(), due[m], m); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.PublishIn(t.Context(), -time.Second, "past"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the past", func() bool { return got.n() == 1 })
	if l, err := s.Lag(t.Context(), "g"); err != nil || l.Delayed != 30 || time.Since(begin) > time.Second {
		t.Errorf("%+v %v after %v", l, err, time.Since(begin))
	}
	testkit.Eventually(t, "all", func() bool { return got.n() == 31 })
	if !slices.Equal(got.order[1:], want) {
		t.Errorf("order %v", got.order)
	}
	var worst time.Duration
	for m, at := range due {
		late := got.at[m].Sub(at)
		if late < 0 {
			t.Errorf("%s came %v early", m, -late)
		}
		worst = max(worst, late)
	}
	t.Log("late by at most", worst)
	if worst > testkit.Slack(time.Second) {
		t.Errorf("late by %v", worst)
	}
	if l, err := s.Lag(t.Context(), "g"); err != nil || l.Delayed != 0 {
		t.Errorf("%+v %v", l, err)
	}
}

func TestCancel_RemovesADelayedMessageOnce(t *testing.T) {
	needStreams(t)
	s, err := stream.New(open(t), "s", stream.Options[string]{MaxDelayed: 40})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour)
	ids := map[string]string{}
	for i := range 40 {
		m := fmt.Sprintf("%02d", i)
		if ids[m], err = s.PublishAt(t.Context(), at.Add(time.Duration(i/20)*time.Millisecond), m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.PublishIn(t.Context(), time.Hour, "x"); !errors.Is(err, stream.ErrTooManyDelayed) {
		t.Error(err)
	}
	for i := 0; i < 40; i += 2 {
		m := fmt.Sprintf("%02d", i)
		for _, want := range []bool{true, false} {
			if ok, err := s.Cancel(t.Context(), ids[m]); err != nil || ok != want {
				t.Errorf("%s: %v %v, want %v", m, ok, err, want)
			}
		}
	}
	if l, err := s.Lag(t.Context(), "g"); err != nil || l.Delayed != 20 {
		t.Errorf("%+v %v", l, err)
	}
	for _, id := range []string{"", "1-2", ids["01"] + "x", strings.Replace(ids["01"], "-", "", 1)} {
		var a *madcrow.ArgumentError
		if _, err := s.Cancel(t.Context(), id); !errors.As(err, &a) {
			t.Errorf("%q: %v", id, err)
		}
	}
	other := ids["01"][:len(ids["01"])-12] + strings.Repeat("A", 12)
	if ok, err := s.Cancel(t.Context(), other); err != nil || ok {
		t.Errorf("another message's id removed it: %v %v", ok, err)
	}
	for _, at := range []time.Time{{}, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		var a *madcrow.ArgumentError
		if _, err := s.PublishAt(t.Context(), at, "x"); !errors.As(err, &a) {
			t.Error(at, err)
		}
	}
}

// Many processes move what is due, and connections die all the while: each message
// comes into the stream once.
func TestPublishIn_ManyMoversAppendEachMessageOnce(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	cfg := srv.Config()
	r := openConfig(t, cfg)
	s, err := stream.New(r, "s", stream.Options[string]{KeepDone: true})
	if err != nil {
		t.Fatal(err)
	}
	n := long(300, 20000)
	for i := range n {
		if _, err := s.PublishIn(t.Context(), time.Duration(i%700)*time.Millisecond, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var got arrivals
	for range 5 {
		own, err := stream.New(openConfig(t, cfg), "s", stream.Options[string]{KeepDone: true})
		if err != nil {
			t.Fatal(err)
		}
		working(t, own, got.do, stream.WorkOptions{ClaimAfter: 500 * time.Millisecond})
	}
	for range 10 {
		srv.Do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		time.Sleep(50 * time.Millisecond)
	}
	testkit.EventuallyWithin(t, time.Minute, "all are done", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return len(got.times) == n
	})
	if in := srv.Do(t, "XLEN", shopLog); in != int64(n) {
		t.Errorf("%v in the stream, not %d", in, n)
	}
}

// A server that dies, with its append-only file, keeps what waits.
func TestPublishIn_SurvivesARestartOfTheServer(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
	s, err := stream.New(openConfig(t, srv.Config()), "s", stream.Options[string]{KeepDone: true})
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	for i := range n {
		if _, err := s.PublishIn(t.Context(), time.Duration(i)*10*time.Millisecond, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var got arrivals
	working(t, s, got.do, stream.WorkOptions{ClaimAfter: 500 * time.Millisecond})
	time.Sleep(400 * time.Millisecond) // in the midst of them
	srv.Kill()
	srv.Start()
	testkit.EventuallyWithin(t, time.Minute, "all are done", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return len(got.times) == n
	})
	if in := srv.Do(t, "XLEN", shopLog); in != int64(n) {
		t.Errorf("%v in the stream, not %d", in, n)
	}
}

// The wake-ups of a process that has nothing to do are few, and none after Work.
func TestPublishIn_AnIdleMoverLooksOnceASecond(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	s, err := stream.New(openConfig(t, srv.Config()), "s", stream.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 { // two groups, one mover
		go func() {
			ended <- s.Work(ctx, "g", func(context.Context, stream.Delivery[string]) error { return nil }, stream.WorkOptions{})
		}()
	}
	scripts := func() (n int64) { return serverCalls(t, srv, "zrange") }
	time.Sleep(500 * time.Millisecond)
	before := scripts()
	time.Sleep(3 * time.Second)
	if n := scripts() - before; n < 1 || n > 4 {
		t.Errorf("%d looks in 3 seconds", n)
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	before = scripts()
	time.Sleep(1500 * time.Millisecond)
	if n := scripts() - before; n != 0 {
		t.Errorf("%d looks after the end", n)
	}
}

// serverCalls is how often a server ran a command.
func serverCalls(t *testing.T, srv *madcrowtest.Server, command string) (n int64) {
	t.Helper()
	info, _ := srv.Do(t, "INFO", "commandstats").(string)
	_, rest, found := strings.Cut(info, "cmdstat_"+command+":calls=")
	if found {
		if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A user who may append and not remove had the same message appended every time.
func TestPublishIn_UserWithoutZREMAppendsNothing(t *testing.T) {
	needStreams(t)
	srv := madcrowtest.StartRedis(t)
	r := openConfig(t, srv.Config())
	s, err := stream.New(r, "s", stream.Options[int]{KeepDone: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Do(t, "ACL", "SETUSER", "default", "-zrem")
	var tries atomic.Int32
	working(t, s, func(context.Context, stream.Delivery[int]) error {
		tries.Add(1)
		return nil
	}, stream.WorkOptions{})
	for n := range 3 { // each has the mover look
		if _, err := s.PublishIn(t.Context(), 0, n); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := tries.Load(); n != 0 {
		t.Errorf("%d are there, and wait", n)
	}
	srv.Do(t, "ACL", "SETUSER", "default", "+zrem")
}

// After 100 million messages of one millisecond an id is used up.
func TestPublishAt_NumbersOfAMillisecondAreBounded(t *testing.T) {
	needStreams(t)
	r := open(t)
	s, err := stream.New(r, "s", stream.Options[string]{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	key := t.Name() + ":" + strings.TrimSuffix(shopLog, "log") + "delayed"
	if err := r.Do(t.Context(), r.B().Zadd().Key(key).ScoreMember().ScoreMember(float64(at.UnixMilli()), "99999999-AAAAAAAAAAAA-x").Build()).Err(); err != nil {
		t.Fatal(err)
	}
	if id, err := s.PublishAt(t.Context(), at, "y"); !errors.Is(err, stream.ErrTooManyDelayed) {
		t.Error(id, err)
	}
}

// A time beyond 2262 had the mover look at once, since it has no Unix nanoseconds.
func TestPublishAt_FarTimesDoNotWakeTheMover(t *testing.T) {
	needStreams(t)
	cfg, rec := config, &counter{}
	cfg.KeyPrefix, cfg.Recorder = t.Name()+":", rec
	s, err := stream.New(openConfig(t, cfg), "s", stream.Options[int]{})
	if err != nil {
		t.Fatal(err)
	}
	working(t, s, func(context.Context, stream.Delivery[int]) error { return nil }, stream.WorkOptions{})
	time.Sleep(300 * time.Millisecond)
	calls := func(years int) int64 {
		before := rec.calls.Load()
		for n := range 10 {
			if _, err := s.PublishAt(t.Context(), time.Date(years, 1, 1, 0, 0, 0, 0, time.UTC), n); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		return rec.calls.Load() - before
	}
	if near, far := calls(2200), calls(9000); far > near+4 {
		t.Errorf("%d calls for far times, %d for near ones", far, near)
	}
}
