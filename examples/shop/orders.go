package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/semaphore"
	"github.com/madcrow-go/madcrow/session"
	"github.com/madcrow-go/madcrow/stream"
)

// orders are rows of the database, and a stream of their numbers for the workers.
// The row is what counts: it is written first, in one transaction, and a sweeper
// publishes what did not reach the stream. So no order is lost with Redis. A number
// may come twice: fulfil changes nothing the second time.
type orders struct {
	db      *store
	log     *slog.Logger
	stream  *stream.Stream[int64]
	reports *semaphore.Semaphore
	payment string
}

const (
	fulfilment = "fulfilment"
	sweepEvery = time.Second
)

func newOrders(r *madcrow.Redis, db *store, log *slog.Logger) (o *orders, err error) {
	o = &orders{db: db, log: log, payment: os.Getenv("PAYMENT_URL")}
	o.stream, err = stream.New(r, "orders", stream.Options[int64]{OnDead: o.dead})
	if err != nil {
		return nil, err
	}
	o.reports, err = semaphore.New(r, "reports", semaphore.Options{Limit: 2, FailPolicy: madcrow.FailLocal(2)})
	return o, err
}

func (o *orders) close(ctx context.Context) { o.stream.Close(ctx) }

// place makes an order of each product in the basket, and empties it.
func (o *orders) place(w http.ResponseWriter, r *http.Request, s *session.Session[basket]) error {
	ctx := r.Context()
	name, err := s.User(ctx)
	if err != nil {
		return err
	}
	what, _, err := s.Get(ctx)
	if err != nil {
		return err
	}
	if len(what) == 0 {
		return problem.New(http.StatusConflict, "BASKET_EMPTY", "The basket is empty")
	}
	ids, err := o.db.placeOrders(ctx, name, what)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // they are placed, whether the client stays or not
	for _, id := range ids {
		o.publish(ctx, id)
	}
	err = s.Update(ctx, func(b *basket) error { *b = nil; return nil })
	if err != nil {
		o.log.WarnContext(ctx, "the basket was not emptied", "reason", err)
	}
	return reply(w, http.StatusAccepted, map[string]any{"orders": ids})
}

// publish hands an order to the workers. If that fails, the sweeper does it later.
func (o *orders) publish(ctx context.Context, id int64) {
	if _, err := o.stream.Publish(ctx, id); err != nil {
		o.log.WarnContext(ctx, "an order waits in the database", "order", id, "reason", err)
		return
	}
	if err := o.db.markQueued(ctx, id); err != nil { // it is published again
		o.log.WarnContext(ctx, "an order may come twice", "order", id, "reason", err)
	}
}

// sweep publishes the orders that wait in the database.
func (o *orders) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ids, err := o.db.waitingOrders(ctx)
		if err != nil && ctx.Err() == nil {
			o.log.WarnContext(ctx, "the waiting orders cannot be read", "reason", err)
		}
		for _, id := range ids {
			o.publish(ctx, id)
		}
	}
}

// work fulfils orders, four at a time, until ctx ends. It goes on by itself after
// Redis was away.
func (o *orders) work(ctx context.Context) error {
	return o.stream.Work(ctx, fulfilment, o.fulfil, stream.WorkOptions{
		Workers:       4,
		Timeout:       10 * time.Second,
		MaxDeliveries: 3,
		RetryDelay:    100 * time.Millisecond,
	})
}

// fulfil is one delivery. An error is tried again; a permanent one is not.
func (o *orders) fulfil(ctx context.Context, d stream.Delivery[int64]) error {
	_, state, err := o.db.orderOf(ctx, d.Message)
	if err != nil || state != "placed" {
		return err // nil: an earlier delivery has done it
	}
	if err := o.charge(ctx, d.Message); err != nil {
		return err
	}
	return o.db.endOrder(ctx, d.Message, "paid")
}

// charge asks for the money. The number of the order is the key under which a second
// request counts as the first.
func (o *orders) charge(ctx context.Context, id int64) error {
	if o.payment == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.payment+"?order="+url.QueryEscape(strconv.FormatInt(id, 10)), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusPaymentRequired:
		return stream.Permanent(errors.New("the card was refused"))
	}
	return fmt.Errorf("the payment service answered %s", res.Status)
}

// dead is called for an order that will not be tried again.
func (o *orders) dead(ctx context.Context, d stream.DeadLetter[int64]) {
	if err := o.db.endOrder(ctx, d.Message, "refused"); err != nil {
		o.log.ErrorContext(ctx, "a dead order is still shown as placed", "order", d.Message, "reason", err)
	}
}

// get is what became of an order of the user.
func (o *orders) get(w http.ResponseWriter, r *http.Request, s *session.Session[basket]) error {
	name, err := s.User(r.Context())
	if err != nil {
		return err
	}
	id, _ := strconv.ParseInt(chi.URLParam(r, "id"), 10, 64)
	owner, state, err := o.db.orderOf(r.Context(), id)
	if err != nil {
		return err
	}
	if owner != name {
		return errNotFound // no stranger learns which orders there are
	}
	return reply(w, http.StatusOK, map[string]string{"state": state})
}

// report takes long, so there are two at a time, in all processes together.
func (o *orders) report(w http.ResponseWriter, r *http.Request) error {
	lease, d, err := o.reports.TryAcquire(r.Context(), "all")
	if err != nil {
		return err
	}
	if lease == nil {
		return problem.With(problem.Problem{
			Status: http.StatusTooManyRequests, Code: "REPORTS_BUSY", Message: "Two reports are being made", RetryAfter: d.RetryAfter,
		})
	}
	defer lease.Release(context.WithoutCancel(r.Context()))
	counts, err := o.db.countOrders(lease.Context()) // ends when the lease is lost
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, counts)
}
