package ratelimit

import (
	"fmt"
	"time"

	"github.com/madcrow-go/madcrow/internal/operr"
)

// Bounds of a limit.
const (
	MinWindow = 10 * time.Millisecond
	MaxWindow = 31 * 24 * time.Hour
	// maxLogged bounds the memory of one subject in a log.
	maxLogged = 1_000_000
	// maxLimit keeps all arithmetic exact.
	maxLimit = 1_000_000_000
)

// The bounds in messages.
const (
	windowBounds = "from 10ms to 31 days"
	blockBounds  = "from 1ms to 31 days"
)

// Rate is a number of requests in a window. Make it with [Per] and its like.
type Rate struct {
	// Limit is at least 1, at most 1,000,000 for logs and 1,000,000,000
	// otherwise.
	Limit int64
	// Window is from 10 ms to 31 days, in whole microseconds.
	Window time.Duration
}

// Per is n in each window.
func Per(window time.Duration, n int64) Rate { return Rate{n, window} }

// PerSecond is n in each second.
func PerSecond(n int64) Rate { return Rate{n, time.Second} }

// PerMinute is n in each minute.
func PerMinute(n int64) Rate { return Rate{n, time.Minute} }

// PerHour is n in each hour.
func PerHour(n int64) Rate { return Rate{n, time.Hour} }

// PerDay is n in each 24 hours.
func PerDay(n int64) Rate { return Rate{n, 24 * time.Hour} }

func (r Rate) micros() int64 { return r.Window.Microseconds() }

func (r Rate) check(where string, mostLimit int64, wrong *operr.Arguments) {
	if r == (Rate{}) {
		wrong.Check(false, where, "is required, such as ratelimit.PerMinute(100)")
		return
	}
	wrong.Check(r.Limit >= 1 && r.Limit <= mostLimit, where, fmt.Sprintf("the limit must be from 1 to %d", mostLimit))
	wrong.Check(r.Window >= MinWindow && r.Window <= MaxWindow, where, "the window must be "+windowBounds)
	wrong.Check(r.Window%time.Microsecond == 0, where, "the window must be whole microseconds")
}
