// Package fallback is what a limit does while Redis is unavailable: the policy,
// the count in this process, and the log of outages. Packages ratelimit and
// semaphore share it.
package fallback

// Mode is the kind of a policy.
type Mode uint8

// The modes. The zero value is none.
const (
	Open   Mode = iota + 1 // admit
	Closed                 // return the error
	Local                  // count in this process
)

// Policy is a mode, with the number of processes that share a limit for Local.
type Policy struct {
	Mode      Mode
	Processes int64
}

// Problem says what is wrong with a policy; "" is nothing.
func (p Policy) Problem() string {
	switch {
	case p.Mode == 0:
		return "choose FailOpen, FailClosed or FailLocal"
	case p.Mode == Local && p.Processes < 1:
		return "FailLocal needs the number of processes, at least 1"
	}
	return ""
}

// String returns "open", "closed" or "local", and "none" for the zero policy.
func (p Policy) String() string {
	switch p.Mode {
	case Open:
		return "open"
	case Closed:
		return "closed"
	case Local:
		return "local"
	}
	return "none"
}

// Share is this process's part of a limit, at least 1.
func (p Policy) Share(limit int64) int64 { return max(1, limit/p.Processes) }
