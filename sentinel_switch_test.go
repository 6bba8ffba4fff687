package madcrow_test

import (
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// The Sentinels name another master and the old one lives on, cut off from them.
// Dedicated connections and subscriptions stayed with it.
func TestSentinel_DedicatedConnectionsAndSubscriptionsLeaveTheOldMaster(t *testing.T) {
	a, b := madcrowtest.StartRedis(t), madcrowtest.StartRedis(t)
	f := startFakeSentinel(t, a.Addr(), 1)
	r := open(t, fakeSet(t, f))
	awaitMaster(t, r, a.Addr(), 3*time.Second)
	tx := func() {
		if _, err := r.Tx(t.Context(), []string{"k"}, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "k")); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	tx() // leaves an idle dedicated connection
	got := make(chan string, 10)
	ready := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- r.Subscribe(t.Context(), madcrow.Subscription{Channels: []string{"c"}}, madcrow.Handler{
			OnMessage:    func(m madcrow.PubSubMessage) { got <- m.Payload },
			OnSubscribed: func(string) { close(ready) },
		})
	}()
	<-ready
	f.set(func() { f.master, f.epoch = b.Addr(), 2 })
	awaitMaster(t, r, b.Addr(), 8*time.Second)
	for range 5 {
		tx()
	}
	onA, onB := a.Do(t, "GET", "k"), b.Do(t, "GET", "k")
	if onA != "1" || onB != "5" {
		t.Errorf("5 transactions after the switch: old master has %v (want 1), new master %v (want 5)", onA, onB)
	}
	_ = r.Do(t.Context(), r.B().Publish().Channel("c").Message("hi").Build()).Err()
	select {
	case <-got:
	case err := <-ended:
		t.Logf("the subscription ended: %v", err)
	case <-time.After(4 * time.Second):
		t.Error("the subscriber still listens to the old master: neither a message nor an end")
	}
}

// The old master becomes a replica and its connections live on. Transactions
// went on failing with READONLY.
func TestSentinel_TransactionsLeaveAMasterThatBecomesAReplica(t *testing.T) {
	a, b := madcrowtest.StartRedis(t), madcrowtest.StartRedis(t)
	f := startFakeSentinel(t, a.Addr(), 1)
	r := open(t, fakeSet(t, f))
	awaitMaster(t, r, a.Addr(), 3*time.Second)
	tx := func() error {
		_, err := r.Tx(t.Context(), []string{"k"}, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "k")); return nil })
		return err
	}
	if err := tx(); err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.master, f.epoch = b.Addr(), 2 })
	awaitMaster(t, r, b.Addr(), 8*time.Second)
	a.Do(t, "REPLICAOF", "127.0.0.1", "1") // without CLIENT KILL
	bad := 0
	var last error
	start := time.Now()
	for time.Since(start) < 4*time.Second {
		if err := tx(); err != nil {
			bad++
			last = err
		}
		time.Sleep(50 * time.Millisecond)
	}
	if bad > 0 {
		t.Errorf("%d of 80 transactions failed, last %v", bad, last)
	}
}

// The Sentinel that answered first was believed, though its epoch was lower.
func TestSentinel_OneThatLagsIsNotBelievedAtTheStart(t *testing.T) {
	a, b := madcrowtest.StartRedis(t), madcrowtest.StartRedis(t)
	lag := startFakeSentinel(t, a.Addr(), 1)
	f2, f3 := startFakeSentinel(t, b.Addr(), 2), startFakeSentinel(t, b.Addr(), 2)
	for _, f := range []*fakeSentinel{f2, f3} {
		f.delay = 5 * time.Millisecond
	}
	r := open(t, fakeSet(t, lag, f2, f3))
	await(t, r, madcrow.StateUp, 3*time.Second)
	mustSet(t, r, "k", "v")
	if a.Do(t, "GET", "k") != nil {
		start := time.Now()
		awaitMaster(t, r, b.Addr(), 10*time.Second)
		t.Errorf("a write went to the old master, for %v more", time.Since(start))
	}
}

// The Sentinels that know better did not answer for a moment, and a healthy
// master was left for the one that a lower epoch names.
func TestSentinel_ALowerEpochIsNotBelieved(t *testing.T) {
	a, b := madcrowtest.StartRedis(t), madcrowtest.StartRedis(t)
	lag := startFakeSentinel(t, a.Addr(), 1)
	f2, f3 := startFakeSentinel(t, b.Addr(), 2), startFakeSentinel(t, b.Addr(), 2)
	lag.delay = 5 * time.Millisecond
	r := open(t, fakeSet(t, lag, f2, f3))
	awaitMaster(t, r, b.Addr(), 7*time.Second)
	for _, f := range []*fakeSentinel{f2, f3} {
		f.set(func() { f.mute = true })
	}
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if r.Status().Master == a.Addr() {
			t.Fatal("left a healthy master for the one that a Sentinel of a lower epoch names")
		}
	}
}
