package topology

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// watch calls changed after each message about a failover, and from time to
// time, until ctx ends. It listens to every Sentinel: the one that leads a
// failover tells first, another may be frozen.
func (f *finder) watch(ctx context.Context, changed func()) {
	var listeners sync.WaitGroup
	defer listeners.Wait()
	heard := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range heard {
			stop()
		}
	}()
	tick := time.NewTicker(sentinelEvery)
	defer tick.Stop()
	changed()
	for {
		f.listenAll(ctx, heard, &listeners, changed)
		select {
		case <-tick.C:
			changed()
		case <-ctx.Done():
			return
		}
	}
}

// listenAll begins to listen to each Sentinel that is new, and ends with those that
// are gone.
func (f *finder) listenAll(ctx context.Context, heard map[string]context.CancelFunc, listeners *sync.WaitGroup, changed func()) {
	addrs := f.distinctAddrs()
	for addr, stop := range heard {
		if !slices.Contains(addrs, addr) {
			stop()
			delete(heard, addr)
		}
	}
	for _, addr := range addrs {
		if heard[addr] == nil {
			life, stop := context.WithCancel(ctx)
			heard[addr] = stop
			listeners.Go(func() { f.follow(life, addr, changed) })
		}
	}
}

// distinctAddrs returns one address of each Sentinel.
func (f *finder) distinctAddrs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var addrs []string
	keys := map[string]struct{}{}
	for _, a := range f.addrs {
		if id := f.ids[a]; id.lately && !id.several {
			if _, seen := keys[id.key(a)]; seen {
				continue
			}
			keys[id.key(a)] = struct{}{}
		}
		addrs = append(addrs, a)
	}
	return addrs
}

// follow listens to one Sentinel, again and again.
func (f *finder) follow(ctx context.Context, addr string, changed func()) {
	var failed logonce.Reasons
	for failures := 0; ctx.Err() == nil; failures++ {
		begun, err := f.listen(ctx, addr, failures, changed)
		if begun {
			failures = 0
			failed.Clear()
		}
		if err != nil && ctx.Err() == nil && failed.First(err) {
			f.log.Debug("a Sentinel is not listened to", "address", addr, "reason", err)
		}
		select {
		case <-time.After(listenAgain):
		case <-ctx.Done():
		}
	}
}

// listen subscribes to one Sentinel. A Sentinel that stays silent for longer
// than sentinelEvery is asked for a sign of life. It says whether it began to
// listen.
func (f *finder) listen(ctx context.Context, addr string, failures int, changed func()) (begun bool, err error) {
	if err := f.Fetch(ctx); err != nil {
		return false, err
	}
	c, err := f.Open(ctx, f.stepTimeout(failures), addr)
	if err != nil {
		return false, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	// Either event will do, where a user may hear only one.
	if err := resp.Write(c, []string{"SUBSCRIBE", "+switch-master"}, []string{"SUBSCRIBE", "+promoted-slave"}); err != nil {
		return begun, err
	}
	denied := 0
	for ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(sentinelEvery))
		reply, err := resp.Read(c.Reader)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && c.Reader.Buffered() == 0 {
			if err = resp.Write(c, []string{"PING"}); err != nil {
				return begun, err
			}
			_ = c.SetReadDeadline(time.Now().Add(f.stepTimeout(0)))
			reply, err = resp.Read(c.Reader)
		}
		if err != nil {
			return begun, err
		}
		if refused, ok := reply.(resp.Error); ok {
			if denied++; denied > 1 {
				return begun, f.Refused(refused)
			}
		}
		list, subscribed := reply.([]any)
		begun = begun || subscribed
		if len(list) == 3 && list[0] == "message" {
			changed()
		}
	}
	return begun, ctx.Err()
}
