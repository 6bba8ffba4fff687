package testkit

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// Log keeps the lines of a log for a test to read. Its zero value works.
type Log struct {
	mu    sync.Mutex
	lines []string
}

// Write adds one line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

// Logger returns a logger whose text lines, from level info on, are kept.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// With returns the lines that contain text.
func (l *Log) With(text string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			out = append(out, line)
		}
	}
	return out
}

// Await waits for n lines that contain text.
func (l *Log) Await(t testing.TB, n int, text string, limit time.Duration) {
	t.Helper()
	for end := time.Now().Add(limit); len(l.With(text)) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %d × %q in the log after %v, but %q", n, text, limit, l.With(""))
		}
	}
}
