package cli

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// flushEvery is how long a line of the access log may wait.
const flushEvery = 200 * time.Millisecond

// flushAt is how many bytes of it may.
const flushAt = 32 << 10

// logs are the two logs, on one stream. What goes wrong is written at once; the
// access log is gathered, since a system call a request would be the largest
// part of its cost. A crash can lose its last 200 ms.
type logs struct {
	main, access *slog.Logger
	buffer       *bufferedLog
}

func newLogs(w io.Writer, format, level string) (*logs, error) {
	var lv slog.Level
	switch level {
	case "debug", "info", "warn", "error":
		_ = lv.UnmarshalText([]byte(level)) // these four are known to it
	default:
		return nil, usageError{fmt.Errorf("--log-level: %q is not debug, info, warn or error", level)}
	}
	opt := &slog.HandlerOptions{Level: lv}
	shared := &lockedWriter{w: w}
	buffer := newBufferedLog(shared)
	switch format {
	case "text":
		return &logs{slog.New(slog.NewTextHandler(shared, opt)), slog.New(slog.NewTextHandler(buffer, opt)), buffer}, nil
	case "json":
		return &logs{slog.New(slog.NewJSONHandler(shared, opt)), slog.New(slog.NewJSONHandler(buffer, opt)), buffer}, nil
	}
	buffer.close()
	return nil, usageError{fmt.Errorf("--log-format: %q is not text or json", format)}
}

func (l *logs) close() { l.buffer.close() }

// lockedWriter keeps the lines of two handlers apart.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// bufferedLog gathers whole lines.
type bufferedLog struct {
	mu   sync.Mutex
	buf  []byte
	w    io.Writer
	stop chan struct{}
	done chan struct{}
}

func newBufferedLog(w io.Writer) *bufferedLog {
	b := &bufferedLog{w: w, buf: make([]byte, 0, flushAt+4096), stop: make(chan struct{}), done: make(chan struct{})}
	go b.flushLoop()
	return b
}

// Write takes one line; a handler of slog writes each with one call.
func (b *bufferedLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if len(b.buf) >= flushAt {
		b.flush()
	}
	return len(p), nil
}

func (b *bufferedLog) flush() {
	if len(b.buf) > 0 {
		_, _ = b.w.Write(b.buf) // there is no place left to report that
		b.buf = b.buf[:0]
	}
}

func (b *bufferedLog) flushLoop() {
	defer close(b.done)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.mu.Lock()
			b.flush()
			b.mu.Unlock()
		case <-b.stop:
			b.mu.Lock()
			b.flush()
			b.mu.Unlock()
			return
		}
	}
}

func (b *bufferedLog) close() {
	close(b.stop)
	<-b.done
}
