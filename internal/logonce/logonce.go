// Package logonce keeps a log readable while something stays broken: each
// lasting reason is logged once, and the end of it once.
package logonce

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// most bounds the reasons that are kept. Whoever fails in more ways than that
// is in the log already.
const most = 64

// Reasons are those that were logged since all was well. The zero value is
// ready for use, by several goroutines.
type Reasons struct {
	mu     sync.Mutex
	logged []string
}

// First says whether a reason is to be logged: it was not since the last Clear.
func (r *Reasons) First(reason error) bool {
	text := Text(reason)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.logged) == most || slices.Contains(r.logged, text) {
		return false
	}
	r.logged = append(r.logged, text)
	return true
}

// Clear forgets the reasons: all is well again. It says whether any was logged.
func (r *Reasons) Clear() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	some := len(r.logged) > 0
	r.logged = nil
	return some
}

// Every lets a line through once in a while, for what goes on and on without an end
// that could be logged. The zero value is ready for use, by several goroutines.
type Every struct {
	mu    sync.Mutex
	last  time.Time
	count int
}

// Due counts an occurrence. It returns 0 if one was let through within d, and
// otherwise how many there were since, this one included.
func (e *Every) Due(d time.Duration) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count++
	now := time.Now()
	if !e.last.IsZero() && now.Sub(e.last) < d {
		return 0
	}
	n := e.count
	e.last, e.count = now, 0
	return n
}

// ownPort is the local address of a connection, which differs each time:
// "read tcp 10.0.0.1:50412->10.0.0.2:6379: connection reset by peer".
var ownPort = regexp.MustCompile(`\S+->`)

// Text is the text of an error without what differs from one time to the next
// although the reason is the same: local ports, and the order in which errors
// were joined.
func Text(err error) string {
	if err == nil {
		return ""
	}
	text := ownPort.ReplaceAllString(err.Error(), "->")
	if !strings.Contains(text, "\n") {
		return text
	}
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
