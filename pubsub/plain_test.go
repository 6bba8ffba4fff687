package pubsub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

// foreign is a client of Redis that knows nothing of this package, as the Python
// original is.
type foreign struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func dialForeign(t *testing.T, srv *madcrowtest.Server) *foreign {
	c, err := net.Dial("tcp", srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &foreign{t, c, bufio.NewReader(c)}
}

func (f *foreign) do(args ...string) any {
	f.t.Helper()
	if err := resp.Write(f.c, args); err != nil {
		f.t.Fatal(err)
	}
	return f.read()
}

func (f *foreign) read() any {
	f.t.Helper()
	reply, err := resp.Read(f.r)
	if err != nil {
		f.t.Fatal(err)
	}
	return reply
}

// Plain messages are byte for byte what was given, in both directions, also when
// they look like an envelope, come twice, or are no text at all.
func TestPlain_IsByteForByteWhatOthersSendAndReceive(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	topic := topicOf(t, b, "chat:1", pubsub.TopicOptions[string]{Plain: true})
	pattern, err := pubsub.NewPatterns(b, []string{"chat:*"}, pubsub.TopicOptions[string]{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	l := hearing(t, subscribeTo(topic))
	l.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	p := hearing(t, func(ctx context.Context) iter.Seq2[pubsub.Event[string], error] { return pattern.Subscribe(ctx) })
	p.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	sub, pub := dialForeign(t, srv), dialForeign(t, srv)
	sub.do("SUBSCRIBE", "chat:1")
	texts := []string{
		"", " ", "hello", `{"user": "ä", "n": 1}`, "line\r\nline\n", "\x00\xff\xfe", "m1 p 1 1\nx", "m1 p 1 1\nx", "m1 p 9 1\nx",
		"r1 E 1 N \nx", strings.Repeat("x", 300<<10),
	}
	for _, text := range texts {
		if n := pub.do("PUBLISH", "chat:1", text); n != int64(3) { // the foreign one, the channel, the pattern
			t.Errorf("%.20q had %v receivers", text, n)
		}
		if m := sub.read().([]any); m[2] != text {
			t.Fatalf("the foreign one got %.20q", m[2])
		}
		for _, e := range []pubsub.Event[string]{
			l.next(t, "a message", func(pubsub.Event[string]) bool { return true }),
			p.next(t, "a message", func(pubsub.Event[string]) bool { return true }),
		} {
			if e.Kind != pubsub.EventMessage || e.Message != text || e.Channel != "chat:1" || e.Publisher != "" || e.Err != nil {
				t.Errorf("%.20q became %.60q (%v)", text, e.Message, e.Kind)
			}
		}
		if _, err := topic.Publish(t.Context(), text); err != nil {
			t.Fatal(err)
		}
		if m := sub.read().([]any); m[0] != "message" || m[1] != "chat:1" || m[2] != text {
			t.Errorf("%.20q arrived as %.60q", text, m)
		}
		l.next(t, "its own", is[string](pubsub.EventMessage))
		p.next(t, "its own", is[string](pubsub.EventMessage))
	}
}

// On one channel typed and plain listeners each get what is theirs, and a text
// without an envelope is a message of a typed topic too.
func TestPlain_AndTypedListenersShareAChannel(t *testing.T) {
	srv := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, srv.Config()), pubsub.Options{})
	typed, plain := topicOf(t, b, "t", pubsub.TopicOptions[string]{}), topicOf(t, b, "t", pubsub.TopicOptions[string]{Plain: true})
	tl, pl := hearing(t, subscribeTo(typed)), hearing(t, subscribeTo(plain))
	tl.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	pl.next(t, "subscribed", is[string](pubsub.EventSubscribed))
	if n := numsub(t, srv, "t"); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
	every := func(pubsub.Event[string]) bool { return true }
	srv.Do(t, "PUBLISH", "t", "from outside")
	if e := tl.next(t, "a message", every); e.Message != "from outside" || e.Publisher != "" {
		t.Errorf("%+v", e)
	}
	pl.next(t, "a message", every)
	if _, err := typed.Publish(t.Context(), "from inside"); err != nil {
		t.Fatal(err)
	}
	if e := tl.next(t, "a message", every); e.Message != "from inside" || e.Publisher == "" || e.Number != 1 || time.Since(e.Sent) > time.Minute {
		t.Errorf("%+v", e)
	}
	e := pl.next(t, "a message", every)
	if !strings.HasPrefix(e.Message, "m1 ") || !strings.HasSuffix(e.Message, "\nfrom inside") {
		t.Errorf("%q", e.Message)
	}
	for range 2 { // the same envelope twice: one is a duplicate for who counts
		srv.Do(t, "PUBLISH", "t", e.Message)
		pl.next(t, "a copy", is[string](pubsub.EventMessage))
	}
	srv.Do(t, "PUBLISH", "t", "m1 other 1 1\nend")
	if e := tl.next(t, "a message", every); e.Message != "end" || e.Publisher != "other" {
		t.Errorf("%+v", e)
	}
}

// What several are given is decoded once where no one can change it for another,
// and each gets what its own topic makes of it.
func TestTopic_SubscribersDoNotShareMutableValues(t *testing.T) {
	type safe struct {
		N    int
		Text string
		At   time.Time
		Pair [2]bool
	}
	type unsafe struct {
		N    int
		List []int
	}
	b := newBus(t, open(t), pubsub.Options{})
	hear := func(listen func(n int)) {
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() { listen(n) })
		}
		wg.Wait()
	}
	one := safe{7, "x", time.Unix(1, 0).UTC(), [2]bool{true}}
	text := fmt.Sprintf(`{"N":7,"Text":"x","At":%q,"Pair":[true,false],"List":[1,2]}`, "1970-01-01T00:00:01Z")
	source := topicOf(t, b, "t", pubsub.TopicOptions[string]{Plain: true})
	var ready sync.WaitGroup
	ready.Add(9)
	go func() {
		ready.Wait()
		for _, m := range []string{text, "no JSON", text} {
			if n, err := source.Publish(context.Background(), m); n != 1 || err != nil {
				t.Errorf("%d receivers, %v", n, err)
			}
		}
	}()
	var all sync.WaitGroup
	all.Go(func() {
		hear(func(int) {
			wantThrice(t, b, &ready, pubsub.TopicOptions[safe]{}, func(v safe) bool { return v == one })
		})
	})
	all.Go(func() {
		hear(func(int) {
			wantThrice(t, b, &ready, pubsub.TopicOptions[unsafe]{Plain: true}, func(v unsafe) bool {
				ok := v.N == 7 && slices.Equal(v.List, []int{1, 2})
				v.List[0] = 100
				return ok
			})
		})
	})
	all.Go(func() {
		hear(func(n int) {
			if n < 2 {
				wantThrice(t, b, &ready, pubsub.TopicOptions[struct{ N float64 }]{Plain: n == 1}, func(v struct{ N float64 }) bool { return v.N == 7 })
				return
			}
			wantThrice(t, b, &ready, pubsub.TopicOptions[map[string]any]{}, func(v map[string]any) bool { return v["N"] == 7.0 })
		})
	})
	all.Wait()
}

// wantThrice hears a good message, a malformed one and a good one.
func wantThrice[T any](t *testing.T, b *pubsub.Bus, ready *sync.WaitGroup, opt pubsub.TopicOptions[T], good func(T) bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := 0
	for e, err := range topicOf(t, b, "t", opt).Subscribe(ctx) {
		switch {
		case err != nil:
			t.Error(err)
		case e.Kind == pubsub.EventSubscribed:
			ready.Done()
		case e.Kind == pubsub.EventMessage:
			if n++; (n == 2) != errors.Is(e.Err, pubsub.ErrMalformed) || n != 2 && !good(e.Message) {
				t.Errorf("%T as number %d: %+v", e.Message, n, e)
			}
			if n == 3 {
				return
			}
		}
	}
	t.Errorf("only %d came", n)
}

// One in plain mode does not get what one in typed mode has decoded, nor the
// other way round.
func TestTopic_PlainAndTypedListenersTakeAMessageEachInItsWay(t *testing.T) {
	b := newBus(t, open(t), pubsub.Options{})
	var ears []*ear[pubsub.Event[int]]
	for n := range 6 {
		l := hearing(t, subscribeTo(topicOf(t, b, "t", pubsub.TopicOptions[int]{Plain: n%2 == 0})))
		l.next(t, "subscribed", is[int](pubsub.EventSubscribed))
		ears = append(ears, l)
	}
	if _, err := topicOf(t, b, "t", pubsub.TopicOptions[int]{}).Publish(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	for n, l := range ears {
		e := l.next(t, "a message", is[int](pubsub.EventMessage))
		if plain := n%2 == 0; plain != errors.Is(e.Err, pubsub.ErrMalformed) || !plain && e.Message != 7 {
			t.Errorf("plain: %v: %+v", plain, e)
		}
	}
}
