package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/availability"
	"github.com/madcrow-go/madcrow/internal/clock"
	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
)

const (
	probeFirst = 50 * time.Millisecond  // between the first two probes
	probeEvery = 500 * time.Millisecond // between later ones, at most
	authEvery  = 2 * time.Second        // after a refusal that lasts
	infoEvery  = 5 * time.Second
	// probeHangups is how often a probe that was hung up on is made again at
	// once.
	probeHangups = 2
	// minDownAfter is how long a node is probed at least before its calls fail.
	minDownAfter = 100 * time.Millisecond
)

// Run is the prober: it alone probes the node and says that it is up. It ends with
// ctx.
func (n *Node) Run(ctx context.Context) {
	ctx = conn.ProberContext(ctx)
	info := time.NewTicker(infoEvery / 5)
	defer info.Stop()
	ticks := 0
	var reading sync.WaitGroup
	defer reading.Wait()
	readInfo := func(again bool) {
		if n.readingInfo.CompareAndSwap(false, true) {
			reading.Go(func() {
				defer n.readingInfo.Store(false)
				if again {
					_ = n.probe(ctx, n.probeTimeout(0))
				}
				n.readInfo(ctx)
			})
		}
	}
	for ctx.Err() == nil {
		if !n.Availability.IsUp() {
			if !n.reconnect(ctx) {
				return
			}
			readInfo(n.remeasure)
		}
		select {
		case <-n.Availability.Woken():
		case p := <-n.Proofs:
			reading.Go(func() { p.Prove(n.Life) })
		case <-info.C:
			if ticks++; ticks%5 != 0 && !n.ReadOnly.Load() && n.Restriction() == nil {
				continue // a node that refuses calls is watched closely
			}
			readInfo(false)
			n.Dedicated.Trim()
		case <-ctx.Done():
		}
	}
}

// reconnect tries until the node serves. It returns false when ctx ended.
func (n *Node) reconnect(ctx context.Context) bool {
	wait := probeFirst
	for try := 0; ; try++ {
		start := time.Now()
		err := n.connect(ctx, try)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			n.served.Store(true)
			if n.Availability.Set(availability.Up, nil) {
				n.logConnected()
				n.changed()
			}
			return true
		}
		n.setDown(err)
		pause := wait
		if err.Permanent {
			pause = authEvery
		}
		wait = min(2*wait, probeEvery)
		pause = pause*8/10 + rand.N(pause*2/10) - time.Since(start)
		select {
		case <-time.After(max(pause, 0)):
		case <-ctx.Done():
			return false
		}
	}
}

// logConnected says that the node serves: at first, somewhere else, and after
// an outage that was logged. A connection that was lost and made again at once
// is no news.
func (n *Node) logConnected() {
	level := slog.LevelDebug
	if addr := n.Addr(); n.downReasons.Clear() || n.connectedTo != addr {
		level, n.connectedTo = slog.LevelInfo, addr
	}
	n.log.Log(n.Life, level, "redis is connected", "address", n.Addr(), "rtt", time.Duration(n.RTT.Load()))
}

// setDown makes calls fail at once, and says so once for each reason.
func (n *Node) setDown(err *fault.Error) {
	before := n.Availability.Cause()
	if n.Availability.Set(availability.Down, err) || before == nil || !fault.SameText(before, err) {
		n.logDown(err)
	}
	n.Dedicated.CancelDials()
	if !errors.Is(err, fault.ErrSilent) {
		n.Dedicated.CloseIdle(false) // the process is gone, and they with it
	}
}

func (n *Node) logDown(err *fault.Error) {
	if n.downReasons.First(err.Err) {
		n.log.Warn("redis is not available", "reason", err.Err)
	}
	n.changed()
}

// connect probes the node and then makes the shared connections, so that no caller ever
// waits for a dial.
func (n *Node) connect(ctx context.Context, try int) *fault.Error {
	late := time.AfterFunc(n.downAfter(), func() {
		e := &fault.Error{Op: "connect", Kind: fault.KindUnavailable, Outcome: fault.OutcomeNotApplied, Err: fmt.Errorf("%s: %w", n.Addr(), fault.ErrSilent)}
		if d := n.config.Discovery; d != nil {
			if err := d.Late(); err != nil {
				e.Err = err
			}
		}
		if n.Availability.SetDownIfProbing(e) {
			n.logDown(e)
			n.Dedicated.CancelDials()
		}
	})
	defer late.Stop()
	if n.config.Discovery != nil {
		if err := n.locate(ctx, try); err != nil {
			return err
		}
	}
	err := n.probe(ctx, n.probeTimeout(try))
	for again := 0; again < probeHangups && hungUp(err); again++ {
		// Somebody ends connections, ours of this moment too; the server
		// itself may be well.
		err = n.probe(ctx, n.probeTimeout(try))
	}
	// What answers after a pause says nothing of the round trip.
	n.remeasure = err == nil && !late.Stop()
	if err == nil {
		late.Reset(max(time.Second, n.downAfter())) // it is there; a connection may yet take long
	}
	if n.redial.Swap(false) {
		// All of them lead to what is no longer the master.
		n.Dedicated.CloseIdle(false)
		n.Conns.Drop()
	}
	if err == nil {
		if err = n.FetchCredentials(ctx); err != nil {
			err = fmt.Errorf("credentials: %w", err)
		}
	}
	for _, s := range n.shared {
		if err == nil {
			err = n.connectShared(ctx, s)
		}
	}
	if err == nil {
		err = n.identify(ctx)
	}
	if err == nil && n.config.Discovery != nil {
		err = n.checkRole(ctx)
	}
	if err != nil {
		return n.connectError(err)
	}
	return nil
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// locate moves the node where the master is.
func (n *Node) locate(ctx context.Context, try int) *fault.Error {
	addr, err := n.config.Discovery.Locate(ctx, try)
	if err != nil || addr == "" || addr == n.Addr() {
		return err
	}
	n.log.Info("the master is found", "address", addr)
	n.Move(addr)
	n.redial.Store(true)
	return nil
}

func (n *Node) downAfter() time.Duration {
	d := max(minDownAfter, 3*time.Duration(n.Handshake.Load()))
	if n.config.Discovery != nil {
		d += n.config.Discovery.Patience()
	}
	return d
}

// connectShared makes sure that a shared connection is open and answers, and
// replaces one that does not.
func (n *Node) connectShared(ctx context.Context, s *conn.Shared) error {
	var err error
	for try := 0; try < 4 && ctx.Err() == nil; try++ {
		if try > 0 {
			time.Sleep(time.Duration(try) * time.Millisecond)
		}
		start := clock.Now()
		timeout := n.probeTimeout(try)
		if try == 0 && s.IsOpen() {
			timeout = n.Usual() // it is open, and replaced if it stays silent
		}
		one, cancel := context.WithTimeout(ctx, timeout)
		err = n.hello(one, s)
		cancel()
		if err == nil {
			s.NoteReply(start)
			s.WakeWaiting()
			return n.serveReads(ctx, s)
		}
		if reply, ok := rueidis.IsRedisErr(err); ok {
			kind, _ := fault.ClassifyReply(reply.Error())
			if !s.IsOpen() {
				return err
			}
			switch {
			case kind == fault.KindBusy, fault.CommandUnavailable(err):
				return nil // it answers, if not this
			case kind == fault.KindAuth: // connect again, with the credentials of today
			default:
				return err
			}
		}
		if errors.Is(err, context.DeadlineExceeded) && s.IsOpen() && s.ReadSince(start) {
			continue // it answers, late
		}
		s.CloseConn()
	}
	return err
}

// serveReads tells a replica of a cluster that this connection only reads.
func (n *Node) serveReads(ctx context.Context, s *conn.Shared) error {
	if !n.config.Replica {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.probeTimeout(0))
	defer cancel()
	return s.Client.Do(ctx, n.Builder.Readonly().Build()).Error()
}
