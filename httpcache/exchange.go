package httpcache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/internal/guard"
)

// exchange is one run of the handler for a load. It gives the handler its request
// and, as its http.ResponseWriter, passes what it writes to the recorder or the
// client, as the handoff says. When the load is over it says where the response is
// stored. All but the two parts is set before the handler runs.
type exchange struct {
	handoff
	recorder recorder

	v     *visit
	at    spot
	old   foundResponse   // what there was before
	req   *http.Request   // for the handler, which may change it
	asked http.Header     // its header as it was
	ctx   context.Context // of the handler
	began time.Time

	known  []string // the tags that are known before the handler runs,
	hinted bool     // and it gave some of them before
	tags   []string // those of the load
}

// errNotRun is a handler that was not run: its request has ended.
var errNotRun error = abandoned{}

type abandoned struct{}

func (abandoned) Error() string { return "the request has ended" }

// Abandoned says that nothing has failed.
func (abandoned) Abandoned() {}

// newExchange takes what it needs of the request: its client may be gone when the
// handler runs.
func newExchange(v *visit, at spot, f foundResponse) *exchange {
	x := &exchange{v: v, at: at, old: f, asked: v.r.Header.Clone(), began: time.Now()}
	ctx, cancel := context.WithCancel(context.WithoutCancel(v.r.Context()))
	x.ctx = ctx
	x.handoff.init(v, &x.recorder, cancel)
	x.recorder = recorder{
		rule:    func(status int, header http.Header) ruling { return v.h.rule(v, status, header) },
		maxBody: v.h.opt.MaxBody, header: http.Header{},
	}
	x.req = v.r.Clone(ctx)
	x.req.Method, x.req.Body = http.MethodGet, http.NoBody
	for _, name := range unseen {
		delete(x.req.Header, name)
	}
	if s := f.Value; f.State == cache.Stale && s.kind == kindResponse {
		x.recorder.staleOK = s.sie > 0 && s.overdue(f.Age) <= s.sie
		x.validate(s, f.Age)
	}
	return x
}

// load is the loader: it runs the handler, and returns what it made as it is to be
// stored.
func (x *exchange) load(ctx context.Context, l *cache.Load[*storedResponse]) (*storedResponse, error) {
	if !x.start(ctx) { // its request has ended
		return nil, errNotRun
	}
	go x.run()
	x.wait()
	s, err := x.outcome(ctx)
	if err != nil {
		return nil, err
	}
	return x.place(ctx, l, s), nil
}

// outcome is the response if others may have it.
func (x *exchange) outcome(ctx context.Context) (*storedResponse, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.panicked == http.ErrAbortHandler: //nolint:errorlint // net/http compares it like this too
		return nil, errNotRun
	case x.panicked != nil:
		return nil, fmt.Errorf("the handler: panic: %s", guard.Text(x.panicked))
	case x.recorder.failed():
		return nil, fmt.Errorf("the handler answered %d", x.recorder.status)
	case x.expired && (x.recorder.staleOK || !errors.Is(ctx.Err(), context.DeadlineExceeded)):
		return nil, cache.ErrLoadTimeout // what is stored is better than nothing
	case x.result != nil && x.recorder.ruling.share:
		return x.result, nil
	}
	return passResponse, nil
}

// run runs the handler.
func (x *exchange) run() {
	returned := false
	defer close(x.done)
	defer func() {
		p := recover()
		switch {
		case p != nil:
			x.logPanic(guard.Recovered(p), p)
		case !returned:
			p = http.ErrAbortHandler // runtime.Goexit
		}
		x.finish(p)
	}()
	x.v.next.ServeHTTP(x, x.req)
	returned = true
}

// finish makes the response of what the handler has written, or ends the stream.
func (x *exchange) finish(p any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	broken := guard.Call(func() error { // the client's writer and the options are users' code too
		x.conclude(p)
		return nil
	})
	if p == nil && broken != nil {
		x.logPanic(broken, broken)
		p = broken
	}
	x.end(p)
}

// logPanic logs a panic with its stack, once for each place. The goroutine of the
// request, where it is raised again, no longer has that stack.
func (x *exchange) logPanic(err error, value any) {
	if value == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
		return
	}
	if p := (*guard.Panic)(nil); errors.As(err, &p) && x.v.h.panics.First(p.Place) {
		x.v.h.log.Error("a handler panicked", "cache", x.v.h.engine.Name(), "reason", err, "stack", p.Stack)
	}
}

// staleFor is for how long the stale response may be served in the place of an
// error.
func (x *exchange) staleFor() time.Duration {
	if s := x.old.Value; x.recorder.staleOK {
		return s.sie - s.overdue(x.old.Age)
	}
	return 0
}

func (x *exchange) conclude(p any) {
	if p == nil && x.recorder.status == 0 && x.phase != phaseStream {
		x.writeHeader(http.StatusOK)
	}
	if x.phase == phaseKeep && x.attached && x.flushing && !time.Now().Before(x.streamAt) {
		x.pass() // a stream, whose timer has not fired yet
	}
	if p == nil && x.phase == phaseKeep {
		s, fate := x.recorder.response()
		if x.result = s; fate == fatePass {
			x.pass()
		}
	}
	if x.phase == phaseStream {
		x.writeTrailers()
	}
}

// ran says whether the handler ran, and what it said if that is not what the
// client gets, as a parameter of Cache-Status.
func (x *exchange) ran() (yes bool, code string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.phase != phaseIdle, x.recorder.code()
}

// canBeStale says whether the stale response may be served in the place of the
// handler's.
func (x *exchange) canBeStale() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.recorder.staleOK
}
