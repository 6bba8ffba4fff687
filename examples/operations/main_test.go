package main

import (
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/madcrow-go/madcrow/examples/internal/program"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestOperations_PipelineAndTransactionAndWithoutRedis(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	binary := program.Build(t)
	one, two := program.Start(t, binary, s), program.Start(t, binary, s)

	one.Want(t, "POST", "/batch", "", 200, "commands", "3")
	if v := s.Do(t, "GET", "key2"); v != "value2" {
		t.Errorf("key2 is %v", v)
	}
	if ttl, _ := s.Do(t, "TTL", "key1").(int64); ttl < 290 || ttl > 300 {
		t.Errorf("key1 lives %d s", ttl)
	}

	// Two processes count at once, and each number is given once.
	var mu sync.Mutex
	seen := map[string]int{}
	var all sync.WaitGroup
	for _, p := range []*program.Program{one, two, one, two} {
		all.Go(func() {
			for range 20 {
				switch a := p.Ask(t, "POST", "/counter", ""); a.Status {
				case 200:
					mu.Lock()
					seen[a.Member("counter")]++
					mu.Unlock()
				case 409: // too many others: nothing was applied
				default:
					t.Errorf("%d %s", a.Status, a.Text)
				}
			}
		})
	}
	all.Wait()
	for n, times := range seen {
		if times != 1 {
			t.Errorf("%s was given %d times", n, times)
		}
	}
	if last := s.Do(t, "GET", "counter"); len(seen) < 40 || last != strconv.Itoa(len(seen)) {
		t.Errorf("%d were counted, and the counter is %v", len(seen), last)
	}

	s.Do(t, "SET", "counter", "many")
	one.Want(t, "POST", "/counter", "", 409, "code", "COUNTER_INVALID")
	s.Do(t, "DEL", "counter")
	s.Do(t, "RPUSH", "counter", "x")
	one.Want(t, "POST", "/counter", "", 409, "code", "REDIS_WRONG_TYPE")
	s.Do(t, "DEL", "counter")

	program.Faults(t, s, func() { one.Eventually(t, "POST", "/batch", 503) }, func() {
		one.Want(t, "POST", "/batch", "", 503, "code", "REDIS_UNAVAILABLE")
		one.Want(t, "POST", "/counter", "", 503, "code", "REDIS_UNAVAILABLE")
	}, func() { one.Eventually(t, "POST", "/batch", 200) })
	one.Want(t, "POST", "/counter", "", 200, "counter", "1")
}

func TestOperations_AWrongSettingIsNamed(t *testing.T) {
	t.Setenv("REDIS_PORT", "99999")
	if err := run(t.Context(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "REDIS_PORT") {
		t.Error(err)
	}
}
