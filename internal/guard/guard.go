// Package guard runs functions of users where a panic, or runtime.Goexit, would
// take something of ours with it: the process, a goroutine that others wait for,
// a message.
package guard

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

// ErrGoexit is a function that ended its goroutine (runtime.Goexit), as
// testing.FailNow does.
var ErrGoexit = errors.New("it ended its goroutine")

// Panic is a function that panicked.
type Panic struct {
	text string
	// Stack is where, for the log.
	Stack string
	// Place is the function and the line that panicked, the same each time.
	Place string
}

// Error returns one line.
func (p *Panic) Error() string { return "panic: " + p.text }

// Recovered makes an error of what recover returned. It is called by the deferred
// function itself.
func Recovered(p any) error {
	return &Panic{text: Text(p), Stack: string(debug.Stack()), Place: place()}
}

// place is the first function below the panic that is not of package runtime: a nil
// pointer panics in there.
func place() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for panicking := false; ; {
		f, more := frames.Next()
		inside := strings.HasPrefix(f.Function, "runtime.")
		if panicking && !inside || !more {
			return f.Function + ":" + strconv.Itoa(f.Line)
		}
		panicking = panicking || inside
	}
}

// Call calls fn, and turns a panic into an error. It does not survive Goexit:
// see Apart.
func Call(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Recovered(p)
		}
	}()
	return fn()
}

// Apart calls fn in a goroutine of its own and waits for it, so that it can
// neither panic here nor end this goroutine.
func Apart(fn func() error) error { return <-Start(fn) }

// Start is Apart without the wait: the channel takes the result.
func Start(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() { done <- err }()
		err = Call(fn)
	}()
	return done
}

// Text is the text of an error, or of another value, whatever its methods do.
func Text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	done := make(chan string, 1)
	go func() {
		text := "its text could not be made"
		defer func() {
			_ = recover() // its value may be no better
			done <- text
		}()
		if err, ok := v.(error); ok {
			text = err.Error()
		} else {
			text = fmt.Sprint(v)
		}
	}()
	return <-done
}

// mostSaid bounds the reasons that Said remembers.
const mostSaid = 100

// Said remembers what was said, so that it is said once. The zero value works.
type Said struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

// First says whether a reason is a new one. Beyond a hundred none is.
func (s *Said) First(reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[reason]; ok || len(s.seen) >= mostSaid {
		return false
	}
	if s.seen == nil {
		s.seen = map[string]struct{}{}
	}
	s.seen[reason] = struct{}{}
	return true
}
