package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

// catalog are the products, their caches, and the live updates of them.
type catalog struct {
	db       *store
	log      *slog.Logger
	products *cache.Cache[product]
	lists    *cache.Cache[[]product]
	bus      *pubsub.Bus
	changes  *pubsub.Recoverable[product]
	events   *sse.Handler
}

func newCatalog(r *madcrow.Redis, db *store, log *slog.Logger) (c *catalog, err error) {
	c = &catalog{db: db, log: log}
	c.products, err = cache.New(r, "products", cache.Options[product]{
		TTL:            5 * time.Minute,
		StaleTTL:       time.Hour, // served while the database fails
		NearCacheBytes: 16 << 20,  // in this process; Redis says when one changes
	})
	if err != nil {
		return nil, err
	}
	c.lists, err = cache.New(r, "lists", cache.Options[[]product]{TTL: time.Minute, StaleTTL: time.Hour, NearCacheBytes: 16 << 20})
	if err != nil {
		return nil, err
	}
	if c.bus, err = pubsub.New(r, pubsub.Options{Outbox: 1000}); err != nil {
		return nil, err
	}
	c.changes, err = pubsub.NewRecoverable(c.bus, "product-changes", pubsub.RecoverableOptions[product]{History: 1000})
	if err != nil {
		return nil, err
	}
	c.events, err = sse.New(c.changes, sse.Options[product]{})
	return c, err
}

func (c *catalog) close(ctx context.Context) {
	c.bus.Close(ctx)
	c.lists.Close(ctx)
	c.products.Close(ctx)
}

// get is one product. Of many requests at a time, in all processes, one reads the
// database.
func (c *catalog) get(w http.ResponseWriter, r *http.Request) error {
	id := chi.URLParam(r, "id")
	p, err := c.products.GetOrLoad(r.Context(), id, func(ctx context.Context) (product, error) {
		return c.db.product(ctx, id) // cache.ErrNotFound where there is none: that is a 404
	})
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, p)
}

// list are the products of a kind. The tag removes all lists of that kind at once.
func (c *catalog) list(w http.ResponseWriter, r *http.Request) error {
	kind := r.URL.Query().Get("kind")
	list, err := c.lists.GetOrLoad(r.Context(), "kind="+kind, func(ctx context.Context) ([]product, error) {
		return c.db.products(ctx, kind)
	}, cache.WithTags("kind:"+kind))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, list)
}

// put changes the database first, then the caches, then those who listen.
func (c *catalog) put(w http.ResponseWriter, r *http.Request) error {
	p := product{ID: chi.URLParam(r, "id")}
	if err := decode(w, r, &p); err != nil {
		return err
	}
	before, err := c.db.putProduct(r.Context(), p)
	if err != nil {
		return err
	}
	// It is changed: a client that goes away now does not keep the others from it.
	ctx := context.WithoutCancel(r.Context())
	for _, err := range []error{
		c.products.Delete(ctx, p.ID),
		c.lists.DeleteTag(ctx, "kind:"+p.Kind),
		c.lists.DeleteTag(ctx, "kind:"+before.Kind),
		c.lists.DeleteTag(ctx, "kind:"),
	} {
		if err != nil && !errors.Is(err, cache.ErrQueued) { // a queued one is done when Redis is back
			c.log.WarnContext(ctx, "an old value may be served until it expires", "product", p.ID, "reason", err)
		}
	}
	if _, err := c.changes.Publish(ctx, p); err != nil && !errors.Is(err, pubsub.ErrQueued) {
		c.log.WarnContext(ctx, "a change was not announced", "product", p.ID, "reason", err)
	}
	return reply(w, http.StatusOK, p)
}
