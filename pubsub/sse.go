package pubsub

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow/problem"
)

// SSEOptions says how events are served. The zero value works.
type SSEOptions[T any] struct {
	// Authorize says who may listen; it is asked once for each connection (see
	// Life). An error that knows its problem (package problem) is the answer,
	// any other one is a 403. Defaults to everybody.
	Authorize func(*http.Request) error
	// Encode makes the data of a message. Defaults to the text of strings and
	// the JSON of all else. An error makes an event "malformed" of it.
	Encode func(channel string, v T) (string, error)
	// Heartbeat is after how long without an event a comment is sent, from 10
	// ms to 10 minutes: proxies then do not close the connection, and a client
	// that is gone is noticed. Defaults to 15 seconds.
	Heartbeat time.Duration
	// WriteTimeout is how long one write may take, from 10 ms to 10 minutes,
	// whatever the server's own is. A client that reads nothing for so long is
	// cut off. Defaults to 10 seconds.
	WriteTimeout time.Duration
	// Retry is how long browsers are told to wait before they come back; each
	// is told up to half more, so that not all come at once. Defaults to 2
	// seconds; a negative one says nothing.
	Retry time.Duration
	// Queue is how many messages wait for a slow client, see [WithQueue].
	// Beyond it a client of a Recoverable reads on from the history.
	Queue int
	// Overflow is what becomes of messages beyond Queue where there is no
	// history. Defaults to [DropNewest] and an event "dropped"; [Disconnect]
	// closes the connection instead.
	Overflow Overflow
	// MaxClients is how many connections there may be at the same time; one
	// more is a 503. Defaults to 10,000.
	MaxClients int
	// Life is after how long a connection is closed, so that the browser comes
	// back and Authorize is asked again. Defaults to 0: never.
	Life time.Duration
	// Refuse answers a request that is not served. Defaults to problem.Write
	// with Logger.
	Refuse func(http.ResponseWriter, *http.Request, error)
	// Logger defaults to none.
	Logger *slog.Logger
}

func (o SSEOptions[T]) filled() (SSEOptions[T], error) {
	o.Heartbeat = cmp.Or(o.Heartbeat, 15*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 10*time.Second)
	o.Retry = cmp.Or(o.Retry, 2*time.Second)
	o.Queue = cmp.Or(o.Queue, 1024)
	o.MaxClients = cmp.Or(o.MaxClients, 10_000)
	if o.Encode == nil {
		o.Encode = defaultEncode[T]
	}
	if o.Refuse == nil {
		log := o.Logger
		o.Refuse = func(w http.ResponseWriter, r *http.Request, err error) { problem.Write(w, r, log, err) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for name, d := range map[string]time.Duration{"Heartbeat": o.Heartbeat, "WriteTimeout": o.WriteTimeout} {
		if d < 10*time.Millisecond || d > 10*time.Minute {
			return o, &ValidationError{Field: name, Message: "must be from 10ms to 10m"}
		}
	}
	switch {
	case o.Retry > time.Hour:
		return o, &ValidationError{Field: "Retry", Message: "must be at most 1h"}
	case o.MaxClients < 1:
		return o, &ValidationError{Field: "MaxClients", Message: "must be at least 1"}
	case o.Life < 0:
		return o, &ValidationError{Field: "Life", Message: "must not be negative"}
	}
	_, err := subscribingOf([]SubscribeOption{WithQueue(o.Queue), WithOverflow(o.Overflow)})
	return o, err
}

// SSEHandler serves messages as server-sent events. Make it with [SSE] or
// [SSEFunc].
type SSEHandler struct {
	open       func(*http.Request) (*sseFeed, error)
	refuse     func(http.ResponseWriter, *http.Request, error)
	log        *slog.Logger
	settings   sseSettings
	lifeOfOne  time.Duration
	maxClients int64
	clients    atomic.Int64
	end        context.Context
	stop       context.CancelFunc
}

// sseFeed is what one request listens to.
type sseFeed struct {
	b      *Bus
	frames func(ctx context.Context, after Position) iter.Seq2[frame, error]
}

// SSE serves one source. What a client is told, each with data in JSON but for
// the message itself:
//
//	(message)     a message, as Encode makes it
//	subscribed    what is published from now on comes
//	interrupted   messages do not come at the moment
//	gap           they come again; those between "since" and "until" did not
//	missed        "n" were published and did not come
//	dropped       "n" were dropped, because this client was too slow
//	malformed     one that cannot be decoded or encoded
//	history-lost  what came after the Last-Event-ID is not all there any more:
//	              read anew what the messages are about
//
// With a [Recoverable] each has the id of its [Position], and a browser that
// comes back, with the header Last-Event-ID, gets what it missed: gap, missed
// and dropped do not happen. The parameter last-event-id in the URL is for
// clients that cannot set the header, and for a first connection: the text of
// [Beginning] asks for everything that is kept. An id that is none of this
// topic's is a lost history. Without a history there are no ids, and messages
// begin with the connection.
//
// The answer begins with the first event, so that what cannot be listened to is
// a problem document; while Redis is away it begins after a second, with
// "interrupted", and goes on when Redis is back. A line break in a message comes
// out of the browser as "\n", whichever it was.
//
// A connection ends with its request, with the bus, when the client does not
// read, and with [SSEHandler.Close]. The server's read and write time-outs do
// not hold for it. A body of the request that nobody has read is thrown away; one
// that is not there within two seconds is a 408, one of more than 256 KB a 413.
// Middlewares around it must not hide Flush (they need an Unwrap method), and
// compressing ones would hold events back. In Fiber it is served by
// madcrowfiber.Stream: the adaptor of Fiber knows no time-outs, so a client that
// does not read would never be cut off.
func SSE[T any](source Source[T], options SSEOptions[T]) (*SSEHandler, error) {
	if source == nil {
		return nil, &ValidationError{Field: "source", Message: "must not be nil"}
	}
	return SSEFunc(func(*http.Request) (Source[T], error) { return source, nil }, options)
}

// SSEFunc is [SSE] of a source that each request chooses, by its path or its
// user. An error becomes a problem document.
func SSEFunc[T any](choose func(*http.Request) (Source[T], error), options SSEOptions[T]) (*SSEHandler, error) {
	opt, err := options.filled()
	if err != nil {
		return nil, err
	}
	h := &SSEHandler{
		refuse: opt.Refuse, log: opt.Logger, lifeOfOne: opt.Life, maxClients: int64(opt.MaxClients),
		settings: sseSettings{heartbeat: opt.Heartbeat, timeout: opt.WriteTimeout, retry: opt.Retry},
	}
	how := []SubscribeOption{WithQueue(opt.Queue), WithOverflow(opt.Overflow)}
	h.open = func(r *http.Request) (*sseFeed, error) {
		if opt.Authorize != nil {
			if err := opt.Authorize(r); err != nil {
				return nil, forbidden(err)
			}
		}
		source, err := choose(r)
		if err != nil {
			return nil, err
		}
		return &sseFeed{source.bus(), func(ctx context.Context, after Position) iter.Seq2[frame, error] {
			return framesOf(source.events(ctx, after, how), opt.Encode)
		}}, nil
	}
	h.end, h.stop = context.WithCancel(context.Background())
	return h, nil
}

func framesOf[T any](events iter.Seq2[told[T], error], encode func(string, T) (string, error)) iter.Seq2[frame, error] {
	return func(yield func(frame, error) bool) {
		for e, err := range events {
			var f frame
			if err == nil {
				f = frameOf(e, encode)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// refusal makes a 403 of an error that does not know better.
func forbidden(err error) error {
	var d problem.Describer
	if errors.As(err, &d) {
		return err
	}
	return errors.Join(problem.New(http.StatusForbidden, "FORBIDDEN", "You may not listen to this"), err)
}

// Close ends all connections at once, and refuses further ones. It does not
// wait. http.Server.Shutdown waits for connections and does not end them, so
// tell it:
//
//	server.RegisterOnShutdown(events.Close)
func (h *SSEHandler) Close() { h.stop() }

// Clients is how many connections there are.
func (h *SSEHandler) Clients() int { return int(h.clients.Load()) }

// ServeHTTP serves one client until it leaves.
func (h *SSEHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	feed, err := h.admit(w, r)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	defer h.clients.Add(-1)
	if r.Method == http.MethodHead {
		setEventHeaders(w.Header())
		return
	}
	if err := h.finishBody(w, r); err != nil {
		h.refuse(w, r, err)
		return
	}
	feed.b.event("sse_opened", 1)
	defer feed.b.event("sse_closed", 1)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.end, cancel)()
	defer context.AfterFunc(feed.b.ctx, cancel)()
	if h.lifeOfOne > 0 {
		defer time.AfterFunc(h.lifeOfOne, cancel).Stop()
	}
	s := newSSEStream(w, h.settings, cancel)
	defer s.finish()
	err = s.relay(feed.frames(ctx, lastEventID(r)))
	begun, cut := s.finish()
	switch {
	case errors.Is(cut, os.ErrDeadlineExceeded):
		feed.b.event("sse_cut", 1)
		h.log.Debug("a listener does not read", "route", r.Pattern)
	case cut != nil, r.Context().Err() != nil: // the client left
	case !begun && err == nil: // it was to end before it began
		h.refuse(w, r, errEnded)
	case !begun:
		h.refuse(w, r, err)
	case err != nil && !errors.Is(err, ErrClosed):
		h.log.Warn("a listener was cut off", "route", r.Pattern, "reason", err)
	}
}

var errEnded = problem.With(problem.Problem{
	Status: http.StatusServiceUnavailable, Code: "EVENTS_ENDED", Message: "This server is ending", RetryAfter: time.Second,
})

// admit says what the request listens to, and counts it.
func (h *SSEHandler) admit(w http.ResponseWriter, r *http.Request) (*sseFeed, error) {
	if h.end.Err() != nil {
		return nil, errEnded
	}
	if !canFlush(w) {
		return nil, errors.New("pubsub: the http.ResponseWriter cannot flush: a middleware hides it without an Unwrap method, or the framework has no streams of net/http (in Fiber, serve this handler with the Stream of contrib/fiber)")
	}
	feed, err := h.open(r)
	if err != nil {
		return nil, err
	}
	if h.clients.Add(1) > h.maxClients {
		h.clients.Add(-1)
		feed.b.event("sse_refused", 1)
		return nil, problem.With(problem.Problem{
			Status: http.StatusServiceUnavailable, Code: "TOO_MANY_LISTENERS", Message: "Too many listen already", RetryAfter: 5 * time.Second,
		})
	}
	return feed, nil
}

// lastEventID is where to go on from. The header wins: a browser that comes
// back sends it with the URL of its first connection.
func lastEventID(r *http.Request) Position {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("last-event-id")
	}
	p, err := ParsePosition(text)
	if err != nil {
		return Position{Epoch: "?"} // of no history: it is lost
	}
	return p
}
