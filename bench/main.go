// Command bench measures Madcrow beside its peers: all contestants of a race
// run in turns, in one process, against one redis-server on loopback that
// shares the cores, so that what disturbs one disturbs all. Figures are ratios
// of medians; a single absolute time says little.
//
//	go run . [-race 'limit-*'] [-rounds n] [-round 400ms] [-goroutines 1,64,256]
package main

import (
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// race compares contestants that do the same work; the first is the base.
type race struct {
	name, what  string
	contestants []contestant
	// cpu prints how busy Redis and this process were: where those two do all
	// the work.
	cpu bool
	// after is shown below the figures, once.
	after func() error
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
	{"core", corePlain},
	{"core-deadline", coreDeadline},
	{"core-cancellable", coreCancellable},
	{"http", httpRace},
	{"limit-admitted", limitAdmitted},
	{"limit-admitted-one-key", limitAdmittedOneKey},
	{"limit-denied", limitDenied},
	{"limit-denied-one-key", limitDeniedOneKey},
	{"cache-near-struct", cacheNearStruct},
	{"cache-near-1k", cacheNear1K},
	{"cache-near-64k", cacheNear64K},
	{"cache-redis-struct", cacheRedisStruct},
	{"cache-redis-1k", cacheRedis1K},
	{"cache-redis-64k", cacheRedis64K},
	{"cache-memory", cacheMemory},
	{"inject", injectRace},
	{"session-read", sessionRead},
	{"session-write", sessionWrite},
	{"session-new", sessionNew},
	{"publish-deliver-1", publishDeliver1},
	{"publish-deliver-1-json", publishDeliver1JSON},
	{"publish-deliver-100", publishDeliver100},
	{"publish-deliver-100-json", publishDeliver100JSON},
	{"publish-window-1", publishWindow1},
	{"publish-window-1-json", publishWindow1JSON},
	{"publish-window-100", publishWindow100},
	{"publish-window-100-json", publishWindow100JSON},
	{"stream", streamRace},
}

// figures are those of one round.
type figures struct {
	perSecond, allocs float64
	redis, here       float64 // processor time, in microseconds an operation
}

func main() {
	only := flag.String("race", "*", "run the races whose name matches this pattern")
	rounds := flag.Int("rounds", 9, "rounds for each contestant")
	length := flag.Duration("round", 400*time.Millisecond, "length of a round")
	goroutines := flag.String("goroutines", "64", "goroutines of each contestant; several numbers, with commas, run each race with each")
	bare := flag.String("bare", "", "be the bare HTTP server of the race http, on this address")
	redis := flag.String("redis", "", "with this Redis")
	flag.Parse()
	if *bare != "" {
		fmt.Fprintln(os.Stderr, bareServer(*bare, *redis))
		os.Exit(1)
	}
	counts, err := numbers(*goroutines)
	var env *environment
	if err == nil {
		env, err = newEnvironment()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	defer env.close()
	for _, entry := range races {
		match, err := path.Match(*only, entry.name)
		if err == nil && !match {
			continue
		}
		var r race
		if err == nil {
			r, err = entry.prepare(env)
		}
		for _, n := range counts {
			if len(r.contestants) == 0 {
				break // it has shown all
			}
			if err == nil {
				err = env.run(r, *rounds, *length, n)
			}
		}
		if err == nil && r.after != nil {
			err = r.after()
		}
		if err != nil {
			env.close()
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", entry.name, err)
			os.Exit(1)
		}
	}
}

// numbers reads "1,64,256".
func numbers(list string) (out []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-goroutines %s: not a number from 1", list)
		}
		out = append(out, n)
	}
	return out, nil
}

func (e *environment) run(r race, rounds int, length time.Duration, goroutines int) error {
	got := make([][]figures, len(r.contestants))
	for i := range r.contestants { // warm up
		if _, err := e.round(r.contestants[i], length/2, goroutines); err != nil {
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
			f, err := e.round(r.contestants[i], length, goroutines)
			if err != nil {
				return fmt.Errorf("%s: %w", r.contestants[i].name, err)
			}
			got[i] = append(got[i], f)
		}
	}
	report(r, got, goroutines)
	return nil
}

func (e *environment) round(c contestant, length time.Duration, goroutines int) (figures, error) {
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
					first := err // &err would cost each operation an allocation
					failed.Store(&first)
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
	redisBefore, err := e.redisCPU()
	if err != nil {
		return figures{}, err
	}
	hereBefore := processCPU()
	began := time.Now()
	close(start)
	time.Sleep(length)
	stop.Store(true)
	done.Wait()
	took, here := time.Since(began), processCPU()-hereBefore
	redis, err := e.redisCPU()
	runtime.ReadMemStats(&after)
	if e := failed.Load(); e != nil {
		err = *e
	}
	n := float64(ops.Load())
	return figures{
		perSecond: n / took.Seconds(),
		allocs:    float64(after.Mallocs-before.Mallocs) / n,
		redis:     float64((redis - redisBefore).Microseconds()) / n,
		here:      float64(here.Microseconds()) / n,
	}, err
}

func report(r race, got [][]figures, goroutines int) {
	fmt.Printf("\n%s: %s, %d goroutines\n", r.name, r.what, goroutines)
	fmt.Printf("  %-46s %10s %9s %6s %5s %7s", "", "ops/s", "ns/op", "ratio", "must", "allocs")
	if r.cpu {
		fmt.Printf(" %16s %16s", "redis µs/op", "client µs/op")
	}
	fmt.Println()
	for i, c := range r.contestants {
		of := func(pick func(f figures) float64) float64 {
			all := make([]float64, len(got[i]))
			for n, f := range got[i] {
				all[n] = pick(f)
			}
			return median(all)
		}
		// The ratio of each pair of rounds, and the median of those: nearer to
		// the truth than the ratio of two medians when the machine drifts.
		ratios := make([]float64, len(got[i]))
		for n, f := range got[i] {
			ratios[n] = f.perSecond / got[0][n].perSecond
		}
		must := ""
		if c.must > 0 {
			must = fmt.Sprintf("%.2f", c.must)
		}
		perSecond := of(func(f figures) float64 { return f.perSecond })
		fmt.Printf("  %-46s %10.0f %9.0f %6.2f %5s %7.1f", c.name, perSecond, 1e9/perSecond, median(ratios), must, of(func(f figures) float64 { return f.allocs }))
		if r.cpu {
			for _, pick := range []func(figures) float64{
				func(f figures) float64 { return f.redis },
				func(f figures) float64 { return f.here },
			} {
				busy := of(func(f figures) float64 { return pick(f) * f.perSecond / 1e4 })
				fmt.Printf(" %9.2f %5.0f%%", of(pick), busy)
			}
		}
		fmt.Println()
	}
	if r.cpu {
		fmt.Printf("  The %% is of one core. Redis works on one: near 100 %% it is the bound. Both together near %d %%: the cores are.\n  Otherwise it is the way there and back.\n", 100*runtime.NumCPU())
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
