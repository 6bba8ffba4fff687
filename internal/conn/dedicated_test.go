package conn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/fault"
)

// The goroutine of a caller who had left wrote the client while Dedicate
// returned: a data race.
func TestPool_DedicateLeavesItsCallerNothingAfterItsContext(t *testing.T) {
	ep := NewEndpoint(t.Context(), Config{
		Log: slog.New(slog.DiscardHandler), Network: "tcp", Dial: (&net.Dialer{}).DialContext,
		ConnectTimeout: time.Second, CommandTimeout: time.Second, MaxConnections: 8,
	}, "127.0.0.1:1")
	ep.Availability.Set(availability.Up, nil)
	p := NewPool(ep, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		acquirePermit(t, p)
		client, release, err := p.Dedicate(ctx)
		if err == nil { // it was ready at the same moment
			release()
		} else if !errors.Is(err, fault.ErrCallerLeft) || client != nil || release != nil {
			t.Errorf("%v, %v", client, err)
		}
	}
	acquirePermit(t, p) // each call gave its permit back
}

func acquirePermit(t *testing.T, p *Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := p.AcquirePermit(ctx); err != nil {
		t.Fatal(err)
	}
}
