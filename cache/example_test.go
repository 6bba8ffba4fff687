package cache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/cache"
	"github.com/madcrow-go/madcrow/problem"
)

type article struct {
	Title string `json:"title"`
}

// articles opens a cache for an example, under a name of its own.
func articles(ctx context.Context, name string, opt cache.Options[article]) (c *cache.Cache[article], stop func()) {
	r, err := madcrow.Open(ctx, config) // a program calls ConfigFromEnv
	if err != nil {
		log.Fatal(err)
	}
	if c, err = cache.New(r, name, opt); err != nil {
		log.Fatal(err)
	}
	return c, func() {
		_ = c.Close(ctx) // before the Redis
		_ = r.Close(ctx)
	}
}

// database stands for what is slow.
var database = map[string]article{"a": {"Ants"}, "b": {"Bees"}}

func findArticle(_ context.Context, id string) (article, error) {
	a, ok := database[id]
	if !ok {
		return a, cache.ErrNotFound // that is cached too
	}
	return a, nil
}

func ExampleCache_GetOrLoad() {
	ctx := context.Background()
	c, stop := articles(ctx, "get-or-load", cache.Options[article]{TTL: time.Minute})
	defer stop()

	for _, id := range []string{"a", "a", "z", "z"} {
		a, err := c.GetOrLoad(ctx, id, func(ctx context.Context) (article, error) {
			fmt.Println("loading", id)
			return findArticle(ctx, id)
		})
		switch {
		case errors.Is(err, cache.ErrNotFound):
			fmt.Println("there is no", id)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(a.Title)
		}
	}
	// Output:
	// loading a
	// Ants
	// Ants
	// loading z
	// there is no z
	// there is no z
}

// A cache whose values all come from one place has its loader from the beginning.
func ExampleCache_Load() {
	ctx := context.Background()
	c, stop := articles(ctx, "load", cache.Options[article]{Load: findArticle})
	defer stop()

	a, err := c.Load(ctx, "b")
	fmt.Println(a.Title, err)
	_, err = c.Load(ctx, "z")
	fmt.Println(errors.Is(err, cache.ErrNotFound))
	// Output:
	// Bees <nil>
	// true
}

// An error of the loader is the caller's own, and is answered as such.
func ExampleCache_GetOrLoad_error() {
	ctx := context.Background()
	c, stop := articles(ctx, "load-error", cache.Options[article]{})
	defer stop()

	_, err := c.GetOrLoad(ctx, "a", func(context.Context) (article, error) { return article{}, sql.ErrConnDone })
	fmt.Println(errors.Is(err, sql.ErrConnDone), problem.From(err).Status, problem.From(err).Code)
	// Output: true 500 LOAD_FAILED
}

// A source that can say "not modified" is asked with the ETag of the stale
// value, which then lives on.
func ExampleCache_GetOrLoadWith() {
	ctx := context.Background()
	c, stop := articles(ctx, "get-or-load-with", cache.Options[article]{TTL: time.Hour, StaleTTL: time.Hour})
	defer stop()

	load := func(_ context.Context, l *cache.Load[article]) (article, error) {
		if l.ETag == `"v1"` {
			fmt.Println("304: it is still", l.Previous.Title)
			l.NotModified()
			l.SetTTL(10 * time.Minute)
			return article{}, nil
		}
		fmt.Println("200")
		l.SetETag(`"v1"`)
		return article{"Ants"}, nil
	}
	for range 3 {
		res, err := c.GetOrLoadWith(ctx, "a", load, cache.WithTags("insects"))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Value.Title, res.Source, res.TTL > 10*time.Minute)
		if res.Source == cache.SourceRedis {
			fmt.Println(c.ExpireTag(ctx, "insects"))
		}
	}
	// Output:
	// 200
	// Ants load true
	// Ants redis true
	// <nil>
	// 304: it is still Ants
	// Ants load false
}

// A value whose source is away is served from the past, and says so.
func ExampleCache_GetOrLoadWith_stale() {
	ctx := context.Background()
	c, stop := articles(ctx, "stale", cache.Options[article]{TTL: 10 * time.Millisecond, StaleTTL: time.Hour})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}); err != nil {
		log.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	res, err := c.GetOrLoadWith(ctx, "a", func(context.Context, *cache.Load[article]) (article, error) {
		return article{}, errors.New("the database is away")
	})
	fmt.Println(res.Value.Title, res.Source, res.Age > 0, err)
	fmt.Println(res.Err)
	// Output:
	// Ants stale true <nil>
	// the database is away
}

func ExampleCache_GetResult() {
	ctx := context.Background()
	c, stop := articles(ctx, "get-result", cache.Options[article]{TTL: time.Minute, NearCacheBytes: 1 << 20})
	defer stop()

	show := func(key string) {
		res, err := c.GetResult(ctx, key)
		fmt.Printf("%q %v %v, fresh for a minute: %v, %v\n", res.Value.Title, res.Found, res.Source, res.TTL > 50*time.Second, err)
	}
	fmt.Println(c.Set(ctx, "a", article{"Ants"}))
	show("a")
	show("a")
	show("b")
	// Output:
	// <nil>
	// "Ants" true redis, fresh for a minute: true, <nil>
	// "Ants" true near, fresh for a minute: true, <nil>
	// "" false none, fresh for a minute: false, <nil>
}

func ExampleCache_Set() {
	ctx := context.Background()
	c, stop := articles(ctx, "set", cache.Options[article]{TTL: time.Hour})
	defer stop()

	fmt.Println(c.Set(ctx, "a", article{"Ants"}))
	fmt.Println(c.Set(ctx, "b", article{"Bees"}, cache.WithTTL(time.Minute)))
	a, found, err := c.Get(ctx, "b")
	fmt.Println(a.Title, found, err)
	// Output:
	// <nil>
	// <nil>
	// Bees true <nil>
}

// After Delete no one in this process is served the old value, and a load that
// began before does not bring it back.
func ExampleCache_Delete() {
	ctx := context.Background()
	c, stop := articles(ctx, "delete", cache.Options[article]{})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}); err != nil {
		log.Fatal(err)
	}
	// First the source, then the cache.
	err := c.Delete(ctx, "a")
	switch {
	case errors.Is(err, cache.ErrQueued):
		fmt.Println("Redis is away; it is sent when it is back")
	case err != nil:
		log.Fatal(err)
	}
	_, found, err := c.Get(ctx, "a")
	fmt.Println(found, err)
	// Output: false <nil>
}

func ExampleCache_SetMany() {
	ctx := context.Background()
	c, stop := articles(ctx, "set-many", cache.Options[article]{})
	defer stop()

	fmt.Println(c.SetMany(ctx, map[string]article{"a": {"Ants"}, "b": {"Bees"}}, cache.WithTags("insects")))
	b, found, err := c.Get(ctx, "b")
	fmt.Println(b.Title, found, err)
	// Output:
	// <nil>
	// Bees true <nil>
}

func ExampleCache_GetMany() {
	ctx := context.Background()
	c, stop := articles(ctx, "get-many", cache.Options[article]{})
	defer stop()

	if err := c.SetMany(ctx, database); err != nil {
		log.Fatal(err)
	}
	got, err := c.GetMany(ctx, []string{"a", "b", "z"}) // one round trip
	fmt.Println(len(got), got["a"].Title, got["b"].Title, err)
	// Output: 2 Ants Bees <nil>
}

// One query brings all that is missing.
func ExampleCache_GetOrLoadMany() {
	ctx := context.Background()
	c, stop := articles(ctx, "get-or-load-many", cache.Options[article]{})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		got, err := c.GetOrLoadMany(ctx, []string{"a", "b", "z"}, func(_ context.Context, missing []string) (map[string]article, error) {
			slices.Sort(missing)
			fmt.Println("SELECT … WHERE id IN", missing)
			return map[string]article{"b": database["b"]}, nil // there is no z
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(got), got["a"].Title, got["b"].Title)
	}
	// Output:
	// SELECT … WHERE id IN [b z]
	// 2 Ants Bees
	// 2 Ants Bees
}

// A tag removes all entries that have it, whatever their number.
func ExampleCache_DeleteTag() {
	ctx := context.Background()
	c, stop := articles(ctx, "delete-tag", cache.Options[article]{})
	defer stop()

	has := func(key string) bool {
		found, err := c.Exists(ctx, key)
		if err != nil {
			log.Fatal(err)
		}
		return found
	}
	for key, tags := range map[string][]string{"a": {"author:1", "insects"}, "b": {"author:2", "insects"}} {
		if err := c.Set(ctx, key, database[key], cache.WithTags(tags...)); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(has("a"), has("b"))
	fmt.Println(c.DeleteTag(ctx, "author:1"))
	fmt.Println(has("a"), has("b"))
	// Output:
	// true true
	// <nil>
	// false true
}

// What is expired is loaded again, but still there when that fails.
func ExampleCache_ExpireTag() {
	ctx := context.Background()
	c, stop := articles(ctx, "expire-tag", cache.Options[article]{StaleTTL: time.Hour})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}, cache.WithTags("insects")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.ExpireTag(ctx, "insects"))
	_, found, err := c.Get(ctx, "a")
	fmt.Println(found, err)
	a, err := c.GetOrLoad(ctx, "a", func(context.Context) (article, error) { return article{}, errors.New("away") })
	fmt.Println(a.Title, err)
	// Output:
	// <nil>
	// false <nil>
	// Ants <nil>
}

func ExampleCache_Clear() {
	ctx := context.Background()
	c, stop := articles(ctx, "clear", cache.Options[article]{})
	defer stop()

	if err := c.SetMany(ctx, database); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Clear(ctx))
	got, err := c.GetMany(ctx, []string{"a", "b"})
	fmt.Println(got, err)
	// Output:
	// <nil>
	// map[] <nil>
}

func ExampleCache_Touch() {
	ctx := context.Background()
	c, stop := articles(ctx, "touch", cache.Options[article]{TTL: time.Hour, Jitter: -1})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}); err != nil {
		log.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	before, _, _ := c.TTL(ctx, "a")
	fmt.Println(c.Touch(ctx, "a"))
	after, _, _ := c.TTL(ctx, "a")
	fmt.Println(after > before)
	fmt.Println(c.Touch(ctx, "z"))
	// Output:
	// true <nil>
	// true
	// false <nil>
}

func ExampleCache_TTL() {
	ctx := context.Background()
	c, stop := articles(ctx, "ttl", cache.Options[article]{TTL: time.Hour, Jitter: -1})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}); err != nil {
		log.Fatal(err)
	}
	ttl, found, err := c.TTL(ctx, "a")
	fmt.Println(ttl.Round(time.Minute), found, err)
	ttl, found, err = c.TTL(ctx, "z")
	fmt.Println(ttl, found, err)
	// Output:
	// 1h0m0s true <nil>
	// 0s false <nil>
}

func ExampleCache_Exists() {
	ctx := context.Background()
	c, stop := articles(ctx, "exists", cache.Options[article]{})
	defer stop()

	if err := c.Set(ctx, "a", article{"Ants"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Exists(ctx, "a"))
	fmt.Println(c.Exists(ctx, "z"))
	// Output:
	// true <nil>
	// false <nil>
}

// A tool looks at an entry without knowing its type.
func ExampleInspect() {
	ctx := context.Background()
	c, stop := articles(ctx, "inspect", cache.Options[article]{TTL: time.Minute, StaleTTL: time.Hour})
	defer stop()
	if err := c.Set(ctx, "a", article{"Ants"}, cache.WithTags("insects")); err != nil {
		log.Fatal(err)
	}

	r, err := madcrow.Open(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)
	e, found, err := cache.Inspect(ctx, r, "inspect", "a")
	fmt.Println(found, string(e.Data), e.Tags, e.KeptFor > time.Hour, err)
	// Output: true {"title":"Ants"} [insects] true <nil>
}
