package topology

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/logonce"
	"github.com/madcrow-go/madcrow/internal/node"
)

// discovery keeps a node where the Sentinels say that the master is.
type discovery struct {
	*finder
	node     *node.Node
	changed  func()
	follower *replicas // follows the replicas; nil: none are wanted

	located   atomic.Bool            // the Sentinels have named a master
	announced atomic.Pointer[string] // a master that they named just now; Locate takes it
	reasons   logonce.Reasons        // why the Sentinels do not tell where it is
	failures  atomic.Int32           // how often in a row they did not
}

// Locate asks the Sentinels where the master is. When none of them answers,
// the last one known may still serve, which does not wait long for them.
func (d *discovery) Locate(ctx context.Context, try int) (string, *fault.Error) {
	if d.located.Load() {
		try = min(try, 3)
	}
	if announced := d.announced.Swap(nil); announced != nil {
		d.located.Store(true)
		return *announced, nil
	}
	addr, err := d.find(ctx, try)
	switch {
	case err == nil:
		d.located.Store(true)
		return addr, nil
	case d.located.Load():
		return "", nil
	case errors.Is(err, errNotSentinel):
		return "", fault.WrongServer("connect", err)
	}
	return "", fault.NotSent("connect", fault.KindUnavailable, err)
}

// Late is why no Sentinel has named a master so far; nil when one has.
func (d *discovery) Late() error {
	if d.located.Load() {
		return nil
	}
	return d.late()
}

// Patience is how long calls wait for the Sentinels.
func (d *discovery) Patience() time.Duration {
	return d.cfg.SocketTimeout + min(time.Duration(d.first.Load()), time.Second)
}

// checkMaster looks whether the master is another one now, while all seems well.
func (d *discovery) checkMaster(ctx context.Context) {
	addr, err := d.find(ctx, int(d.failures.Load()))
	d.logDiscovery(ctx, err)
	if err == nil && addr != d.node.Addr() {
		d.announced.Store(&addr)
		d.node.Availability.Suspect(fault.NotSent("connect", fault.KindUnavailable, fault.ErrMoved))
	}
	d.changed()
	if healthy := d.replicas.Load(); d.follower != nil && err == nil && healthy != nil {
		d.follower.follow(*healthy, addr)
	}
}

// logDiscovery says that the Sentinels do not tell where the master is, while
// the one that is known goes on, and when they do again. Before one is known,
// Redis is not available, and the log says so.
func (d *discovery) logDiscovery(ctx context.Context, err error) {
	switch {
	case err == nil:
		d.failures.Store(0)
		if d.reasons.Clear() {
			d.log.Info("the Sentinels tell where the master is again")
		}
	case ctx.Err() == nil:
		if d.failures.Add(1) > 1 && d.located.Load() && d.reasons.First(err) {
			d.log.Warn("the Sentinels do not tell where the master is: a failover would not be followed", "reason", err)
		}
	}
}
