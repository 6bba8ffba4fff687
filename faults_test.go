package madcrow_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// wantError checks kind and outcome, and that the call came back in time.
func wantError(t *testing.T, err error, kind madcrow.Kind, sentinel error, outcome madcrow.Outcome, text ...string) {
	t.Helper()
	var e *madcrow.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want a *madcrow.Error", err)
	}
	if e.Kind != kind || e.Outcome != outcome || !errors.Is(err, sentinel) {
		t.Errorf("error is %v (kind %v, outcome %v), want kind %v, outcome %v", err, e.Kind, e.Outcome, kind, outcome)
	}
	for _, s := range text {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

func TestReplies_ReadOnly(t *testing.T) {
	s, r := server(t)
	mustSet(t, r, "a", "1")
	s.Do(t, "REPLICAOF", "127.0.0.1", "1")
	start := time.Now()
	err := r.Do(t.Context(), set(r, "a", "2")).Err()
	wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied)
	if d := time.Since(start); d > testkit.Slack(100*time.Millisecond) {
		t.Errorf("a refused write took %v: it must not wait for the deadline", d)
	}
	await(t, r, madcrow.StateDegraded, time.Second)
	if !r.Status().ReadOnly {
		t.Error("Status does not say that the node is read-only")
	}
	mustGet(t, r, "a", "1") // reads go on
	s.Do(t, "REPLICAOF", "NO", "ONE")
	await(t, r, madcrow.StateUp, 10*time.Second)
	mustSet(t, r, "a", "3")
}

// TestReplies_ReadOnlyBehindAName moves the name to another server, as a
// managed Redis does in a failover: the connection to the old one stays open.
func TestReplies_ReadOnlyBehindAName(t *testing.T) {
	old := madcrowtest.StartRedis(t)
	promoted := madcrowtest.StartRedis(t)
	target := make(chan string, 1)
	target <- old.Addr()
	r := open(t, madcrow.Config{Host: "redis.internal", Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
		addr := <-target
		target <- addr
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}})
	await(t, r, madcrow.StateUp, 5*time.Second)
	<-target
	target <- promoted.Addr()
	old.Do(t, "REPLICAOF", "127.0.0.1", "1")
	start := time.Now()
	for {
		if err := r.Do(t.Context(), set(r, "a", "1")).Err(); err == nil {
			break
		} else if !errors.Is(err, madcrow.ErrReadOnly) && !errors.Is(err, madcrow.ErrUnavailable) {
			t.Fatal(err)
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("still on the demoted server after 5 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("writes came back after %v", time.Since(start))
	if v := promoted.Do(t, "GET", "a"); v != "1" {
		t.Errorf("the promoted server holds %v", v)
	}
}

func TestReplies_NoReplicasIsTriedAgainWithinTheDeadline(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	time.AfterFunc(100*time.Millisecond, func() { s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "0") })
	if err := r.Do(t.Context(), set(r, "a", "1")).Err(); err != nil {
		t.Errorf("a refusal of 100 ms was not waited out: %v", err)
	}
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	start := time.Now()
	err := r.Do(t.Context(), set(r, "a", "2")).Err()
	wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "NOREPLICAS")
	if d := time.Since(start); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("took %v", d)
	}
}

// Each wait of a transaction counted as a conflict, so after 32 of them the
// error was "a watched key changed".
func TestTx_WaitsForReplicasAsLongAsItsDeadlineAllows(t *testing.T) {
	t.Parallel()
	s := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--min-replicas-to-write", "1"))
	cfg := s.Config()
	cfg.CommandTimeout = 4 * time.Second
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error {
		tx.Queue(set(tx, "a", "1"))
		return nil
	})
	wantError(t, err, madcrow.KindReadOnly, madcrow.ErrReadOnly, madcrow.OutcomeNotApplied, "NOREPLICAS")
}

func TestReplies_MasterDown(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CONFIG", "SET", "replica-serve-stale-data", "no")
	s.Do(t, "REPLICAOF", "127.0.0.1", "1")
	err := r.Do(t.Context(), get(r, "a")).Err()
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "MASTERDOWN")
}

func TestReplies_OutOfMemory(t *testing.T) {
	_, r := server(t, madcrowtest.WithArgs("--maxmemory", "3mb", "--maxmemory-policy", "noeviction"))
	mustSet(t, r, "small", "1")
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = r.Do(t.Context(), set(r, "k"+strconv.Itoa(i), strings.Repeat("x", 10_000))).Err()
	}
	wantError(t, err, madcrow.KindOutOfMemory, madcrow.ErrOutOfMemory, madcrow.OutcomeNotApplied)
	mustGet(t, r, "small", "1")
	if r.State() != madcrow.StateUp {
		t.Errorf("state is %v: a full Redis still serves reads", r.State())
	}
}

func TestReplies_DeniedCommandIsNamed(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "secret-of-app", "~*", "+@all", "-flushall"))
	r := open(t, s.Config())
	err := r.Do(t.Context(), arbitrary(r, "FLUSHALL")).Err()
	wantError(t, err, madcrow.KindPermission, madcrow.ErrPermission, madcrow.OutcomeNotApplied, "flushall")
	if errors.Is(err, madcrow.ErrUnavailable) {
		t.Error("a denied command does not mean that Redis is away")
	}
	mustSet(t, r, "a", "1")
}

func TestReplies_WrongType(t *testing.T) {
	_, r := server(t)
	mustSet(t, r, "a", "1")
	err := r.Do(t.Context(), arbitrary(r, "LPUSH", "a", "x")).Err()
	wantError(t, err, madcrow.KindWrongType, madcrow.ErrWrongType, madcrow.OutcomeNotApplied)
}

// TestReplies_Busy runs an endless script. While Redis is silent it counts as
// away; once it says BUSY, calls say so too.
func TestReplies_Busy(t *testing.T) {
	s, r := server(t, madcrowtest.WithArgs("--lua-time-limit", "100"))
	mustSet(t, r, "a", "1")
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = r.Eval(ctx, madcrow.NewScript("endless", "while true do end"), nil, nil).Err()
	}()
	<-killed
	time.Sleep(300 * time.Millisecond)
	start := time.Now()
	err := r.Do(t.Context(), get(r, "a")).Err()
	if d := time.Since(start); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
		t.Errorf("took %v", d)
	}
	wantError(t, err, madcrow.KindBusy, madcrow.ErrBusy, madcrow.OutcomeNotApplied)
	time.AfterFunc(100*time.Millisecond, func() { s.Do(t, "SCRIPT", "KILL") })
	mustGet(t, r, "a", "1") // waits out the last of it
}

func TestReplies_Loading(t *testing.T) {
	if madcrowtest.OlderThan(t, "7.0") {
		t.Skip("older servers answer too seldom while they load to be seen loading")
	}
	s, r := server(t, madcrowtest.WithArgs("--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"))
	if err := r.Eval(t.Context(), madcrow.NewScript("fill", "for i=1,20000 do redis.call('SET','k'..i,string.rep('x',100)) end"), nil, nil).Err(); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "SAVE")
	s.Kill()
	go s.Start()
	seen := false
	deadline := time.Now().Add(20 * time.Second)
	for !seen && time.Now().Before(deadline) {
		start := time.Now()
		err := r.Do(t.Context(), get(r, "k1")).Err()
		if d := time.Since(start); d > 500*time.Millisecond+testkit.Slack(50*time.Millisecond) {
			t.Errorf("a call while loading took %v", d)
		}
		if errors.Is(err, madcrow.ErrLoading) {
			seen = true
			wantError(t, err, madcrow.KindLoading, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
		}
		time.Sleep(time.Millisecond)
	}
	if !seen {
		t.Fatal("no call said that Redis is loading")
	}
	await(t, r, madcrow.StateUp, 30*time.Second)
	mustGet(t, r, "k1", strings.Repeat("x", 100))
}

func TestReplies_MaxClients(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	s.Do(t, "CONFIG", "SET", "maxclients", "3")
	var held []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	time.Sleep(50 * time.Millisecond)
	r := open(t, s.Config())
	await(t, r, madcrow.StateDown, 2*time.Second)
	err := r.Do(t.Context(), get(r, "a")).Err()
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "max number of clients")
	for _, c := range held {
		_ = c.Close()
	}
	await(t, r, madcrow.StateUp, testkit.Slack(time.Second))
}

func TestConnect_WrongPassword(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("right"))
	cfg := s.Config()
	cfg.Password = "not-the-right-one"
	r := open(t, cfg)
	await(t, r, madcrow.StateDown, 2*time.Second)
	err := r.Do(t.Context(), get(r, "a")).Err()
	wantError(t, err, madcrow.KindAuth, madcrow.ErrAuth, madcrow.OutcomeNotApplied, "REDIS_PASSWORD")
	if !errors.Is(err, madcrow.ErrUnavailable) {
		t.Error("an authentication failure is also ErrUnavailable")
	}
	if strings.Contains(err.Error(), string(cfg.Password)) {
		t.Errorf("the error shows the password: %v", err)
	}
	s.Do(t, "CONFIG", "SET", "requirepass", string(cfg.Password))
	await(t, r, madcrow.StateUp, 5*time.Second) // without a restart
}

func TestConnect_RequireFailsAtOnceByName(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("right"))
	tlsServer := madcrowtest.StartRedis(t, madcrowtest.WithTLS())
	expired := madcrowtest.StartRedis(t, madcrowtest.WithExpiredTLS())
	noSelect := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "pw", "~*", "+@all", "-select"))
	with := func(cfg madcrow.Config, change func(*madcrow.Config)) madcrow.Config {
		change(&cfg)
		return cfg
	}
	for _, tc := range []struct {
		name string
		cfg  madcrow.Config
		kind madcrow.Kind
		text string
	}{
		{"wrong password", with(s.Config(), func(c *madcrow.Config) { c.Password = "wrong" }), madcrow.KindAuth, "WRONGPASS"},
		{"no password", with(s.Config(), func(c *madcrow.Config) { c.Password = "" }), madcrow.KindAuth, "NOAUTH"},
		{"wrong CA", with(tlsServer.Config(), func(c *madcrow.Config) { c.TLS.CAFile = madcrowtest.OtherCA(t) }), madcrow.KindUnavailable, "REDIS_SSL_CA_FILE"},
		{"system CA", with(tlsServer.Config(), func(c *madcrow.Config) { c.TLS.CAFile = "" }), madcrow.KindUnavailable, "REDIS_SSL_CA_FILE"},
		{"wrong name", with(tlsServer.Config(), func(c *madcrow.Config) { c.TLS.ServerName = "other.example" }), madcrow.KindUnavailable, "REDIS_SSL_SERVER_NAME"},
		{"expired certificate", expired.Config(), madcrow.KindUnavailable, "expired"},
		{"plain server behind TLS", with(s.Config(), func(c *madcrow.Config) { c.TLS.Enabled = true }), madcrow.KindUnavailable, "does not speak TLS"},
		{"no such database", with(s.Config(), func(c *madcrow.Config) { c.DB = 99 }), madcrow.KindUnavailable, "DB index"},
		{"denied at connecting", with(noSelect.Config(), func(c *madcrow.Config) { c.DB = 1 }), madcrow.KindPermission, "select"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			madcrowtest.CheckLeaks(t)
			tc.cfg.Require = true
			start := time.Now()
			r, err := madcrow.Open(t.Context(), tc.cfg)
			if err == nil {
				_ = r.Close(t.Context())
				t.Fatal("Open succeeded")
			}
			if d := time.Since(start); d > 1200*time.Millisecond+testkit.Slack(500*time.Millisecond) {
				t.Errorf("Open took %v, want no wait for what will not mend", d)
			}
			wantError(t, err, tc.kind, map[madcrow.Kind]error{madcrow.KindAuth: madcrow.ErrAuth, madcrow.KindUnavailable: madcrow.ErrUnavailable, madcrow.KindPermission: madcrow.ErrPermission}[tc.kind], madcrow.OutcomeNotApplied, tc.text)
		})
	}
}

func TestConnect_RequireWaitsNoLongerThanItsTimeout(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	cfg := madcrow.Config{Host: "127.0.0.1", Port: madcrowtest.FreePort(t), Require: true, ConnectTimeout: 300 * time.Millisecond}
	start := time.Now()
	_, err := madcrow.Open(t.Context(), cfg)
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "refused", "300ms")
	if d := time.Since(start); d < 300*time.Millisecond || d > 300*time.Millisecond+testkit.Slack(100*time.Millisecond) {
		t.Errorf("Open took %v, want 300 ms", d)
	}
}

func TestConnect_DeniedAtConnectingIsUnavailable(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithUser("app", "pw", "~*", "+@all", "-select"))
	cfg := s.Config()
	cfg.DB = 1
	r := open(t, cfg)
	await(t, r, madcrow.StateDown, 2*time.Second)
	for _, call := range []func() error{
		func() error { err := r.Do(t.Context(), get(r, "a")).Err(); return err },
		func() error { err := r.Do(t.Context(), get(r, "a"), madcrow.Dedicated).Err(); return err },
	} {
		err := call()
		wantError(t, err, madcrow.KindPermission, madcrow.ErrPermission, madcrow.OutcomeNotApplied, "select")
		if !errors.Is(err, madcrow.ErrUnavailable) {
			t.Errorf("%v is not ErrUnavailable, and there is no connection", err)
		}
	}
}

func TestConnect_PlainTextToTLSServerHintsAtTLS(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithTLS())
	cfg := s.Config()
	cfg.TLS = madcrow.TLS{}
	r := open(t, cfg)
	await(t, r, madcrow.StateDown, 2*time.Second)
	err := r.Do(t.Context(), get(r, "a")).Err()
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied, "REDIS_USE_SSL")
}

func TestConnect_EveryWay(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts []madcrowtest.Option
	}{
		{"plain", nil},
		{"password", []madcrowtest.Option{madcrowtest.WithPassword("p w")}},
		{"ACL user", []madcrowtest.Option{madcrowtest.WithUser("app", "pw")}},
		{"TLS", []madcrowtest.Option{madcrowtest.WithTLS()}},
		{"mutual TLS and ACL", []madcrowtest.Option{madcrowtest.WithMutualTLS(), madcrowtest.WithUser("app", "pw")}},
		{"Unix socket", []madcrowtest.Option{madcrowtest.WithUnixSocket()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			madcrowtest.CheckLeaks(t)
			s, r := server(t, tc.opts...)
			mustSet(t, r, "a", "1")
			mustGet(t, r, "a", "1")
			if _, err := r.Tx(t.Context(), []string{"a"}, func(tx *madcrow.Tx) error {
				tx.Queue(incr(tx, "a"))
				return nil
			}); err != nil {
				t.Error(err)
			}
			s.Restart()
			await(t, r, madcrow.StateUp, 5*time.Second)
			if err := r.Do(t.Context(), get(r, "a")).Err(); err != nil {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

func TestCredentials_AreAskedAgainWhenThePasswordRotates(t *testing.T) {
	s := madcrowtest.StartRedis(t, madcrowtest.WithPassword("first"))
	current := make(chan string, 1)
	current <- "first"
	cfg := s.Config()
	cfg.Password = ""
	cfg.Credentials = func(_ context.Context, req madcrow.CredentialsRequest) (madcrow.Credentials, error) {
		if req.Sentinel || req.Address != s.Addr() {
			t.Errorf("asked for %+v", req)
		}
		pw := <-current
		current <- pw
		return madcrow.Credentials{Password: madcrow.Secret(pw)}, nil
	}
	r := open(t, cfg)
	mustSet(t, r, "a", "1")
	<-current
	current <- "second"
	s.Do(t, "CONFIG", "SET", "requirepass", "second")
	ours := open(t, cfg)
	mustGet(t, ours, "a", "1")
	mustGet(t, r, "a", "1") // Redis keeps sessions that are authenticated
}

// A master that lacks replicas is the master: no connection ends.
func TestReplies_NoReplicasEndsNoConnection(t *testing.T) {
	s, r := server(t)
	s.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	sub := receiveOn(t, r, "c")
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		err := r.Do(t.Context(), set(r, "a", "1")).Err()
		var e *madcrow.Error
		late := errors.As(err, &e) && e.Kind == madcrow.KindTimeout && e.Outcome == madcrow.OutcomeUnknown // the reply was
		if !errors.Is(err, madcrow.ErrReadOnly) && !late {
			t.Fatal(err)
		}
	}
	select {
	case err := <-sub.ended:
		t.Errorf("a subscription ended: %v", err)
	default:
	}
	sub.cancel()
	<-sub.ended
}
