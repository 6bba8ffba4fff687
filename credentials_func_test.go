package madcrow_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// A token service that took 150 ms used up the time of the dial.
func TestCredentials_MayTakeLongerThanADial(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	cfg.Credentials = func(ctx context.Context, _ madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		select {
		case <-time.After(150 * time.Millisecond): // a token service
		case <-ctx.Done():
		}
		return madcrow.Credentials{Password: "pw"}, ctx.Err()
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 4*time.Second)
}

// A token service that takes 400 ms kept Sentinels and clusters from coming up.
func TestCredentials_MayBeSlowWithEveryTopology(t *testing.T) {
	for _, mode := range []string{"cluster", "sentinel", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			var cfg madcrow.Config
			switch mode {
			case "cluster":
				cfg = madcrowtest.StartCluster(t, madcrowtest.WithPassword("pw")).Config()
			case "sentinel":
				cfg = madcrowtest.StartSentinel(t, madcrowtest.WithPassword("pw")).Config()
			default:
				cfg = madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw")).Config()
			}
			cfg.Password, cfg.Cluster.Password = "", ""
			cfg.Credentials = func(ctx context.Context, q madcrow.CredentialsRequest) (madcrow.Credentials, error) {
				time.Sleep(400 * time.Millisecond)
				if q.Sentinel {
					return madcrow.Credentials{}, nil
				}
				return madcrow.Credentials{Password: "pw"}, nil
			}
			r := open(t, cfg)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			for st := range r.Watch(ctx) {
				if st.State == madcrow.StateUp {
					t.Logf("up after %v", time.Since(start))
					return
				}
			}
			t.Errorf("not up after %v: %v", time.Since(start), r.Err())
		})
	}
}

// Close waited for the function until ConnectTimeout.
func TestCredentials_CloseDoesNotWaitForThem(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	asked := make(chan struct{}, 100)
	cfg.Credentials = func(ctx context.Context, _ madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return madcrow.Credentials{}, ctx.Err()
	}
	r, err := madcrow.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	testkit.Within(t, "Close(100 ms)", time.Second, func() { _ = r.Close(ctx) })
}

// Close waited for a function that ignores its context.
func TestCredentials_CloseDoesNotWaitForAFunctionThatHearsNoContext(t *testing.T) {
	for _, mode := range []string{"cluster", "sentinel", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			var cfg madcrow.Config
			a := fmt.Sprintf("127.0.0.1:%d", madcrowtest.StartRedis(t).Port())
			switch mode {
			case "cluster":
				cfg.Cluster = madcrow.Cluster{Enabled: true, Addresses: []string{a}}
			case "sentinel":
				cfg.Sentinel = madcrow.Sentinel{Enabled: true, ServiceName: "m", Addresses: []string{a}}
			default:
				cfg.Host, cfg.Port = "127.0.0.1", 0
				_, p, _ := net.SplitHostPort(a)
				fmt.Sscan(p, &cfg.Port)
			}
			cfg.Credentials = func(ctx context.Context, q madcrow.CredentialsRequest) (madcrow.Credentials, error) {
				time.Sleep(5 * time.Second)
				return madcrow.Credentials{}, nil
			}
			r, err := madcrow.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_ = r.Close(ctx)
			if d := time.Since(start); d > testkit.Slack(time.Second) {
				t.Errorf("Close took %v", d)
			}
		})
	}
}

// A RefreshAfter in the past was followed at once, again and again.
func TestCredentials_ARefreshInThePastIsNoStorm(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	var asked atomic.Int64
	cfg.Credentials = func(context.Context, madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		asked.Add(1)
		return madcrow.Credentials{Password: "pw", RefreshAfter: time.Now().Add(-time.Second)}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	time.Sleep(300 * time.Millisecond)
	if n := asked.Load(); n > 20 {
		t.Errorf("credentials were asked for %d times in 0.3 s", n)
	}
}

// The token service failed once, and a healthy connection ended.
func TestCredentials_AFailedRefreshEndsNoConnection(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("pw"))
	cfg := s.Config()
	cfg.Password = ""
	var asked atomic.Int64
	cfg.Credentials = func(context.Context, madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		if asked.Add(1) > 1 {
			return madcrow.Credentials{}, fmt.Errorf("token service is away")
		}
		return madcrow.Credentials{Password: "pw", RefreshAfter: time.Now().Add(200 * time.Millisecond)}, nil
	}
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	time.Sleep(500 * time.Millisecond)
	if err := r.Do(t.Context(), get(r, "a")).Err(); err != nil {
		t.Error(err)
	}
}
