package sse

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

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/events"
	"github.com/madcrow-go/madcrow/internal/operr"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
)

// Options says how events are served. The zero value works.
type Options[T any] struct {
	// Authorize says who may listen; it is called once for each connection (see
	// MaxConnectionAge). An error that knows its problem (package problem) is the response,
	// any other error is a 403. Defaults to everyone.
	Authorize func(*http.Request) error
	// Encode makes the data of a message. Defaults to the text of strings and
	// the JSON of all other types. An error makes an event "malformed" of the
	// message.
	Encode func(channel string, v T) (string, error)
	// Heartbeat is after how long without an event a comment is sent, from 10
	// ms to 10 minutes: proxies then do not close the connection, and a client
	// that is gone is noticed. Defaults to 15 seconds.
	Heartbeat time.Duration
	// WriteTimeout is how long one write may take, from 10 ms to 10 minutes,
	// whatever the server's own is. A client that reads nothing for so long is
	// cut off. Defaults to 10 seconds.
	WriteTimeout time.Duration
	// Retry is how long browsers wait before they come back; each gets up to half
	// more, so that not all come at once. Defaults to 2 seconds; a negative one
	// leaves it to the browser.
	Retry time.Duration
	// Queue is how many messages wait for a slow client, see [pubsub.WithQueue].
	// Beyond it a client of a [pubsub.Recoverable] reads on from the history.
	Queue int
	// Overflow says which messages are dropped beyond Queue where there is no
	// history. Defaults to [pubsub.DropNewest] and an event "dropped";
	// [pubsub.Disconnect] closes the connection instead.
	Overflow pubsub.Overflow
	// MaxClients is how many connections there may be at the same time; one
	// more is a 503. Defaults to 10,000.
	MaxClients int
	// MaxConnectionAge is after how long a connection is closed, so that the browser comes
	// back and Authorize is called again. Defaults to 0: never.
	MaxConnectionAge time.Duration
	// Refuse answers a request that is not served. Defaults to problem.Write
	// with Logger.
	Refuse func(http.ResponseWriter, *http.Request, error)
	// Logger defaults to that of the source's Redis; for [NewFunc], to that of the
	// source that was chosen last, and slog.Default() before the first one.
	Logger *slog.Logger
}

func (o Options[T]) filled() (Options[T], error) {
	o.Heartbeat = cmp.Or(o.Heartbeat, 15*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 10*time.Second)
	o.Retry = cmp.Or(o.Retry, 2*time.Second)
	o.Queue = cmp.Or(o.Queue, 1024)
	o.MaxClients = cmp.Or(o.MaxClients, 10_000)
	if o.Encode == nil {
		o.Encode = defaultEncode[T]
	}
	var wrong operr.Arguments
	const least, most = 10 * time.Millisecond, 10 * time.Minute
	wrong.Check(o.Heartbeat >= least && o.Heartbeat <= most, "Options.Heartbeat", "must be from 10ms to 10m")
	wrong.Check(o.WriteTimeout >= least && o.WriteTimeout <= most, "Options.WriteTimeout", "must be from 10ms to 10m")
	wrong.Check(o.Retry <= time.Hour, "Options.Retry", "must be at most 1h")
	wrong.Check(o.MaxClients >= 1, "Options.MaxClients", "must be at least 1")
	wrong.Check(o.Queue >= 1 && o.Queue <= 1_000_000, "Options.Queue", "must be from 1 to 1000000")
	wrong.Check(o.MaxConnectionAge >= 0, "Options.MaxConnectionAge", "must not be negative")
	return o, fail.Arguments("new", "", wrong)
}

var fail = operr.Maker{Package: "sse"}

func (o Options[T]) subscribe() []pubsub.SubscribeOption {
	return []pubsub.SubscribeOption{pubsub.WithQueue(o.Queue), pubsub.WithOverflow(o.Overflow)}
}

// Handler serves messages as server-sent events. Make it with [New] or
// [NewFunc].
type Handler struct {
	open       func(*http.Request) (*feed, error)
	refuse     func(http.ResponseWriter, *http.Request, error)
	log        atomic.Pointer[slog.Logger]
	settings   settings
	maxAge     time.Duration
	maxClients int64
	clients    atomic.Int64
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
}

// feed is the events of one request.
type feed struct {
	events events.Source
	frames func(ctx context.Context, after pubsub.Position) iter.Seq2[frame, error]
}

func (f *feed) event(ctx context.Context, t madcrow.EventType) { f.events.Count(ctx, t) }

// New serves one source. A client gets these events, each with data in JSON but
// for the message itself:
//
//	(message)     a message, as Encode makes it
//	subscribed    what is published from now on comes
//	interrupted   messages do not come at the moment
//	gap           they come again; those between "since" and "until" did not
//	missed        "n" were published and did not come
//	dropped       "n" were dropped, because this client was too slow
//	malformed     one that cannot be decoded or encoded
//	history-lost  messages after the Last-Event-ID are not kept any more: read
//	              again what the messages are about
//
// With a [pubsub.Recoverable] each has the id of its [pubsub.Position], and a
// browser that comes back, with the header Last-Event-ID, gets what it missed:
// gap, missed and dropped do not happen. The parameter last-event-id in the URL is
// for clients that cannot set the header, and for a first connection: the text of
// [pubsub.Beginning] asks for everything that is kept. An id that is none of this
// topic's is a lost history. Without a history there are no ids, and messages
// begin with the connection.
//
// The response begins with the first event, so that a topic that cannot be
// subscribed to is a problem document; while Redis is away it begins after a
// second, with "interrupted", and goes on when Redis is back. A line break in a
// message comes out of the browser as "\n", whichever it was.
//
// A connection ends with its request, with the bus, when the client does not
// read, and with [Handler.Close]. The server's read and write timeouts do not
// hold for it. The unread body of a request is discarded; one that is not there
// within two seconds is a 408, one of more than 256 KB a 413. Middleware around it
// must not hide Flush (it needs an Unwrap method), and compressing middleware would
// hold events back. In Fiber serve it by madcrowfiber.Stream: Fiber's adaptor knows
// no timeouts, so a client that does not read would never be cut off.
func New[T any](source Source[T], options Options[T]) (*Handler, error) {
	if source == nil {
		return nil, fail.Argument("new", "", "source", "must not be nil")
	}
	if options.Logger == nil {
		options.Logger = source.Redis().Logger()
	}
	return NewFunc(func(*http.Request) (Source[T], error) { return source, nil }, options)
}

// NewFunc is [New] of a source that each request chooses, by its path or its
// user. An error becomes a problem document; a [*madcrow.ArgumentError], of a name
// that the request chose, is a 422, unless a problem around it says otherwise.
func NewFunc[T any](choose func(*http.Request) (Source[T], error), options Options[T]) (*Handler, error) {
	opt, err := options.filled()
	if err != nil {
		return nil, err
	}
	h := &Handler{
		refuse: opt.Refuse, maxAge: opt.MaxConnectionAge, maxClients: int64(opt.MaxClients),
		settings: settings{heartbeat: opt.Heartbeat, timeout: opt.WriteTimeout, retry: opt.Retry},
	}
	h.log.Store(cmp.Or(opt.Logger, slog.Default()))
	if h.refuse == nil {
		h.refuse = func(w http.ResponseWriter, r *http.Request, err error) { problem.Write(w, r, h.log.Load(), err) }
	}
	h.open = func(r *http.Request) (*feed, error) {
		if opt.Authorize != nil {
			if err := opt.Authorize(r); err != nil {
				return nil, forbidden(err)
			}
		}
		source, err := choose(r)
		if err != nil {
			return nil, unprocessable(err)
		}
		if log := source.Redis().Logger(); opt.Logger == nil && h.log.Load() != log {
			h.log.Store(log)
		}
		return &feed{events.Of(source.Redis(), source.Name()), func(ctx context.Context, after pubsub.Position) iter.Seq2[frame, error] {
			return framesOf(source.Events(ctx, after, opt.subscribe()...), opt.Encode)
		}}, nil
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// unprocessable makes a 422 of an argument error. A problem that choose made of it
// stays.
func unprocessable(err error) error {
	var d problem.Describer
	if !errors.As(err, &d) {
		return err
	}
	a, ok := d.(*madcrow.ArgumentError)
	if !ok {
		return err
	}
	return operr.Unprocessable(a.Argument, err)
}

func framesOf[T any](events iter.Seq2[pubsub.Event[T], error], encode func(string, T) (string, error)) iter.Seq2[frame, error] {
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

// forbidden makes a 403 of an error that does not know better.
func forbidden(err error) error {
	var d problem.Describer
	if errors.As(err, &d) {
		return err
	}
	return errors.Join(problem.New(http.StatusForbidden, "FORBIDDEN", "You may not listen to this"), err)
}

// Close ends all connections at once, and refuses further ones. It does not
// wait. http.Server.Shutdown waits for connections and does not end them, so
// register it there:
//
//	server.RegisterOnShutdown(events.Close)
func (h *Handler) Close() { h.cancel() }

// Clients is how many connections there are.
func (h *Handler) Clients() int { return int(h.clients.Load()) }

// ServeHTTP serves one client until it leaves.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, err := h.admit(w, r)
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
	f.event(r.Context(), madcrow.EventSSEOpened)
	defer f.event(r.Context(), madcrow.EventSSEClosed)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	if h.maxAge > 0 {
		defer time.AfterFunc(h.maxAge, cancel).Stop()
	}
	s := newResponse(w, h.settings, cancel)
	defer s.finish()
	err = s.relay(f.framesFor(ctx, r))
	started, failure := s.finish()
	switch {
	case errors.Is(failure, os.ErrDeadlineExceeded):
		f.event(r.Context(), madcrow.EventSSECut)
		h.log.Load().Debug("a client of server-sent events does not read", "route", r.Pattern)
	case failure != nil, r.Context().Err() != nil: // the client left
	case !started && err == nil: // it was to end before it began
		h.refuse(w, r, errEnded)
	case !started:
		h.refuse(w, r, err)
	case err != nil && !errors.Is(err, pubsub.ErrClosed):
		h.log.Load().Warn("a client of server-sent events was cut off", "route", r.Pattern, "reason", err)
	}
}

var errEnded = problem.With(problem.Problem{
	Status: http.StatusServiceUnavailable, Code: "EVENTS_ENDED", Message: "This server is ending", RetryAfter: time.Second,
})

// admit returns the events for a request, and counts the client.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) (*feed, error) {
	if h.ctx.Err() != nil {
		return nil, errEnded
	}
	f, err := h.open(r)
	if err != nil {
		return nil, err
	}
	if !canFlush(w) {
		return nil, errors.New("sse: the http.ResponseWriter cannot flush: a middleware hides it without an Unwrap method, or the framework has no streams of net/http (in Fiber, serve this handler with the Stream of contrib/fiber)")
	}
	if h.clients.Add(1) > h.maxClients {
		h.clients.Add(-1)
		f.event(r.Context(), madcrow.EventSSERefused)
		return nil, problem.With(problem.Problem{
			Status: http.StatusServiceUnavailable, Code: "TOO_MANY_LISTENERS", Message: "Too many clients", RetryAfter: 5 * time.Second,
		})
	}
	return f, nil
}
