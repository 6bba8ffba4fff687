package operr_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
)

var errGone = errors.New("gone")

var fail = operr.Maker{Package: "cache", Problem: func(op, name string, err error) problem.Problem {
	switch {
	case errors.Is(err, errGone):
		return problem.Problem{Status: 404, Code: "NOT_FOUND"}
	case errors.Is(err, madcrow.ErrTimeout):
		return problem.Problem{Status: 504, Code: "CACHE_TIMEOUT", Operation: op}
	}
	return problem.Problem{Status: 503, Code: "CACHE_UNAVAILABLE", Operation: op}
}}

func TestWrap_KeepsKindOutcomeAndCause(t *testing.T) {
	redis := &madcrow.Error{Op: "GET", Kind: madcrow.KindTimeout, Outcome: madcrow.OutcomeUnknown, Err: context.DeadlineExceeded}
	for _, tc := range []struct {
		err    error
		text   string
		kind   madcrow.Kind
		out    madcrow.Outcome
		status int
	}{
		{redis, `madcrow: cache.get "c": GET: timeout (outcome unknown): context deadline exceeded`, madcrow.KindTimeout, madcrow.OutcomeUnknown, 504},
		{fmt.Errorf("second try: %w", redis), `madcrow: cache.get "c": timeout (outcome unknown): second try: madcrow: GET: timeout (outcome unknown): context deadline exceeded`, madcrow.KindTimeout, madcrow.OutcomeUnknown, 504},
		{errGone, `madcrow: cache.get "c": gone`, 0, madcrow.OutcomeNotApplied, 404},
		{context.DeadlineExceeded, `madcrow: cache.get "c": timeout: context deadline exceeded`, madcrow.KindTimeout, madcrow.OutcomeNotApplied, 503},
		{context.Canceled, `madcrow: cache.get "c": canceled: context canceled`, madcrow.KindCanceled, madcrow.OutcomeNotApplied, 503},
	} {
		err := fail.Wrap("get", "c", tc.err)
		var e *madcrow.Error
		if !errors.As(err, &e) || e.Op != "cache.get" || e.Name != "c" || e.Kind != tc.kind || e.Outcome != tc.out || !errors.Is(err, tc.err) {
			t.Errorf("%v: %#v", tc.err, err)
		}
		if err.Error() != tc.text {
			t.Errorf("text %q, want %q", err, tc.text)
		}
		if p := problem.From(fmt.Errorf("outer: %w", err)); p.Status != tc.status {
			t.Errorf("%v: answered %d, want %d", err, p.Status, tc.status)
		}
		if again := fail.Wrap("get", "c", fmt.Errorf("again: %w", err)); again.Error() != "again: "+err.Error() {
			t.Errorf("wrapped twice: %v", again)
		}
	}
	if err := fail.Wrap("get", "c", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	var e *madcrow.Error
	if err := fail.WrapAs("login", "s", madcrow.OutcomeApplied, errGone); !errors.As(err, &e) || e.Outcome != madcrow.OutcomeApplied || operr.NotSent(err) {
		t.Errorf("%#v", err)
	}
}

// An argument error was answered with 422, as if the client's request were
// wrong.
func TestArgument_IsAMistakeOfTheProgram(t *testing.T) {
	err := fail.Argument("set", "c", "TTL", "must be at least 1 ms")
	if want := `madcrow: cache.set "c": argument TTL: must be at least 1 ms`; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	if got := fail.Wrap("set", "c", err); got != err { //nolint:errorlint // the very same
		t.Errorf("wrapped: %v", got)
	}
	if !operr.IsArgument(fmt.Errorf("x: %w", err)) || operr.Retryable(err) || operr.Temporary(err) {
		t.Errorf("%#v", err)
	}
	if p := problem.From(err); p.Status != 500 || p.Code != problem.CodeInternal || len(p.Errors) != 0 {
		t.Errorf("answered %+v", p)
	}
	p := problem.From(operr.Unprocessable("body.ttl", fmt.Errorf("x: %w", err)))
	if p.Status != 422 || p.Code != problem.CodeValidation || len(p.Errors) != 1 || p.Errors[0].Field != "body.ttl" {
		t.Errorf("at a boundary: %+v", p)
	}
	if got := operr.Unprocessable("body.ttl", errGone); got != errGone { //nolint:errorlint // the very same
		t.Errorf("another error became %v", got)
	}
}
