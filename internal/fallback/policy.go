// Package fallback is what a limit does while Redis is unavailable: the policy,
// the count in this process, and the log of outages. Packages ratelimit and
// semaphore share it.
package fallback

import "github.com/madcrow-go/madcrow"

// Problem says what is wrong with the policy of a limit; "" is nothing.
func Problem(p madcrow.FailPolicy) string {
	const choice = "choose madcrow.FailOpen, madcrow.FailClosed or madcrow.FailLocal(processes)"
	switch {
	case p.IsLocal() && p.Processes() < 1:
		return "FailLocal needs the number of processes, at least 1"
	case p == madcrow.FailOpen, p == madcrow.FailClosed, p.IsLocal():
		return ""
	case p == madcrow.FailPolicy{}:
		return "is required: " + choice
	}
	return p.String() + " is not for limits: " + choice
}

// Share is this process's part of a limit under FailLocal, at least 1.
func Share(p madcrow.FailPolicy, limit int64) int64 { return max(1, limit/int64(p.Processes())) }
