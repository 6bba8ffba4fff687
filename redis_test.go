package madcrow_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestDo_AbsenceIsNoError(t *testing.T) {
	_, r := server(t)
	msg, err := r.Do(t.Context(), get(r, "nothing")).Message()
	if err != nil || !msg.IsNil() {
		t.Errorf("GET of an absent key: %v, %v", msg, err)
	}
}

func TestDo_CancelledBeforeAndDuring(t *testing.T) {
	s, r := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := r.Do(ctx, set(r, "a", "1")).Err()
	wantError(t, err, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeNotApplied)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not context.Canceled", err)
	}
	s.Pause()
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	start := time.Now()
	err = r.Do(ctx, set(r, "a", "1")).Err()
	if d := time.Since(start); d > 30*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("cancelled after 30 ms, returned after %v", d)
	}
	wantError(t, err, madcrow.KindCanceled, madcrow.ErrCanceled, madcrow.OutcomeUnknown)
	s.Resume()
}

func TestDo_TimeoutOfAReadChangedNothingOfAWriteIsUnknown(t *testing.T) {
	s, r := server(t)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
	defer cancel()
	s.Pause()
	var wg sync.WaitGroup
	wg.Go(func() {
		err := r.Do(ctx, get(r, "a")).Err()
		wantError(t, err, madcrow.KindTimeout, madcrow.ErrTimeout, madcrow.OutcomeNotApplied)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not context.DeadlineExceeded", err)
		}
	})
	err := r.Do(ctx, set(r, "a", "1")).Err()
	wantError(t, err, madcrow.KindTimeout, madcrow.ErrTimeout, madcrow.OutcomeUnknown)
	wg.Wait()
	s.Resume()
}

func TestDo_LargeValuesHaveTheirOwnConnectionAndABound(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxValueSize = 1 << 20
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mustSet(t, r, "a", "1")
	before := r.Status().Connections
	big := strings.Repeat("x", 200<<10)
	mustSet(t, r, "big", big)
	if after := r.Status().Connections; after != before+1 {
		t.Errorf("%d connections before a large value and %d after it, want one more", before, after)
	}
	msg, err := r.Do(t.Context(), get(r, "big"), madcrow.Dedicated).Message()
	if v, _ := msg.ToString(); err != nil || v != big {
		t.Errorf("DoBulk: %d bytes, %v", len(v), err)
	}
	err = r.Do(t.Context(), set(r, "big", strings.Repeat("x", 1<<20))).Err()
	wantError(t, err, madcrow.KindTooLarge, madcrow.ErrTooLarge, madcrow.OutcomeNotApplied, "MaxValueSize")
	_, err = r.DoMulti(t.Context(), r.B().Set().Key("x").Value(big+big+big).Build(), r.B().Set().Key("y").Value(big+big+big).Build())
	wantError(t, err, madcrow.KindTooLarge, madcrow.ErrTooLarge, madcrow.OutcomeNotApplied)
}

// TestDo_SmallCallsDoNotWaitBehindLargeOnes sends large values over a slow
// wire: the small ones have a connection of their own.
func TestDo_SmallCallsDoNotWaitBehindLargeOnes(t *testing.T) {
	_, r := server(t)
	mustSet(t, r, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	big := strings.Repeat("x", 8<<20)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = r.Do(ctx, set(r, "big", big)).Err()
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	var most time.Duration
	for range 50 {
		start := time.Now()
		mustGet(t, r, "a", "1")
		most = max(most, time.Since(start))
		time.Sleep(2 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	t.Logf("slowest small call beside large ones: %v", most)
	if most > testkit.Slack(200*time.Millisecond) {
		t.Errorf("a small call took %v", most)
	}
}

func TestWatch_YieldsEachChange(t *testing.T) {
	s, r := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch := r.Watch(ctx)
	if st := <-ch; st.State != madcrow.StateUp || st.Err != nil || st.Mode != "standalone" || st.Address != s.Addr() {
		t.Errorf("first status: %+v", st)
	}
	s.Kill()
	if st := <-ch; st.State != madcrow.StateDown || !errors.Is(st.Err, madcrow.ErrUnavailable) {
		t.Errorf("after the kill: %+v", st)
	}
	s.Start()
	for st := range ch { // a new reason to be down is a change, too
		if st.State == madcrow.StateUp {
			break
		}
		if st.State != madcrow.StateDown {
			t.Errorf("after the start: %+v", st)
		}
	}
	cancel()
	for range ch { //nolint:revive // drained until it is closed
	}
	deadline := time.Now().Add(2 * time.Second)
	for r.Status().Server.Version == "" && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if st := r.Status(); st.Server.Version == "" || st.Server.UsedMemoryHuman == "" || st.Server.ConnectedClients == 0 || st.RTT == 0 || st.Connections == 0 {
		t.Errorf("status: %+v", st)
	}
}
