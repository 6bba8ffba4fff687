package pubsub

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
)

// Every error of this package has its status and a code, and the response says
// nothing of the cause or the name.
func TestErrors_EachHasItsStatus(t *testing.T) {
	const secret = "WRONGTYPE dial tcp 10.1.2.3:6379"
	for err, want := range map[error]struct {
		status int
		retry  bool
	}{
		ErrQueued:      {503, true},
		ErrOutboxFull:  {503, true},
		ErrHistoryLost: {503, true},
		ErrSlow:        {503, true},
		ErrTooOld:      {500, false},
		ErrMalformed:   {503, true},
		ErrClosed:      {503, true},
		&madcrow.Error{Op: "GET", Kind: madcrow.KindTimeout, Err: errors.New(secret)}:     {504, false},
		&madcrow.Error{Op: "GET", Kind: madcrow.KindTooLarge, Err: errors.New(secret)}:    {413, false},
		&madcrow.Error{Op: "GET", Kind: madcrow.KindUnavailable, Err: errors.New(secret)}: {503, true},
	} {
		p := problem.From(fail.Wrap("publish", "user-7", err))
		if p.Status != want.status || (p.RetryAfter > 0) != want.retry {
			t.Errorf("%v: %d, Retry-After %v; want %d, %v", err, p.Status, p.RetryAfter, want.status, want.retry)
		}
		text := fmt.Sprintf("%+v", p)
		for _, leak := range []string{"WRONGTYPE", "10.1.2.3", "user-7", "GET"} {
			if strings.Contains(text, leak) {
				t.Errorf("%v: the response says %q: %s", err, leak, text)
			}
		}
		if p.Status != 500 && p.Code == problem.CodeInternal {
			t.Errorf("%v has no code of its own", err)
		}
	}
	if p := problem.From(fail.Argument("publish", "user-7", "message", "m")); p.Status != 500 {
		t.Errorf("a mistake of the program is answered %d", p.Status)
	}
}
