package testkit

import "time"

// The tiers of tests are build tags.
//
//	go test                 faults are short, and promised times have slack
//	go test -tags chaos     faults in full length, with strict bounds; alone on the machine
//	go test -tags soak      long random runs
//
// A test that has a short and a long form asks [Chaos] or [Soak], or uses
// [Slack] and [Length]. One that has only a long form stands in a file with the
// tag.

// Slack is the limit that a test asserts where d is promised: d in the chaos
// tier, otherwise four times as much, as other tests and the race detector run.
func Slack(d time.Duration) time.Duration {
	if Chaos {
		return d
	}
	return 4 * d
}

// Length is how long a fault lasts: usual, or long in the chaos tier.
func Length(usual, long time.Duration) time.Duration {
	if Chaos {
		return long
	}
	return usual
}

// Rounds is how often something random is tried: usual, or long in the soak
// tier.
func Rounds(usual, long int) int {
	if Soak {
		return long
	}
	return usual
}
