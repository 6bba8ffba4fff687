package madcrow_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// ack is a write that was acknowledged.
type ack struct {
	key string
	at  time.Time
}

// TestChaosSentinel_MinReplicasBoundsWhatAFailoverLoses orders a failover
// under load, without and with min-replicas-to-write. Without it the old
// master acknowledges writes that are lost, until the client
// learns of the new one; with it, it refuses them from the promotion on.
func TestChaosSentinel_MinReplicasBoundsWhatAFailoverLoses(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"without", nil},
		{"with", []string{"--min-replicas-to-write", "2", "--min-replicas-max-lag", "2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			madcrowtest.CheckLeaks(t)
			set, r := sentinelSet(t, madcrowtest.WithArgs(tc.args...))
			promoted := watchPromotion(t, set)
			acks := collectAcks(r, func() {
				time.Sleep(300 * time.Millisecond)
				set.Failover(t)
				for end := time.Now().Add(10 * time.Second); r.Status().Master != set.Master().Addr() && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(200 * time.Millisecond)
			})
			at := <-promoted
			lost, after := 0, 0
			for _, a := range missing(t, r, acks) {
				lost++
				if a.at.After(at.Add(testkit.Slack(25 * time.Millisecond))) {
					after++
				}
			}
			t.Logf("%d writes acknowledged, %d of them lost, of which %d were acknowledged after the promotion", len(acks), lost, after)
			if protected := tc.args != nil; protected == (after > 0) {
				t.Errorf("%d writes that the old master acknowledged after the promotion were lost", after)
			}
		})
	}
}

// watchPromotion tells when one of the replicas first said that it is a master.
func watchPromotion(t *testing.T, set *madcrowtest.SentinelSet) <-chan time.Time {
	t.Helper()
	found := make(chan time.Time, len(set.Replicas()))
	for _, s := range set.Replicas() {
		replica := open(t, s.Config())
		await(t, replica, madcrow.StateUp, 5*time.Second)
		go func() {
			for t.Context().Err() == nil {
				msg, err := replica.Do(t.Context(), arbitrary(replica, "ROLE")).Message()
				if list, _ := msg.ToArray(); err == nil && len(list) > 0 {
					if role, _ := list[0].ToString(); role == "master" {
						found <- time.Now()
						return
					}
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	return found
}

// collectAcks writes with 40 goroutines while fault runs.
func collectAcks(r *madcrow.Redis, fault func()) []ack {
	var mu sync.Mutex
	var acks []ack
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for g := range 40 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("w%d-%d", g, n)
				if err := r.Do(context.Background(), set(r, key, key)).Err(); err == nil {
					mu.Lock()
					acks = append(acks, ack{key, time.Now()})
					mu.Unlock()
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	fault()
	stop()
	wg.Wait()
	return acks
}

// missing returns those of acks that are not there. A node that has just taken
// over may need a while to answer.
func missing(t *testing.T, r *madcrow.Redis, acks []ack) (lost []ack) {
	t.Helper()
	read := func() ([]madcrow.Reply, error) {
		cmds := make([]command, len(acks))
		for i, a := range acks {
			cmds[i] = r.B().Get().Key(a.key).Build()
		}
		return r.DoMulti(t.Context(), cmds...)
	}
	results, err := read()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); results, err = read() {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range acks {
		if results[i].Err() != nil {
			t.Fatal(results[i].Err())
		}
		if results[i].IsNil() {
			lost = append(lost, a)
		}
	}
	return lost
}

// A killed master of a cluster, under load, loses what it acknowledged and had
// not yet sent to its replica: the last moment before its end, and nothing else.
func TestChaosCluster_AKilledMasterLosesOnlyItsLastMoment(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c, r := startCluster(t)
	var killed time.Time
	acks := collectAcks(r, func() {
		time.Sleep(testkit.Length(500*time.Millisecond, 2*time.Second))
		dead := c.MasterOf(t, "w0-0")
		dead.Kill()
		killed = time.Now()
		for c.MasterOf(t, "w0-0") == dead {
			time.Sleep(10 * time.Millisecond)
		}
		await(t, r, madcrow.StateUp, 10*time.Second)
	})
	lost := missing(t, r, acks)
	t.Logf("%d writes acknowledged, %d of them lost", len(acks), len(lost))
	for _, a := range lost {
		if away := killed.Sub(a.at).Abs(); away > testkit.Slack(50*time.Millisecond) {
			t.Errorf("%s was acknowledged %v from the end of the master, and is lost", a.key, away)
		}
	}
}
