package topology

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/deadline"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/node"
)

// routeTo is a Route to a cluster whose nodes do not exist, or to one node that
// does not, and that node.
func routeTo(t *testing.T, clustered bool) (*Route, *node.Node) {
	t.Helper()
	if clustered {
		top, end := openCluster(t, false, "127.0.0.1:1")
		t.Cleanup(end)
		return &Route{Topology: top}, top.cluster.ensure("127.0.0.1:2")
	}
	life, stop := context.WithCancel(context.Background())
	top, err := New(life, Config{
		Node: node.Config{Conn: conn.Config{
			Log: slog.New(slog.DiscardHandler), Network: "tcp", Dial: (&net.Dialer{}).DialContext,
			ConnectTimeout: time.Second, CommandTimeout: time.Second, MaxConnections: 8,
		}, Address: "127.0.0.1:2"},
		Changed: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); top.Close() })
	return &Route{Topology: top}, top.One()
}

// routeError is an error as the error of a call is asserted.
type routeError struct {
	kind    fault.Kind
	outcome fault.Outcome
	cause   error
}

func (want routeError) check(t *testing.T, what string, again bool, e *fault.Error) {
	t.Helper()
	if again || e == nil || e.Kind != want.kind || e.Outcome != want.outcome || !errors.Is(e, want.cause) {
		t.Errorf("%s: again %v, %v; want %v", what, again, e, want)
	}
}

// A node of Sentinels that was demoted is being probed because the master has
// moved. A call that waited for it in vain was counted as redirected, tried five
// times more, and ended with ErrTooManyRedirects.
func TestRoute_WithoutAClusterAMovedMasterIsNoRedirect(t *testing.T) {
	c, n := routeTo(t, false)
	moved := fault.NotSent("connect", fault.KindUnavailable, fault.ErrMoved)
	for _, over := range []error{context.Canceled, context.DeadlineExceeded} {
		failed := fault.NotSent("", fault.ContextKind(over), fault.Waited(over, moved))
		if c.Redirected(t.Context(), n, failed) {
			t.Error("redirected without a cluster")
		}
		again, e := c.Retry(t.Context(), n, "GET", failed, fault.ReadOnly)
		routeError{fault.ContextKind(over), fault.OutcomeNotApplied, over}.check(t, "Retry", again, e)
		again, e = c.RetryUnsent(t.Context(), n, "GET", failed)
		routeError{fault.ContextKind(over), fault.OutcomeNotApplied, over}.check(t, "RetryUnsent", again, e)
	}
	if c.Tries != 0 {
		t.Errorf("%d tries failed", c.Tries)
	}
}

func TestRoute_FollowsNoRedirectAfterItsContext(t *testing.T) {
	c, n := routeTo(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	moved := fault.NotSent("connect", fault.KindUnavailable, fault.ErrMoved)
	for _, tc := range []struct {
		failed error
		want   routeError
	}{
		{errors.New("MOVED 1 127.0.0.1:3"), routeError{fault.KindCanceled, fault.OutcomeNotApplied, context.Canceled}},
		{moved, routeError{fault.KindUnavailable, fault.OutcomeNotApplied, fault.ErrMoved}},
		{fault.NotSent("", fault.KindCanceled, fault.Waited(context.Canceled, moved)), routeError{fault.KindCanceled, fault.OutcomeNotApplied, context.Canceled}},
	} {
		if c.Redirected(ctx, n, tc.failed) {
			t.Errorf("%v was followed", tc.failed)
		}
		again, e := c.Retry(ctx, n, "SET", tc.failed, fault.Idempotent)
		tc.want.check(t, tc.failed.Error(), again, e)
	}
}

// The redirect over the limit hid every later failure behind
// ErrTooManyRedirects, and reads were tried again after it.
func TestRoute_TheRedirectOverTheLimitEndsTheCall(t *testing.T) {
	gone := fault.NotSent("connect", fault.KindUnavailable, fault.ErrMoved)
	for _, tc := range []struct {
		failed, cause error
	}{
		{errors.New("MOVED 1 127.0.0.1:3"), fault.ErrTooManyRedirects},
		{errors.New("ASK 1 127.0.0.1:3"), fault.ErrTooManyRedirects},
		{gone, fault.ErrMoved},
	} {
		for _, idem := range []fault.Idempotency{fault.NonIdempotent, fault.Idempotent, fault.ReadOnly} {
			c, n := routeTo(t, true)
			for i := range MaxRedirects {
				if again, e := c.Retry(t.Context(), n, "GET", tc.failed, idem); !again {
					t.Fatalf("redirect %d was not followed: %v", i+1, e)
				}
			}
			again, e := c.Retry(t.Context(), n, "GET", tc.failed, idem)
			routeError{fault.KindUnavailable, fault.OutcomeNotApplied, tc.cause}.check(t, tc.failed.Error(), again, e)
			if c.Tries != MaxRedirects || c.breaks != 0 {
				t.Errorf("%d tries failed, %d of them broke", c.Tries, c.breaks)
			}
			later := fault.NotSent("GET", fault.KindTimeout, context.DeadlineExceeded)
			again, e = c.Retry(t.Context(), n, "GET", later, idem)
			routeError{fault.KindTimeout, fault.OutcomeNotApplied, context.DeadlineExceeded}.check(t, "a later failure", again, e)
		}
	}
}

// The error of a node that is known to be away may be ErrNotOpen, which is tried
// again elsewhere: a call to it took five tries, and pauses between them.
func TestRoute_ACallToANodeThatIsAwayFailsAtOnce(t *testing.T) {
	away := fault.NotSent("connect", fault.KindUnavailable, fault.ErrNotOpen)
	for _, clustered := range []bool{false, true} {
		c, n := routeTo(t, clustered)
		again, e := c.RetryUnsent(t.Context(), n, "GET", away)
		routeError{fault.KindUnavailable, fault.OutcomeNotApplied, fault.ErrNotOpen}.check(t, "away", again, e)
		if e.Op != "GET" || c.Tries != 0 {
			t.Errorf("%v after %d tries", e, c.Tries)
		}
		late := fault.NotSent("", fault.KindTimeout, context.DeadlineExceeded)
		c.refusal = fault.NotSent("GET", fault.KindLoading, fault.ErrLoading)
		again, e = c.RetryUnsent(t.Context(), n, "GET", late)
		routeError{fault.KindLoading, fault.OutcomeNotApplied, fault.ErrLoading}.check(t, "after LOADING", again, e)
	}
	c, n := routeTo(t, true)
	if again, e := c.RetryUnsent(t.Context(), n, "GET", fault.NotSent("connect", fault.KindUnavailable, fault.ErrMoved)); !again {
		t.Errorf("the node left the cluster, and the call failed: %v", e)
	}
}

// A call inside SplitKeys of a cluster to another Redis, without a cluster, that
// answers TRYAGAIN dereferenced nil.
func TestRoute_WithoutAClusterNoSlotMoves(t *testing.T) {
	split := context.WithValue(t.Context(), deadline.SplitsKeys{}, true)
	moving := fault.Failure{Error: fault.NotSent("MSET", fault.KindUnavailable, fault.ErrSlotMoving), SlotMoving: true}
	for _, clustered := range []bool{false, true} {
		c, _ := routeTo(t, clustered)
		if got := c.SaysMoving(split, moving); got != clustered {
			t.Errorf("clustered %v: says that the slot moves: %v", clustered, got)
		}
	}
}
