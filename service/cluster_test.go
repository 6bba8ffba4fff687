package service

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// TestCluster runs the facade on a cluster, started once. There are enough
// keys in each test to meet every node.
func TestCluster(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	c := madcrowtest.StartCluster(t)
	s := openConfig(t, c.Config(), func(cfg *madcrow.Config) { cfg.KeyPrefix = "app:" })
	t.Run("CacheAndSessionsOnEveryNode", func(t *testing.T) { clusterData(t, s, c) })
	t.Run("LimitIsExactOnEveryNode", func(t *testing.T) { clusterLimit(t, s) })
	t.Run("LimitScriptEqualsTheModel", func(t *testing.T) {
		for n := range 6 {
			runSchedule(t, s, rand.New(rand.NewPCG(uint64(n), 1)), fmt.Sprint("sched:", n), 60)
		}
	})
	t.Run("MessagesReachEverySubscriberAndAreCountedByNode", func(t *testing.T) { clusterMessages(t, s) })
}

func clusterData(t *testing.T, s *Service, c *madcrowtest.Cluster) {
	ctx := t.Context()
	nodes := map[*madcrowtest.Server]bool{}
	for i := range 20 {
		id := fmt.Sprint("k", i)
		nodes[c.MasterOf(t, "app:"+id)] = true
		must(t, s.SetCache(ctx, id, "v"+id, time.Hour))
		if e, err := s.GetCacheWithTTL(ctx, id); e.Value != "v"+id || e.TTL <= 59*time.Minute || err != nil {
			t.Errorf("%s: %+v %v", id, e, err)
		}
		must(t, s.SetSession(ctx, id, map[string]any{"id": id}, 0))
		if data, found, err := s.GetSession(ctx, id); string(data) != `{"id":"`+id+`"}` || !found || err != nil {
			t.Errorf("%s: %s %v %v", id, data, found, err)
		}
		if existed, err := s.DeleteSession(ctx, id); !existed || err != nil {
			t.Errorf("%s: %v %v", id, existed, err)
		}
		if existed, err := s.DeleteCache(ctx, id); !existed || err != nil {
			t.Errorf("%s: %v %v", id, existed, err)
		}
	}
	if len(nodes) != 3 {
		t.Errorf("%d nodes were used, want 3", len(nodes))
	}
}

func clusterLimit(t *testing.T, s *Service) {
	const keys, callers, limit = 9, 30, 7
	var allowed [keys]atomic.Int64
	var wg sync.WaitGroup
	for i := range keys * callers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			d, err := s.CheckRateLimit(ctx, fmt.Sprint("crowd", i%keys), limit, time.Hour)
			if err != nil {
				t.Error(err)
			} else if d.Allowed {
				allowed[i%keys].Add(1)
			}
		})
	}
	wg.Wait()
	for i := range allowed {
		if n := allowed[i].Load(); n != limit {
			t.Errorf("crowd%d: %d admitted, want %d", i, n, limit)
		}
	}
}

// PUBLISH goes to any node and reaches the subscribers of all, but Redis
// counts only those of the node that was asked: here the one subscriber is
// counted some times and not at others.
func clusterMessages(t *testing.T, s *Service) {
	events, _ := listen(t, s, "a", "b")
	if ev := next(t, events); ev.Kind != pubsub.EventSubscribed {
		t.Fatalf("%+v", ev)
	}
	const n = 40
	counted := map[int64]int{}
	for i := range n {
		receivers, err := s.Publish(t.Context(), []string{"a", "b"}[i%2], fmt.Sprint(i))
		must(t, err)
		counted[receivers]++
	}
	got := map[string]bool{}
	for range n {
		ev := next(t, events)
		if ev.Kind != pubsub.EventMessage {
			t.Fatalf("%+v", ev)
		}
		got[ev.Message] = true
	}
	if len(got) != n || counted[0]+counted[1] != n {
		t.Errorf("%d of %d messages came; counted %v", len(got), n, counted)
	}
	t.Logf("receivers counted by PUBLISH: %v", counted)
}
