package ratelimit_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// Many processes on one key: this test program again and again, each with many
// goroutines. A job goes in as a line, what came of it comes back as one.

const (
	crowdProcesses  = 8
	crowdGoroutines = 32
	crowdEnv        = "MADCROW_TEST_CROWD" // the servers, as JSON
)

type crowdServers struct {
	Port      int
	Sentinels []string
	Service   string
}

func (s crowdServers) config() madcrow.Config {
	if s.Service != "" {
		return madcrow.Config{Sentinel: madcrow.Sentinel{Enabled: true, Addresses: s.Sentinels, ServiceName: s.Service}}
	}
	return madcrow.Config{Host: "127.0.0.1", Port: s.Port}
}

type crowdJob struct {
	Name      string
	Algorithm string
	Limit     int64
	Window    time.Duration
	Burst     int64
	Attempts  int           // of each goroutine
	Length    time.Duration // or for so long
}

func (j crowdJob) algorithm() ratelimit.Algorithm {
	switch j.Algorithm {
	case "set":
		return ratelimit.SortedSetLog()
	case "window":
		return ratelimit.SlidingWindow(10)
	case "gcra":
		return ratelimit.GCRA(j.Burst)
	}
	return ratelimit.SlidingLog()
}

type crowdResult struct {
	Allowed, Denied int64
	Errors          map[string]int64 // by kind and outcome
	Untyped         string
	After           int64 // admitted after the first error
}

func init() {
	if text := os.Getenv(crowdEnv); text != "" {
		if err := crowdMember(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// crowdMember is one process of the crowd.
func crowdMember(text string) error {
	var s crowdServers
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	cfg := s.config()
	cfg.Require, cfg.ConnectTimeout = true, 20*time.Second
	if s.Service == "" {
		cfg.CommandTimeout = 30 * time.Second // the machine may be slow; that is not the question
	}
	r, err := madcrow.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode("ready"); err != nil {
		return err
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var job crowdJob
		if in.Decode(&job) != nil {
			return nil // the test is over
		}
		l, err := ratelimit.New(r, job.Name, ratelimit.Options{Rate: ratelimit.Per(job.Window, job.Limit), FailPolicy: madcrow.FailClosed, Algorithm: job.algorithm(), DeniedSubjects: -1})
		if err != nil {
			return err
		}
		if err := out.Encode(job.work(l)); err != nil {
			return err
		}
	}
}

func (j crowdJob) work(l *ratelimit.Limiter) crowdResult {
	var mu sync.Mutex
	res := crowdResult{Errors: map[string]int64{}}
	end := time.Now().Add(j.Length)
	var wg sync.WaitGroup
	for range crowdGoroutines {
		wg.Go(func() {
			for n := 0; n < j.Attempts || time.Now().Before(end); n++ {
				d, err := l.Allow(context.Background(), "everybody")
				mu.Lock()
				switch {
				case err != nil:
					var limit *madcrow.Error
					var cause *madcrow.Error
					if !errors.As(err, &limit) || limit.Op != "ratelimit.allow" || !errors.As(errors.Unwrap(limit), &cause) || d.Allowed {
						res.Untyped = err.Error()
					} else {
						res.Errors[fmt.Sprintf("%v, %v", cause.Kind, cause.Outcome)]++
					}
				case d.Allowed:
					res.Allowed++
					if len(res.Errors) > 0 {
						res.After++
					}
				default:
					res.Denied++
				}
				mu.Unlock()
				if j.Length > 0 {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	return res
}

type crowd struct {
	in  []*json.Encoder
	out []*json.Decoder
}

// startCrowd starts the processes.
func startCrowd(t *testing.T, s crowdServers) *crowd {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{}
	for range crowdProcesses {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crowdEnv+"="+string(text))
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
		t.Cleanup(func() {
			_ = in.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
		c.in, c.out = append(c.in, json.NewEncoder(in)), append(c.out, json.NewDecoder(out))
	}
	for _, out := range c.out {
		var ready string
		if err := out.Decode(&ready); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// do gives all of them a job and returns the sum of what came of it, and how
// long it took.
func (c *crowd) do(j crowdJob) (sum crowdResult, took time.Duration, err error) {
	sum.Errors = map[string]int64{}
	start := time.Now()
	for _, in := range c.in {
		err = errors.Join(err, in.Encode(j))
	}
	for _, out := range c.out {
		var one crowdResult
		err = errors.Join(err, out.Decode(&one))
		sum.Allowed, sum.Denied, sum.After = sum.Allowed+one.Allowed, sum.Denied+one.Denied, sum.After+one.After
		for k, n := range maps.All(one.Errors) {
			sum.Errors[k] += n
		}
		if one.Untyped != "" {
			sum.Untyped = one.Untyped
		}
	}
	return sum, time.Since(start), err
}

func TestCrowd_ManyProcessesAreAdmittedExactlyTheLimit(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	c := startCrowd(t, crowdServers{Port: s.Port()})
	for _, flush := range []bool{false, true} {
		for _, j := range []crowdJob{
			{Algorithm: "log", Limit: 1000, Window: time.Minute},
			{Algorithm: "set", Limit: 1000, Window: time.Minute},
			{Algorithm: "window", Limit: 1000, Window: time.Minute},
			{Algorithm: "gcra", Burst: 1000, Limit: 1, Window: time.Hour}, // nothing is refilled meanwhile
			{Algorithm: "gcra", Burst: 500, Limit: 1000, Window: 10 * time.Second},
		} {
			j.Attempts = 20
			j.Name = fmt.Sprintf("%s%d%v", j.Algorithm, j.Burst, flush)
			var got crowdResult
			var took time.Duration
			var err error
			done := make(chan struct{})
			go func() {
				got, took, err = c.do(j)
				close(done)
			}()
			flushes := 0
			for over := false; !over; {
				select {
				case <-done:
					over = true
				case <-time.After(time.Millisecond):
					if flush {
						s.Do(t, "SCRIPT", "FLUSH")
						flushes++
					}
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%-6s burst %4d: %d admitted, %d denied in %v, scripts forgotten %d times", j.Algorithm, j.Burst, got.Allowed, got.Denied, took.Round(time.Millisecond), flushes)
			least, most := j.Limit, j.Limit
			if j.Algorithm == "gcra" {
				refilled := int64(float64(took) / float64(j.Window) * float64(j.Limit))
				least, most = j.Burst, j.Burst+refilled
			}
			if len(got.Errors) > 0 || got.Untyped != "" {
				t.Errorf("%s: errors %v %s", j.Name, got.Errors, got.Untyped)
			}
			if got.Allowed < least || got.Allowed > most || got.Allowed+got.Denied != crowdProcesses*crowdGoroutines*int64(j.Attempts) {
				t.Errorf("%s: %d admitted, want %d to %d", j.Name, got.Allowed, least, most)
			}
		}
	}
}

// A failover loses what was not copied yet. What that costs is counted here:
// admissions above the limit, each of them lost by Redis, never an error that
// looks like a denial.
func TestSoakCrowd_AFailoverAdmitsLessThanTwiceTheLimit(t *testing.T) {
	if !soak {
		t.Skip("long: go test -tags soak")
	}
	for _, how := range []string{"ordered", "killed"} {
		t.Run(how, func(t *testing.T) {
			set := madcrowtest.StartSentinel(t)
			cfg := set.Config().Sentinel
			c := startCrowd(t, crowdServers{Sentinels: cfg.Addresses, Service: cfg.ServiceName})
			const limit = 20_000
			var got crowdResult
			var took time.Duration
			var err error
			done := make(chan struct{})
			go func() {
				got, took, err = c.do(crowdJob{Name: "x", Algorithm: "log", Limit: limit, Window: 10 * time.Minute, Length: 30 * time.Second})
				close(done)
			}()
			time.Sleep(300 * time.Millisecond) // in the middle of what is admitted
			if how == "killed" {
				set.Master().Kill()
			} else {
				set.Failover(t)
			}
			<-done
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("limit %d: %d admitted (%d too many), of these %d after the first error of their process; %d denied, errors %v, %v",
				limit, got.Allowed, got.Allowed-limit, got.After, got.Denied, got.Errors, took.Round(time.Millisecond))
			if got.Untyped != "" {
				t.Errorf("an error without a kind: %s", got.Untyped)
			}
			if got.Allowed < limit || got.Allowed > 2*limit {
				t.Errorf("%d admitted, the limit is %d", got.Allowed, limit)
			}
		})
	}
}
