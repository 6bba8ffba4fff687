package madcrow

import (
	"context"
	"fmt"
	"testing"
)

func TestError_SaysWhetherToTryAgain(t *testing.T) {
	full := &Error{Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: fmt.Errorf("%w: x", ErrQuota)}
	for _, tc := range []struct {
		name                          string
		err                           *Error
		notSent, temporary, retryable bool
	}{
		{"away", &Error{Kind: KindUnavailable, Outcome: OutcomeNotApplied}, true, true, true},
		{"away, perhaps applied", &Error{Kind: KindUnavailable}, false, true, false},
		{"timeout before it was sent", &Error{Kind: KindTimeout, Outcome: OutcomeNotApplied, Err: context.DeadlineExceeded}, true, true, true},
		{"the caller gave up", &Error{Kind: KindCanceled, Outcome: OutcomeNotApplied, Err: context.Canceled}, true, true, false},
		{"failing over", &Error{Kind: KindReadOnly, Outcome: OutcomeNotApplied}, true, true, true},
		{"loading", &Error{Kind: KindLoading, Outcome: OutcomeNotApplied}, true, true, true},
		{"busy", &Error{Kind: KindBusy, Outcome: OutcomeNotApplied}, true, true, true},
		{"password just changed", &Error{Kind: KindAuth, Outcome: OutcomeNotApplied}, true, true, true},
		{"denied at connecting", &Error{Kind: KindPermission, Outcome: OutcomeNotApplied, permanent: true}, true, true, true},
		{"denied", &Error{Kind: KindPermission, Outcome: OutcomeNotApplied}, true, false, false},
		{"quota", full, true, true, true},
		{"full", &Error{Kind: KindOutOfMemory, Outcome: OutcomeNotApplied}, true, false, false},
		{"closed", &Error{Kind: KindUnavailable, Outcome: OutcomeNotApplied, Err: ErrClosed}, true, false, false},
		{"wrong type", &Error{Kind: KindWrongType, Outcome: OutcomeNotApplied}, true, false, false},
		{"a script that failed", &Error{Kind: KindServer}, false, false, false},
		{"applied", &Error{Outcome: OutcomeApplied}, false, false, false},
	} {
		for range 2 { // as it is, and handed on by a package
			if e := tc.err; e.NotSent() != tc.notSent || e.Temporary() != tc.temporary || e.Retryable() != tc.retryable {
				t.Errorf("%s: NotSent %v, Temporary %v, Retryable %v", tc.name, e.NotSent(), e.Temporary(), e.Retryable())
			}
			tc.err = &Error{Op: "cache.get", Name: "c", Kind: tc.err.Kind, Outcome: tc.err.Outcome, Err: tc.err}
		}
	}
}
