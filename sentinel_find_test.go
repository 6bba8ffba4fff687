package madcrow

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
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
)

// fakeFleet is a set of Sentinels behind a dialer: an address that is in none
// of its views is refused.
type fakeFleet struct {
	mu    sync.Mutex
	views map[string]view // by address
	gone  chan string     // gets an address after each exchange; nil: nobody looks
	dial  func(ctx context.Context, addr string) error
}

// view is what one Sentinel says.
type view struct {
	master string
	epoch  int
	peers  []string
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
	f, err := newFinder(Config{
		Logger: slog.New(slog.DiscardHandler),
		Dialer: s.connect,
		// Nothing here waits for it.
		Sentinel: Sentinel{Enabled: true, ServiceName: "m", Addresses: addrs, SocketTimeout: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
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
			_ = resp.Write(w, []string{"ip", host, "port", port})
		}
	default:
		_, _ = io.WriteString(w, "*0\r\n")
	}
}

func mustFind(t *testing.T, f *finder, want string) {
	t.Helper()
	if got, err := f.find(t.Context()); err != nil || got != want {
		t.Fatalf("found %q, %v; want %s", got, err, want)
	}
}

func mustLag(t *testing.T, f *finder) {
	t.Helper()
	if got, err := f.find(t.Context()); !errors.Is(err, errLagging) {
		t.Fatalf("found %q, %v; want errLagging", got, err)
	}
}

var (
	fleetNames = []string{"sentinel-0:26379", "sentinel-1:26379", "sentinel-2:26379"}
	fleetOld   = []string{"10.0.0.1:26379", "10.0.0.2:26379", "10.0.0.3:26379"}
	fleetNew   = []string{"10.0.0.4:26379", "10.0.0.5:26379", "10.0.0.6:26379"}
)

const masterOld, masterNew = "10.1.0.1:6379", "10.1.0.9:6379"

// All Sentinels are made anew: their names stay, their addresses and the epoch
// do not.
func TestSentinelFind_MadeAnewWithOtherAddresses(t *testing.T) {
	for _, configured := range [][]string{fleetNames, fleetNames[:1]} {
		s := &fakeFleet{views: map[string]view{}}
		f := s.finder(t, configured...)
		old := view{masterOld, 7, fleetOld}
		s.say(old, fleetNames...)
		s.say(old, fleetOld...)
		mustFind(t, f, masterOld)
		mustFind(t, f, masterOld)

		s.silence(fleetOld...)
		anew := view{masterNew, 0, fleetNew}
		s.say(anew, fleetNames...)
		s.say(anew, fleetNew...)
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
func TestSentinelFind_MadeAnewBehindAddressesThatNobodyReaches(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	f := s.finder(t, fleetNames...)
	s.say(view{masterOld, 7, fleetOld}, fleetNames...)
	mustFind(t, f, masterOld)
	mustFind(t, f, masterOld)
	s.say(view{masterNew, 0, fleetOld}, fleetNames...)
	mustFind(t, f, masterNew)
}

// One that lags behind is not believed while those it names are silent,
// however few were configured, and nothing is forgotten for its sake.
func TestSentinelFind_LaggingMinority(t *testing.T) {
	for _, configured := range [][]string{fleetNames, fleetNames[:1], fleetOld, fleetOld[:1]} {
		s := &fakeFleet{views: map[string]view{}}
		f := s.finder(t, configured...)
		all := slices.Concat(fleetNames, fleetOld)
		s.say(view{masterNew, 2, fleetOld}, all...)
		mustFind(t, f, masterNew)
		mustFind(t, f, masterNew)
		known := slices.Sorted(slices.Values(f.addrs))

		s.silence(all...)
		s.say(view{masterOld, 1, fleetOld[1:]}, fleetNames[0], fleetOld[0])
		mustLag(t, f)
		mustLag(t, f)
		if now := slices.Sorted(slices.Values(f.addrs)); !slices.Equal(known, now) {
			t.Errorf("knew %v, now %v", known, now)
		}
		s.say(view{masterNew, 2, fleetOld}, all...)
		mustFind(t, f, masterNew)
	}
}

// A Sentinel that is gone and that nobody names is forgotten; one that is
// named, or was configured, is not.
func TestSentinelFind_ForgetsWhoIsGone(t *testing.T) {
	s := &fakeFleet{views: map[string]view{}}
	f := s.finder(t, fleetOld[:2]...)
	s.say(view{masterOld, 3, slices.Concat(fleetOld, fleetNew)}, fleetOld[0])
	mustFind(t, f, masterOld)
	s.say(view{masterOld, 3, slices.Concat(fleetOld[2:], fleetNew[:1])}, fleetOld[0])
	s.say(view{masterOld, 3, nil}, fleetNew[1]) // it answers, whoever names it
	mustFind(t, f, masterOld)
	want := slices.Concat(fleetOld, fleetNew[:2])
	if got := slices.Sorted(slices.Values(f.addrs)); !slices.Equal(got, want) {
		t.Errorf("knows %v, want %v", got, want)
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
		{"made anew", 7, 0},
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
				return errSilent
			}
			f := s.finder(t, fleetOld...)
			s.say(view{masterOld, tc.old, nil}, fleetOld...)
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
				addr, err := f.find(context.WithValue(t.Context(), slowFind{}, true))
				slow <- found{addr, err}
			}()
			<-s.gone // two have answered, the third is awaited
			<-s.gone
			s.say(view{masterNew, tc.newer, nil}, fleetOld...)
			mustFind(t, f, masterNew)
			close(thaw)
			if got := <-slow; got.err != nil || got.addr != masterNew {
				t.Errorf("the slow one found %q, %v", got.addr, got.err)
			}
			if got := f.epoch.Load(); got != int64(tc.newer) {
				t.Errorf("epoch %d, want %d", got, tc.newer)
			}
			s.say(view{masterOld, max(tc.old, tc.newer) + 1, nil}, fleetOld...)
			mustFind(t, f, masterOld) // it goes on
		})
	}
}

// Nobody listens any more to a Sentinel that is gone, and again when it is back.
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
		f.hear(ctx, heard, &listeners, func() {})
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
