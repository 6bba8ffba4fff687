// Command timeline draws the life of one cached value, and what a reader gets
// in each part of it: docs/img/cache-timeline.svg. The answers are those of the
// library, given by a Redis in this process. Its clock is set by this program,
// so half an hour takes seconds, and the picture is the same each time.
//
//	go run . -o picture.svg
package main

//go:generate go run . -o ../../docs/img/cache-timeline.svg

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
)

// The life that is drawn.
const (
	ttl          = 10 * time.Minute
	refreshAhead = 0.7
	staleFor     = 10 * time.Minute
	negativeTTL  = 4 * time.Minute
	length       = 26 // minutes
)

// Real times, far enough from one another for a busy machine: the loader is
// slow beside the one soft time-out, and quick beside the other.
const (
	softTimeout     = 5 * time.Millisecond
	slowLoad        = 400 * time.Millisecond
	longSoftTimeout = 20 * time.Second
)

// answer is what a reader gets.
type answer uint8

const (
	atOnce    answer = iota // the value
	refreshed               // the same, and a load begins behind it
	loaded                  // the value, after a load
	old                     // the stale value
	failed                  // the error of the loader
	absent                  // that there is none, at once
	reasked                 // the same, and a load begins behind it
	notFound                // that there is none, after a load
)

// row is one way a loader may behave.
type row struct {
	name, note string
	soft       time.Duration
	load       func() (string, error) // by the time of the read
	first      error                  // of the load that began the life
	answers    [length]answer         // for a read in each minute
}

func rows() []*row {
	return []*row{
		{
			name: "The loader answers", note: "within SoftTimeout", soft: longSoftTimeout,
			load: func() (string, error) { return "new", nil },
		},
		{
			name: "The loader is slow", note: "slower than SoftTimeout", soft: softTimeout,
			load: func() (string, error) { time.Sleep(slowLoad); return "new", nil },
		},
		{
			name: "The loader fails", note: "Result.Err tells why", soft: longSoftTimeout,
			load: func() (string, error) { return "", errors.New("away") },
		},
		{
			name: "There is no value", note: "the loader says ErrNotFound", soft: longSoftTimeout, first: cache.ErrNotFound,
			load: func() (string, error) { return "", cache.ErrNotFound },
		},
	}
}

func main() {
	to := flag.String("o", "", "write the picture to this file and not to the standard output")
	flag.Parse()
	picture, err := run(context.Background())
	if err == nil && *to != "" {
		err = os.WriteFile(*to, picture, 0o644)
	} else if err == nil {
		_, err = os.Stdout.Write(picture)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) ([]byte, error) {
	redis, err := miniredis.Run()
	if err != nil {
		return nil, err
	}
	defer redis.Close()
	redis.ClockTTL(true) // keys expire by the clock that is set
	r, err := madcrow.Open(ctx, madcrow.Config{
		Host: redis.Host(), Port: redis.Server().Addr().Port, Embedded: true, Require: true,
		CommandTimeout: 10 * time.Second, // a busy machine is no outage here
	})
	if err != nil {
		return nil, err
	}
	defer r.Close(ctx)
	all := rows()
	for i, w := range all {
		if err := w.live(ctx, redis, r, fmt.Sprintf("row%d", i)); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	if err := closeUp(ctx, redis, r); err != nil {
		return nil, err
	}
	return draw(all), nil
}

var start = time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC)

// read is one read of a value of its own.
type read struct {
	loads atomic.Int64
	res   cache.Result[string]
	err   error
}

// live stores a value for each minute, and reads it in that minute.
func (w *row) live(ctx context.Context, redis *miniredis.Miniredis, r *madcrow.Redis, name string) error {
	c, err := cache.New(r, name, cache.Options[string]{
		TTL: ttl, Jitter: -1, RefreshAhead: refreshAhead, StaleTTL: staleFor, NegativeTTL: negativeTTL,
		SoftTimeout: w.soft, ReadTimeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	redis.SetTime(start)
	for minute := range length {
		_, err := c.GetOrLoad(ctx, strconv.Itoa(minute), func(context.Context) (string, error) { return "first", w.first })
		if err != nil && !errors.Is(err, w.first) {
			return err
		}
	}
	var reads [length]read
	for minute := range reads {
		redis.SetTime(start.Add(time.Duration(minute)*time.Minute + 30*time.Second))
		rd := &reads[minute]
		rd.res, rd.err = c.GetOrLoadWith(ctx, strconv.Itoa(minute), func(context.Context, *cache.Load[string]) (string, error) {
			rd.loads.Add(1)
			return w.load()
		})
	}
	if err := c.Close(ctx); err != nil { // loads in the background end before
		return err
	}
	for minute := range reads {
		if w.answers[minute], err = reads[minute].answer(); err != nil {
			return fmt.Errorf("minute %d: %w", minute, err)
		}
	}
	return nil
}

// answer says in a word what the reader got.
func (rd *read) answer() (answer, error) {
	src, loads := rd.res.Source, rd.loads.Load()
	switch {
	case src == cache.SourceRedis && loads == 0:
		return atOnce, nil
	case src == cache.SourceRedis && loads == 1:
		return refreshed, nil
	case src == cache.SourceLoad && loads == 1:
		return loaded, nil
	case src == cache.SourceStale && loads == 1:
		return old, nil
	case src == cache.SourceNegative && loads == 0:
		return absent, nil
	case src == cache.SourceNegative && loads == 1 && rd.res.TTL > 0: // of the one that was cached
		return reasked, nil
	case src == cache.SourceNegative && loads == 1:
		return notFound, nil
	case rd.err != nil && loads == 1:
		return failed, nil
	}
	return 0, fmt.Errorf("%v after %d loads: %w", src, loads, rd.err)
}

// closeUp makes sure of what the lower part of the picture shows: two readers
// of a stale value share one slow load and do not wait for it, a third one gets
// what it brought.
func closeUp(ctx context.Context, redis *miniredis.Miniredis, r *madcrow.Redis) error {
	c, err := cache.New(r, "closeup", cache.Options[string]{
		TTL: ttl, Jitter: -1, StaleTTL: staleFor, SoftTimeout: softTimeout, ReadTimeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	redis.SetTime(start)
	if err := c.Set(ctx, "k", "first"); err != nil {
		return err
	}
	redis.SetTime(start.Add(ttl + time.Minute))
	loads, done := 0, make(chan struct{})
	load := func(context.Context, *cache.Load[string]) (string, error) {
		loads++
		<-done
		return "new", nil
	}
	for _, reader := range []string{"A", "B"} {
		if res, err := c.GetOrLoadWith(ctx, "k", load); res.Source != cache.SourceStale || err != nil {
			return fmt.Errorf("reader %s got %v: %w", reader, res.Source, err)
		}
	}
	close(done)
	end := time.Now().Add(10 * time.Second)
	for {
		res, err := c.GetResult(ctx, "k")
		if res.Value == "new" && res.Source == cache.SourceRedis && err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("reader C got %v: %w", res.Source, err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	if loads != 1 {
		return fmt.Errorf("%d loads", loads)
	}
	return nil
}
