package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// While the slot of the first key was being moved, all keys were sent one after
// another.
func TestSetMany_OnlyKeysOfMovingSlotsAreSentOneByOne(t *testing.T) {
	cl := madcrowtest.StartCluster(t)
	cfg, proxies := cl.Proxied(t)
	cfg.Require, cfg.CommandTimeout = true, 10*time.Second
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	c := makeCache(t, r, Options[string]{})
	values := map[string]string{}
	for i := range 50 {
		values[fmt.Sprint("k", i)] = "v"
	}
	ca, err := c.options(nil)
	if err != nil {
		t.Fatal(err)
	}
	states := c.tags.of(nil, nil)
	gens, err := c.tags.fetch(t.Context(), 0, time.Hour, states)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.encodeMany(values, ca, marks(states, gens))
	if err != nil {
		t.Fatal(err)
	}
	first := all[0].valueKey
	from := cl.MasterOf(t, first)
	for _, n := range cl.Nodes()[:3] {
		if n != from {
			cl.BeginMove(t, cl.Slot(first), n)
			break
		}
	}
	send := func() time.Duration {
		began := time.Now()
		failures, err := c.sendMany(t.Context(), all)
		for i, e := range append(failures, err) {
			if e != nil {
				t.Errorf("%d: %v", i, e)
			}
		}
		return time.Since(began)
	}
	for _, e := range all { // the way to all nodes is known
		if err := c.Delete(t.Context(), e.encKey); err != nil {
			t.Fatal(err)
		}
	}
	send() // from now on the slot is known to move
	for _, p := range proxies {
		p.SetDelay(20 * time.Millisecond)
	}
	took := send()
	t.Logf("%d values with one of a moving slot: %v, a round trip is 20 ms", len(all), took)
	if took > 200*time.Millisecond+testkit.Slack(200*time.Millisecond) {
		t.Errorf("it took %v", took)
	}
	for _, p := range proxies {
		p.SetDelay(0)
	}
	if got, err := c.GetMany(t.Context(), []string{all[0].encKey, all[1].encKey}); len(got) != 2 || err != nil {
		t.Errorf("%v %v", got, err)
	}
}
