package ratelimit_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/ratelimit"
)

// TestMemory_OfAFullSubject prints what docs/ratelimit.md shows, and holds the
// log to its budget.
func TestMemory_OfAFullSubject(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.CommandTimeout = 10 * time.Second
	r := openConfig(t, cfg)
	const subject = "user:1234567"
	limits := []int64{10, 100, 1_000, 10_000}
	var table strings.Builder
	for _, row := range []struct {
		title, code string
		of          func(limit int64) ratelimit.Algorithm
	}{
		{"SlidingLog()", "l", func(int64) ratelimit.Algorithm { return ratelimit.SlidingLog() }},
		{"SortedSetLog()", "s", func(int64) ratelimit.Algorithm { return ratelimit.SortedSetLog() }},
		{"SlidingWindow(10)", "w", func(int64) ratelimit.Algorithm { return ratelimit.SlidingWindow(10) }},
		{"SlidingWindow(60)", "w", func(int64) ratelimit.Algorithm { return ratelimit.SlidingWindow(60) }},
		{"GCRA(limit)", "g", ratelimit.GCRA},
	} {
		fmt.Fprintf(&table, "| `%s` |", row.title)
		for _, limit := range limits {
			window := time.Hour
			if row.code == "w" {
				window = 300 * time.Millisecond // so that many buckets are filled
			}
			name := fmt.Sprintf("api%d", limit)
			l := must[*ratelimit.Limiter](t)(ratelimit.New(r, name, ratelimit.Options{Rate: ratelimit.Per(window, limit), FailPolicy: madcrow.FailClosed, Algorithm: row.of(limit), DeniedSubjects: -1}))
			used := int64(0)
			if row.code == "w" {
				used = fillEvenly(t, s, l, name, subject, window, limit)
			} else {
				fill(t, l, subject, limit)
				used = usage(t, s, name, row.code, subject)
			}
			each := ""
			if row.code == "l" || row.code == "s" {
				each = fmt.Sprintf(" (%.1f)", float64(used)/float64(limit))
			}
			fmt.Fprintf(&table, " %d%s |", used, each)
			if row.code == "l" && limit == 1000 && float64(used) > 11*float64(limit) {
				t.Errorf("the log takes %.2f bytes for each admitted request, the budget is 11", float64(used)/float64(limit))
			}
			if err := l.Reset(t.Context(), subject); err != nil {
				t.Fatal(err)
			}
		}
		table.WriteString("\n")
	}
	t.Logf("bytes of one subject with a full limit, in brackets for each request\n| limit | 10 | 100 | 1,000 | 10,000 |\n|---|---|---|---|---|\n%s", table.String())
}

func usage(t *testing.T, s *madcrowtest.Server, name, code, subject string) int64 {
	t.Helper()
	used, _ := s.Do(t, "MEMORY", "USAGE", "m1:limit:"+name+":"+code+":{"+subject+"}", "SAMPLES", "0").(int64)
	return used
}

// fill uses a limit up, one request after the other.
func fill(t *testing.T, l *ratelimit.Limiter, subject string, limit int64) {
	t.Helper()
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range limit / 10 {
				if d, err := l.Allow(t.Context(), subject); err != nil {
					t.Error(err)
				} else if d.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != limit {
		t.Fatalf("%d admitted of %d", n, limit)
	}
}

// fillEvenly spreads a limit over its window and returns the most memory that
// was used.
func fillEvenly(t *testing.T, s *madcrowtest.Server, l *ratelimit.Limiter, name, subject string, window time.Duration, limit int64) (most int64) {
	t.Helper()
	parts := min(limit, 60)
	for end := time.Now().Add(window * 11 / 10); time.Now().Before(end); time.Sleep(window / 61) {
		if _, err := l.AllowN(t.Context(), subject, limit/parts); err != nil {
			t.Fatal(err)
		}
		most = max(most, usage(t, s, name, "w", subject))
	}
	return most
}
