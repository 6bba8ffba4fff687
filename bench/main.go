// Command bench measures Madcrow beside its peers: all contestants of a race
// run in turns, in one process, against one redis-server on loopback that
// shares the cores, so that what disturbs one disturbs all. Figures are ratios
// of medians; a single absolute time says little.
//
//	go run . [-race name] [-rounds n] [-round 400ms] [-goroutines 64]
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// race compares contestants that do the same work; the first is the base.
type race struct {
	name, what  string
	contestants []contestant
}

// contestant makes its worker: a function that does one operation, for the
// use of one goroutine.
type contestant struct {
	name   string
	must   float64 // of the base's throughput, 0 when nothing is promised
	worker func(goroutine int) func() error
}

var races = []struct {
	name    string
	prepare func(*environment) (race, error)
}{
	{"waist", waistPlain},
	{"waist-deadline", waistDeadline},
	{"waist-cancellable", waistCancellable},
	{"http", httpRace},
}

type figures struct {
	perSecond []float64
	allocs    []float64
}

func main() {
	only := flag.String("race", "", "run this race only")
	rounds := flag.Int("rounds", 9, "rounds for each contestant")
	length := flag.Duration("round", 400*time.Millisecond, "length of a round")
	goroutines := flag.Int("goroutines", 64, "goroutines of each contestant")
	bare := flag.String("bare", "", "be the bare HTTP server of the race http, on this address")
	redis := flag.String("redis", "", "with this Redis")
	flag.Parse()
	if *bare != "" {
		fmt.Fprintln(os.Stderr, bareServer(*bare, *redis))
		os.Exit(1)
	}
	env, err := newEnvironment()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	defer env.close()
	for _, entry := range races {
		if *only != "" && *only != entry.name {
			continue
		}
		r, err := entry.prepare(env)
		if err == nil {
			err = run(r, *rounds, *length, *goroutines)
		}
		if err != nil {
			env.close()
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", entry.name, err)
			os.Exit(1)
		}
	}
}

func run(r race, rounds int, length time.Duration, goroutines int) error {
	got := make([]figures, len(r.contestants))
	for i := range r.contestants { // warm up
		if _, _, err := round(r.contestants[i], length/2, goroutines); err != nil {
			return fmt.Errorf("%s: %w", r.contestants[i].name, err)
		}
	}
	order := make([]int, len(r.contestants))
	for i := range order {
		order[i] = i
	}
	for n := range rounds {
		if n%2 == 1 { // there and back, so that a slow drift hits all alike
			slices.Reverse(order)
		}
		for _, i := range order {
			ops, allocs, err := round(r.contestants[i], length, goroutines)
			if err != nil {
				return fmt.Errorf("%s: %w", r.contestants[i].name, err)
			}
			got[i].perSecond = append(got[i].perSecond, ops)
			got[i].allocs = append(got[i].allocs, allocs)
		}
	}
	report(r, got, goroutines)
	return nil
}

func round(c contestant, length time.Duration, goroutines int) (perSecond, allocs float64, err error) {
	var stop atomic.Bool
	var ops atomic.Int64
	var failed atomic.Pointer[error]
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(goroutines)
	for g := range goroutines {
		done.Go(func() {
			do := c.worker(g)
			ready.Done()
			<-start
			n := int64(0)
			for !stop.Load() {
				if err := do(); err != nil {
					failed.Store(&err)
					break
				}
				n++
			}
			ops.Add(n)
		})
	}
	ready.Wait()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	close(start)
	time.Sleep(length)
	stop.Store(true)
	done.Wait()
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	if e := failed.Load(); e != nil {
		return 0, 0, *e
	}
	n := float64(ops.Load())
	return n / took.Seconds(), float64(after.Mallocs-before.Mallocs) / n, nil
}

func report(r race, got []figures, goroutines int) {
	fmt.Printf("\n%s: %s, %d goroutines\n", r.name, r.what, goroutines)
	fmt.Printf("  %-44s %12s %8s %8s %7s\n", "", "ops/s", "ratio", "allocs", "must")
	for i, c := range r.contestants {
		// The ratio of each pair of rounds, and the median of those: nearer to
		// the truth than the ratio of two medians when the machine drifts.
		ratios := make([]float64, len(got[i].perSecond))
		for n := range ratios {
			ratios[n] = got[i].perSecond[n] / got[0].perSecond[n]
		}
		must := ""
		if c.must > 0 {
			must = fmt.Sprintf("%.2f", c.must)
		}
		fmt.Printf("  %-44s %12.0f %8.2f %8.1f %7s\n", c.name, median(got[i].perSecond), median(ratios), median(got[i].allocs), must)
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
