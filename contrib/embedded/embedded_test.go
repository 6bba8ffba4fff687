package embedded

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func start(t *testing.T) *Server {
	t.Helper()
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// connect makes a client from what Config says, and nothing else.
func connect(t *testing.T, s *Server, change ...func(*rueidis.ClientOption)) rueidis.Client {
	t.Helper()
	cfg := s.Config()
	opt := rueidis.ClientOption{
		InitAddress:       []string{net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))},
		ForceSingleClient: true,
		DisableCache:      true,
		DialCtxFn: func(ctx context.Context, addr string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return cfg.Dialer(ctx, "tcp", addr)
		},
	}
	for _, c := range change {
		c(&opt)
	}
	c, err := rueidis.NewClient(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func must(t *testing.T, r rueidis.RedisResult) rueidis.RedisMessage {
	t.Helper()
	m, err := r.ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		t.Fatal(err)
	}
	return m
}

func TestStart_RefusesProduction(t *testing.T) {
	for env, refused := range map[string]bool{
		"PRODUCTION": true, "production": true, " Production ": true,
		"": false, "DEVELOPMENT": false, "PRODUCTION-LIKE": false,
	} {
		t.Setenv("DEPLOY_ENV", env)
		s, err := Start(Options{})
		if (err != nil) != refused {
			t.Errorf("DEPLOY_ENV=%q: %v", env, err)
		}
		if err == nil {
			s.Close()
			continue
		}
		if !errors.Is(err, ErrProduction) || !errors.Is(err, madcrow.ErrConfig) {
			t.Errorf("DEPLOY_ENV=%q: %v is neither ErrProduction nor ErrConfig", env, err)
		}
		for _, name := range []string{"REDIS_HOST", "REDIS_URL"} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%q does not name %s", err, name)
			}
		}
	}
}

func TestStart_WarnsOnce(t *testing.T) {
	var log bytes.Buffer
	s, err := Start(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") ||
		!strings.Contains(text, "development only") {
		t.Errorf("log: %q", text)
	}
}

func TestServer_ConfigSaysEmbedded(t *testing.T) {
	s := start(t)
	if cfg := s.Config(); !cfg.Embedded || cfg.Dialer == nil || cfg.Host == "" || cfg.Port == 0 {
		t.Errorf("%+v", cfg)
	}
}

func TestServer_OpensNoSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counted on Linux only")
	}
	before := sockets(t)
	c := connect(t, start(t))
	must(t, c.Do(t.Context(), c.B().Ping().Build()))
	if after := sockets(t); after != before {
		t.Errorf("%d sockets, %d before", after, before)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if sockets(t) == before {
		t.Error("the count misses a socket")
	}
}

func sockets(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func TestServer_TwoAreApart(t *testing.T) {
	a, b := connect(t, start(t)), connect(t, start(t))
	must(t, a.Do(t.Context(), a.B().Set().Key("k").Value("v").Build()))
	if m := must(t, b.Do(t.Context(), b.B().Get().Key("k").Build())); !m.IsNil() {
		t.Error("a key of one is in the other")
	}
}

func TestServer_KeysExpireInRealTime(t *testing.T) {
	s := start(t)
	c := connect(t, s)
	ctx := t.Context()
	begin := time.Now()
	must(t, c.Do(ctx, c.B().Set().Key("k").Value("v").Px(300*time.Millisecond).Build()))
	must(t, c.Do(ctx, c.B().Hset().Key("h").FieldValue().FieldValue("f", "v").Build()))
	must(t, c.Do(ctx, c.B().Pexpire().Key("h").Milliseconds(300).Build()))
	must(t, c.Do(ctx, c.B().Set().Key("stays").Value("v").Build()))
	for {
		m := must(t, c.Do(ctx, c.B().Exists().Key("k").Key("h").Build()))
		n, _ := m.AsInt64()
		if n == 0 {
			break
		}
		if time.Since(begin) > 5*time.Second {
			t.Fatal("keys that live 300 ms are still there after 5 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if lived := time.Since(begin); lived < 280*time.Millisecond {
		t.Errorf("the keys lived %v, want 300 ms", lived)
	}
	if m := must(t, c.Do(ctx, c.B().Get().Key("stays").Build())); m.IsNil() {
		t.Error("a key without a TTL went, too")
	}
}

// A tick alone would take up to 100 ms off a key that was set just before it.
func TestServer_ShortLivedKeysDoNotExpireEarly(t *testing.T) {
	s := start(t)
	c := connect(t, s)
	ctx := t.Context()
	judged := 0
	for i := range 40 {
		key := fmt.Sprint("k", i)
		begin := time.Now()
		must(t, c.Do(ctx, c.B().Set().Key(key).Value("v").Px(60*time.Millisecond).Build()))
		time.Sleep(25 * time.Millisecond)
		m := must(t, c.Do(ctx, c.B().Get().Key(key).Build()))
		if time.Since(begin) > 45*time.Millisecond {
			continue // this machine was late, not the server
		}
		judged++
		if m.IsNil() {
			t.Fatalf("a key that lives 60 ms was gone after %v", time.Since(begin))
		}
	}
	t.Logf("judged %d of 40", judged)
}

func TestServer_KeysExpireWithoutARead(t *testing.T) {
	s := start(t)
	if err := s.redis.Set("k", "v"); err != nil {
		t.Fatal(err)
	}
	s.redis.SetTTL("k", 50*time.Millisecond)
	for deadline := time.Now().Add(5 * time.Second); s.redis.Exists("k"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the key is still held after 5 s")
		}
	}
}

const window = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return {0, string.format('%.0f', now)} end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return {1, string.format('%.0f', now)}`

func TestServer_ScriptsHaveTimeAndSortedSets(t *testing.T) {
	c := connect(t, start(t))
	ctx := t.Context()
	script := rueidis.NewLuaScript(window)
	allowed := 0
	for i := range 10 {
		if i == 5 { // EVALSHA must find its way back
			must(t, c.Do(ctx, c.B().ScriptFlush().Build()))
		}
		list, err := script.Exec(ctx, c, []string{"w"}, []string{"3", "60000000", fmt.Sprint(i)}).ToArray()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := list[0].AsInt64()
		allowed += int(n)
		at, _ := list[1].AsInt64()
		if off := time.Since(time.UnixMicro(at)); off < -time.Second || off > 5*time.Second {
			t.Errorf("TIME is off by %v", off)
		}
	}
	if allowed != 3 {
		t.Errorf("%d of 10 were allowed, want 3", allowed)
	}
}

// Time passes for keys when requests arrive; a script that runs longer than
// that takes must not meet it half-way.
func TestServer_LongScriptsRunThrough(t *testing.T) {
	c := connect(t, start(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	script := rueidis.NewLuaScript(`for i = 1, 3000 do redis.call('INCR', KEYS[1]) end return redis.call('GET', KEYS[1])`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := script.Exec(ctx, c, []string{"n"}, nil).Error(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m := must(t, c.Do(ctx, c.B().Get().Key("n").Build()))
	if n, err := m.AsInt64(); n != 12000 {
		t.Errorf("n = %d, %v, want 12000", n, err)
	}
}

func TestServer_WatchSeesAChange(t *testing.T) {
	c := connect(t, start(t))
	ctx := t.Context()
	try := func(disturb bool) rueidis.RedisMessage {
		var exec rueidis.RedisMessage
		_ = c.Dedicated(func(d rueidis.DedicatedClient) error {
			must(t, d.Do(ctx, d.B().Watch().Key("k").Build()))
			if disturb {
				must(t, c.Do(ctx, c.B().Incr().Key("k").Build()))
			}
			rs := d.DoMulti(ctx, d.B().Multi().Build(), d.B().Incr().Key("k").Build(), d.B().Exec().Build())
			exec = must(t, rs[2])
			return nil
		})
		return exec
	}
	if m := try(true); !m.IsNil() {
		t.Errorf("EXEC went through although the key had changed: %v", m)
	}
	if m := try(false); m.IsNil() {
		t.Error("EXEC failed although nothing had changed")
	}
}

func TestServer_PubSubOnAConnectionOfItsOwn(t *testing.T) {
	s := start(t)
	c, sub := connect(t, s), connect(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan rueidis.PubSubMessage, 10)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		_ = sub.Receive(ctx, sub.B().Subscribe().Channel("news").Build(), func(m rueidis.PubSubMessage) { got <- m })
	})
	publishUntilHeard(t, c, "news", "hello")
	m := <-got
	if m.Channel != "news" || m.Message != "hello" {
		t.Errorf("got %+v", m)
	}
}

// publishUntilHeard publishes one message that one subscriber receives.
func publishUntilHeard(t *testing.T, c rueidis.Client, channel, text string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		m := must(t, c.Do(t.Context(), c.B().Publish().Channel(channel).Message(text).Build()))
		if n, _ := m.AsInt64(); n == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no subscriber within 5 s")
		}
	}
}

// Through an unbuffered pipe, one subscriber that does not read would stop
// PUBLISH, which holds the lock of the whole server.
func TestServer_ASlowSubscriberStopsNoOther(t *testing.T) {
	s := start(t)
	c, sub := connect(t, s), connect(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	const messages = 3000
	var heard atomic.Int64
	release := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		_ = sub.Receive(ctx, sub.B().Subscribe().Channel("news").Build(), func(rueidis.PubSubMessage) {
			<-release
			heard.Add(1)
		})
	})
	publishUntilHeard(t, c, "news", "first")
	text := strings.Repeat("x", 1000)
	for range messages {
		must(t, c.Do(ctx, c.B().Publish().Channel("news").Message(text).Build()))
	}
	must(t, c.Do(ctx, c.B().Set().Key("k").Value("v").Build()))
	close(release)
	for heard.Load() < messages+1 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if n := heard.Load(); n != messages+1 {
		t.Errorf("%d messages were heard, want %d", n, messages+1)
	}
}

// INFO is used by health pages; the connection must stay usable where a
// section is not known.
func TestServer_InfoIsLimited(t *testing.T) {
	c := connect(t, start(t))
	ctx := t.Context()
	m := must(t, c.Do(ctx, c.B().Info().Build()))
	if info, err := m.ToString(); !strings.Contains(info, "connected_clients:") {
		t.Errorf("INFO = %q, %v", info, err)
	}
	if err := c.Do(ctx, c.B().Info().Section("memory").Build()).Error(); err == nil {
		t.Error("INFO memory is answered: say so in the documentation")
	}
	must(t, c.Do(ctx, c.B().Ping().Build()))
}

func ExampleStart() {
	srv, err := Start(Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	cfg := srv.Config() // for madcrow.Open
	fmt.Println(cfg.Embedded, cfg.Host)
	// Output: true embedded
}

func TestServer_CloseLeavesNothing(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := start(t)
	c, sub, blocked := connect(t, s), connect(t, s), connect(t, s)
	script := rueidis.NewLuaScript(`for i = 1, 50 do redis.call('INCR', KEYS[1]) end return 1`)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { // blocks for ever
		_ = blocked.Do(ctx, blocked.B().Blpop().Key("never").Timeout(0).Build()).Error()
	})
	wg.Go(func() {
		_ = sub.Receive(ctx, sub.B().Subscribe().Channel("news").Build(), func(rueidis.PubSubMessage) {})
	})
	publishUntilHeard(t, c, "news", "x")
	for i := range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if i%2 == 0 {
					_ = script.Exec(ctx, c, []string{"n"}, nil)
				} else {
					_ = c.Do(ctx, c.B().Info().Build())
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(s.Close)
	}
	closers.Wait()
	if _, err := s.Dial(ctx); !errors.Is(err, madcrow.ErrClosed) || !errors.Is(err, madcrow.ErrUnavailable) {
		t.Errorf("Dial after Close: %v", err)
	}
	cancel()
	wg.Wait()
}
