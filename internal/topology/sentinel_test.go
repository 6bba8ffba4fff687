package topology

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/conn"
	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// fakeFleet is a set of Sentinels behind a dialer: an address that is in none
// of its views is refused.
type fakeFleet struct {
	mu    sync.Mutex
	views map[string]view // by address
	gone  chan string     // gets an address after each exchange; nil: no one looks
	dial  func(ctx context.Context, addr string) error
}

// view is what one Sentinel says.
type view struct {
	master string
	epoch  int
	peers  []string
	ids    map[string]string // by address; nil: an old one, which tells none
	self   string
}

func (s *fakeFleet) say(v view, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		s.views[a] = v
	}
}

func (s *fakeFleet) silence(addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		delete(s.views, a)
	}
}

func (s *fakeFleet) finder(t *testing.T, addrs ...string) *finder {
	t.Helper()
	return newFinder(SentinelConfig{
		Client:      conn.RESPConfig{Dial: s.connect, Credentials: func() (user, password string) { return "", "" }},
		Log:         slog.New(slog.DiscardHandler),
		ServiceName: "m", Addresses: addrs, OwnDialer: true,
		SocketTimeout: time.Minute, // nothing here waits for it
	})
}

func (s *fakeFleet) connect(ctx context.Context, _, addr string) (net.Conn, error) {
	if s.dial != nil {
		if err := s.dial(ctx, addr); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	v, ok := s.views[addr]
	s.mu.Unlock()
	if !ok {
		return nil, errors.New("refused")
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		r := bufio.NewReader(theirs)
		for {
			args, err := resp.Read(r)
			if err != nil {
				break
			}
			v.answer(theirs, args.([]any))
		}
		if s.gone != nil {
			s.gone <- addr
		}
	}()
	return ours, nil
}

func (v view) answer(w io.Writer, args []any) {
	switch args[1] {
	case "GET-MASTER-ADDR-BY-NAME":
		host, port, _ := net.SplitHostPort(v.master)
		_ = resp.Write(w, []string{host, port})
	case "MASTER":
		_ = resp.Write(w, []string{"config-epoch", strconv.Itoa(v.epoch), "quorum", "2"})
	case "SENTINELS":
		_, _ = fmt.Fprintf(w, "*%d\r\n", len(v.peers))
		for _, p := range v.peers {
			host, port, _ := net.SplitHostPort(p)
			_ = resp.Write(w, []string{"ip", host, "port", port, "runid", v.ids[p]})
		}
	case "MYID":
		_, _ = fmt.Fprintf(w, "+%s\r\n", v.self)
	default:
		_, _ = io.WriteString(w, "*0\r\n")
	}
}

func mustFind(t *testing.T, f *finder, want string) {
	t.Helper()
	if got, err := f.find(t.Context(), 0); err != nil || got != want {
		t.Fatalf("found %q, %v; want %s", got, err, want)
	}
}

func mustLag(t *testing.T, f *finder) {
	t.Helper()
	if got, err := f.find(t.Context(), 0); !errors.Is(err, errLagging) {
		t.Fatalf("found %q, %v; want errLagging", got, err)
	}
}

var (
	fleetNames = []string{"sentinel-0:26379", "sentinel-1:26379", "sentinel-2:26379"}
	fleetOld   = []string{"10.0.0.1:26379", "10.0.0.2:26379", "10.0.0.3:26379"}
	fleetNew   = []string{"10.0.0.4:26379", "10.0.0.5:26379", "10.0.0.6:26379"}
)

const masterOld, masterNew = "10.1.0.1:6379", "10.1.0.9:6379"

// All Sentinels are set up again: their names stay, their addresses and the epoch
// do not.
func TestSentinelFind_SetUpAgainWithOtherAddresses(t *testing.T) {
	for _, configured := range [][]string{fleetNames, fleetNames[:1]} {
		s := &fakeFleet{views: map[string]view{}}
		f := s.finder(t, configured...)
		old := view{master: masterOld, epoch: 7, peers: fleetOld}
		s.say(old, fleetNames...)
		s.say(old, fleetOld...)
		mustFind(t, f, masterOld)
		mustFind(t, f, masterOld)

		s.silence(fleetOld...)
		again := view{master: masterNew, epoch: 0, peers: fleetNew}
		s.say(again, fleetNames...)
		s.say(again, fleetNew...)
		mustFind(t, f, masterNew)
		mustFind(t, f, masterNew)
		for _, a := range fleetOld {
			if slices.Contains(f.addrs, a) || f.answered[a] {
				t.Errorf("%s is kept: %v, %v", a, f.addrs, f.answered)
			}
		}
		for _, a := range slices.Concat(configured, fleetNew) {
			if !slices.Contains(f.addrs, a) {
				t.Errorf("%s is not known: %v", a, f.addrs)
			}
		}
	}
}

// Clients do not reach the addresses by which Sentinels call each other.
func TestSentinelFind_SetUpAgainBehindAddressesThatNoOneReaches(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	f := s.finder(t, fleetNames...)
	s.say(view{master: masterOld, epoch: 7, peers: fleetOld}, fleetNames...)
	mustFind(t, f, masterOld)
	mustFind(t, f, masterOld)
	s.say(view{master: masterNew, epoch: 0, peers: fleetOld}, fleetNames...)
	mustFind(t, f, masterNew)
}

// One that lags behind is not believed while those it names are silent,
// however few were configured, and nothing is forgotten for its sake.
func TestSentinelFind_LaggingMinority(t *testing.T) {
	for _, configured := range [][]string{fleetNames, fleetNames[:1], fleetOld, fleetOld[:1]} {
		s := &fakeFleet{views: map[string]view{}}
		f := s.finder(t, configured...)
		all := slices.Concat(fleetNames, fleetOld)
		s.say(view{master: masterNew, epoch: 2, peers: fleetOld}, all...)
		mustFind(t, f, masterNew)
		mustFind(t, f, masterNew)
		known := slices.Sorted(slices.Values(f.addrs))

		s.silence(all...)
		s.say(view{master: masterOld, epoch: 1, peers: fleetOld[1:]}, fleetNames[0], fleetOld[0])
		mustLag(t, f)
		mustLag(t, f)
		if now := slices.Sorted(slices.Values(f.addrs)); !slices.Equal(known, now) {
			t.Errorf("knew %v, now %v", known, now)
		}
		s.say(view{master: masterNew, epoch: 2, peers: fleetOld}, all...)
		mustFind(t, f, masterNew)
	}
}

// A Sentinel that is gone and that no one names is forgotten; one that is
// named, or was configured, is not.
func TestSentinelFind_ForgetsWhoIsGone(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	f := s.finder(t, fleetOld[:2]...)
	s.say(view{master: masterOld, epoch: 3, peers: slices.Concat(fleetOld, fleetNew)}, fleetOld[0])
	mustFind(t, f, masterOld)
	s.say(view{master: masterOld, epoch: 3, peers: slices.Concat(fleetOld[2:], fleetNew[:1])}, fleetOld[0])
	s.say(view{master: masterOld, epoch: 3}, fleetNew[1]) // it answers, whoever names it
	mustFind(t, f, masterOld)
	want := slices.Concat(fleetOld, fleetNew[:2])
	if got := slices.Sorted(slices.Values(f.addrs)); !slices.Equal(got, want) {
		t.Errorf("knows %v, want %v", got, want)
	}
}

// Sentinels that are reached by host name are named by address as well, and
// their ids say that they are the same.
func TestSentinelFind_OneSentinelByTwoAddresses(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	ids := map[string]string{}
	for i, a := range fleetOld {
		ids[a] = "id" + strconv.Itoa(i)
	}
	say := func() {
		for i := range fleetOld {
			others := slices.Delete(slices.Clone(fleetOld), i, i+1)
			s.say(view{master: masterOld, epoch: 3, peers: others, ids: ids, self: ids[fleetOld[i]]}, fleetNames[i], fleetOld[i])
		}
	}
	say()
	f := s.finder(t, fleetNames...)
	expect := func(reachable int, addrs ...string) {
		t.Helper()
		mustFind(t, f, masterOld)
		mustFind(t, f, masterOld)
		if st := f.seen.Load(); st.Known != 3 || st.Reachable != reachable {
			t.Errorf("%d of %d are reachable, want %d of 3", st.Reachable, st.Known, reachable)
		}
		if got, want := slices.Sorted(slices.Values(f.addrs)), slices.Sorted(slices.Values(addrs)); !slices.Equal(got, want) {
			t.Errorf("asks %v, want %v", got, want)
		}
		if n := len(f.distinctAddrs()); n != len(f.addrs) {
			t.Errorf("listens to %d of %d", n, len(f.addrs))
		}
	}
	expect(3, fleetNames...)
	s.silence(fleetNames[0], fleetOld[0]) // it is gone: both ways are tried
	expect(2, slices.Concat(fleetNames, fleetOld[:1])...)
	say()
	s.silence(fleetNames[0]) // its name is not found, its address is
	expect(3, slices.Concat(fleetNames, fleetOld[:1])...)
	say()
	expect(3, fleetNames...)
}

// Both ways to one Sentinel were configured.
func TestSentinelFind_ConfiguredTwiceIsOne(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	for i := range fleetOld {
		s.say(view{master: masterOld, epoch: 3, self: "id" + strconv.Itoa(i)}, fleetNames[i], fleetOld[i])
	}
	f := s.finder(t, slices.Concat(fleetNames, fleetOld)...)
	mustFind(t, f, masterOld)
	if st := f.seen.Load(); st.Known != 3 || st.Reachable != 3 || len(f.distinctAddrs()) != 3 || len(f.addrs) != 6 {
		t.Errorf("%+v, listens to %v, asks %v", st, f.distinctAddrs(), f.addrs)
	}
	s.silence(fleetNames[0], fleetOld[0])
	mustFind(t, f, masterOld)
	if st := f.seen.Load(); st.Known != 3 || st.Reachable != 2 {
		t.Errorf("one is gone: %+v", st)
	}
}

// The address of a balancer leads to one Sentinel after the other.
func TestSentinelFind_BehindABalancer(t *testing.T) {
	const balancer = "sentinels:26379"
	s := &fakeFleet{views: map[string]view{}}
	ids := map[string]string{}
	for i, a := range fleetOld {
		ids[a] = "id" + strconv.Itoa(i)
	}
	f := s.finder(t, balancer)
	for n := range 10 {
		for i := range fleetOld {
			v := view{master: masterOld, epoch: 3, peers: slices.Delete(slices.Clone(fleetOld), i, i+1), ids: ids, self: ids[fleetOld[i]]}
			s.say(v, fleetOld[i])
			if i == n%3 {
				s.say(v, balancer)
			}
		}
		mustFind(t, f, masterOld)
		if st := f.seen.Load(); n > 1 && (st.Known != 3 || st.Reachable != 3) {
			t.Errorf("%d: %+v", n, st)
		}
		if n > 2 && (len(f.addrs) != 4 || len(f.distinctAddrs()) != 4) {
			t.Errorf("%d: asks %v, listens to %v", n, f.addrs, f.distinctAddrs())
		}
	}
}

// That a Sentinel is lost while the others answer was in no log.
func TestSentinelFind_TellsOnceThatOneDoesNotAnswer(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	s.say(view{master: masterOld, epoch: 3, peers: fleetNew}, fleetOld...) // of fleetNew no one ever hears
	f := s.finder(t, fleetOld...)
	var log strings.Builder
	f.log = slog.New(slog.NewTextHandler(&log, nil))
	mustFind(t, f, masterOld)
	s.silence(fleetOld[0])
	for range 3 * missesLogged {
		mustFind(t, f, masterOld)
	}
	s.say(view{master: masterOld, epoch: 3}, fleetOld[0])
	mustFind(t, f, masterOld)
	mustFind(t, f, masterOld)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "does not answer") || !strings.Contains(lines[0], fleetOld[0]) || !strings.Contains(lines[1], "answers again") {
		t.Errorf("%q", lines)
	}
}

// A failing find says the same, whichever Sentinel fails first.
func TestSentinelFind_OneReasonHasOneText(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	f := s.finder(t, fleetOld...)
	var text string
	for range 20 {
		_, err := f.find(t.Context(), 0)
		if text == "" {
			text = err.Error()
		}
		if err.Error() != text {
			t.Fatalf("%q and %q", text, err)
		}
	}
}

// Steps have longer after each failure, and what was measured is remembered;
// but one that is frozen holds up no one for longer than that.
func TestSentinelFind_PatienceGrowsAndFallsBack(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	f := s.finder(t, fleetOld...)
	f.cfg.SocketTimeout, f.cfg.ConnectTimeout = 100*time.Millisecond, 5*time.Second
	for failures, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000} {
		if got := f.stepTimeout(failures); got != want*time.Millisecond {
			t.Errorf("after %d failures %v, want %v ms", failures, got, want)
		}
	}
	s.say(view{master: masterOld, epoch: 3}, fleetOld...)
	s.dial = func(ctx context.Context, addr string) error {
		if addr == fleetOld[2] { // frozen
			<-ctx.Done()
			return ctx.Err()
		}
		time.Sleep(90 * time.Millisecond)
		return nil
	}
	start := time.Now()
	if _, err := f.find(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a frozen Sentinel held up a find for %v", took)
	}
	if got := f.stepTimeout(0); got < 180*time.Millisecond || got > 2*time.Second {
		t.Errorf("after an answer in 90 ms: %v", got)
	}
}

// All Sentinels away, while the master is well, was in no log.
func TestLogFinding_OnceAndAgainWhenItIsOver(t *testing.T) {
	var log strings.Builder
	n := &discovery{finder: &finder{log: slog.New(slog.NewTextHandler(&log, nil))}}
	away := fmt.Errorf("%w: away", ErrNoSentinel)
	n.logDiscovery(t.Context(), away)
	n.logDiscovery(t.Context(), away) // Redis itself is not available: that was said
	n.located.Store(true)
	for _, err := range []error{nil, away, nil, away, away, away, nil, nil} {
		n.logDiscovery(t.Context(), err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "do not tell") || !strings.Contains(lines[1], "again") {
		t.Errorf("%q", lines)
	}
}

type slowFind struct{}

// A find waits for a frozen Sentinel while another learns of a failover.
func TestSentinelFind_ASlowOneDoesNotUndoANewerOne(t *testing.T) {
	for _, tc := range []struct {
		name       string
		old, newer int
	}{
		{"failover", 1, 2},
		{"set up again", 7, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &fakeFleet{views: map[string]view{}, gone: make(chan string, 100)}
			thaw := make(chan struct{})
			s.dial = func(ctx context.Context, addr string) error {
				if ctx.Value(slowFind{}) == nil || addr != fleetOld[2] {
					return nil
				}
				select {
				case <-thaw:
				case <-ctx.Done():
				}
				return fault.ErrSilent
			}
			f := s.finder(t, fleetOld...)
			s.say(view{master: masterOld, epoch: tc.old}, fleetOld...)
			mustFind(t, f, masterOld)
			for range fleetOld {
				<-s.gone
			}

			type found struct {
				addr string
				err  error
			}
			slow := make(chan found, 1)
			go func() {
				addr, err := f.find(context.WithValue(t.Context(), slowFind{}, true), 0)
				slow <- found{addr, err}
			}()
			<-s.gone // two have answered, the third is awaited
			<-s.gone
			s.say(view{master: masterNew, epoch: tc.newer}, fleetOld...)
			mustFind(t, f, masterNew)
			close(thaw)
			if got := <-slow; got.err != nil || got.addr != masterNew {
				t.Errorf("the slow one found %q, %v", got.addr, got.err)
			}
			if got := f.epoch.Load(); got != int64(tc.newer) {
				t.Errorf("epoch %d, want %d", got, tc.newer)
			}
			s.say(view{master: masterOld, epoch: max(tc.old, tc.newer) + 1}, fleetOld...)
			mustFind(t, f, masterOld) // it goes on
		})
	}
}

// No one listens any more to a Sentinel that is gone, and again when it is back.
func TestSentinelFind_ListensToThoseThatAreKnown(t *testing.T) {
	begun, ended := make(chan string, 10), make(chan string, 10)
	s := &fakeFleet{dial: func(ctx context.Context, addr string) error {
		begun <- addr
		<-ctx.Done()
		ended <- addr
		return ctx.Err()
	}}
	f := s.finder(t, fleetOld[0])
	ctx, cancel := context.WithCancel(t.Context())
	var listeners sync.WaitGroup
	heard := map[string]context.CancelFunc{}
	hear := func(addrs ...string) {
		f.mu.Lock()
		f.addrs = addrs
		f.mu.Unlock()
		f.listenAll(ctx, heard, &listeners, func() {})
	}
	expect := func(from chan string, want string) {
		t.Helper()
		select {
		case got := <-from:
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing for %s", want)
		}
	}
	hear(fleetOld[0])
	expect(begun, fleetOld[0])
	hear(fleetOld[0], fleetOld[1])
	expect(begun, fleetOld[1])
	hear(fleetOld[0])
	expect(ended, fleetOld[1])
	hear(fleetOld[0], fleetOld[1])
	expect(begun, fleetOld[1])
	cancel()
	listeners.Wait()
}
