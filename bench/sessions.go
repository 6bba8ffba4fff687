package main

import (
	"context"
	"encoding/gob"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	ginsessions "github.com/gin-contrib/sessions"
	ginredis "github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/session"
	"github.com/redis/go-redis/v9"
)

// The races of the sessions: one request through the middleware of each, with
// its defaults, from the cookie of one of 1,000 sessions to the end of the
// answer. No network is between: all that is measured is the session.

func sessionRead(e *environment) (race, error) {
	return sessionRace(e, "session-read", "a request that reads its session", "/read", false, 3)
}

func sessionWrite(e *environment) (race, error) {
	return sessionRace(e, "session-write", "a request that reads and writes its session", "/write", false, 0)
}

func sessionNew(e *environment) (race, error) {
	return sessionRace(e, "session-new", "a request that begins a session", "/write", true, 0)
}

// visit is what a session holds.
type visit struct {
	User  string   `json:"user"`
	Cart  []string `json:"cart"`
	Count int      `json:"count"`
}

var cart = []string{"crowbar", "nails", "black paint"}

// site serves /read and /write with the sessions of one library.
type site struct {
	name    string
	handler http.Handler
}

func sessionRace(e *environment, name, what, path string, fresh bool, must float64) (race, error) {
	sites, err := sitesOn(e, name, e.host, e.port, e.redis)
	if err != nil {
		return race{}, err
	}
	r := race{name: name, what: what, cpu: true}
	for _, s := range sites {
		cookies, err := s.visitors(keys)
		if err != nil {
			return race{}, fmt.Errorf("%s: %w", s.name, err)
		}
		c := contestant{s.name, 0, s.worker(path, cookies, fresh)}
		if s.name == "madcrow session" {
			c.must = must
		}
		r.contestants = append(r.contestants, c)
	}
	r.after = func() error { return countTrips(e, name, path, fresh) }
	return r, nil
}

// countTrips shows how often each goes to Redis for a request.
func countTrips(e *environment, name, path string, fresh bool) error {
	counter, err := newTripCounter(e)
	if err != nil {
		return err
	}
	ours, err := madcrow.Open(context.Background(), madcrow.Config{Host: e.host, Port: counter.port(), Require: true})
	if err != nil {
		return err
	}
	e.closers = append(e.closers, func() error { return ours.Close(context.Background()) })
	sites, err := sitesOn(e, name+".trips", e.host, counter.port(), ours)
	if err != nil {
		return err
	}
	for _, s := range sites {
		cookies, err := s.visitors(1)
		if err != nil {
			return err
		}
		const times = 500
		do := s.worker(path, cookies, fresh)(0)
		before := counter.trips.Load()
		for range times {
			if err := do(); err != nil {
				return err
			}
		}
		fmt.Printf("  round trips a request: %-40s %.2f\n", s.name, float64(counter.trips.Load()-before)/times)
	}
	return nil
}

// visitors are the cookies of n sessions.
func (s site) visitors(n int) ([]string, error) {
	out := make([]string, n)
	for i := range out {
		w, r := &answer{header: http.Header{}}, request("/write")
		s.handler.ServeHTTP(w, r)
		list := (&http.Response{Header: w.header}).Cookies()
		if len(list) != 1 {
			return nil, fmt.Errorf("%d cookies, status %d", len(list), w.status)
		}
		out[i] = list[0].Name + "=" + list[0].Value
	}
	return out, nil
}

func (s site) worker(path string, cookies []string, fresh bool) func(int) func() error {
	return func(g int) func() error {
		w, r := &answer{header: http.Header{}}, request(path)
		i := g * 37
		cookie := make([]string, 1)
		return func() error {
			i++
			clear(w.header)
			w.status = 0
			if !fresh {
				cookie[0] = cookies[i%len(cookies)]
				r.Header["Cookie"] = cookie
			}
			once := *r // some keep what they have read with the request
			s.handler.ServeHTTP(w, &once)
			if w.status != http.StatusNoContent {
				return fmt.Errorf("status %d", w.status)
			}
			if fresh && len(w.header["Set-Cookie"]) != 1 {
				return fmt.Errorf("no cookie")
			}
			return nil
		}
	}
}

func request(path string) *http.Request {
	return &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Host: "example.com", RemoteAddr: "192.0.2.1:1234"}
}

// answer is a response of which only head and status are kept.
type answer struct {
	header http.Header
	status int
}

func (w *answer) Header() http.Header         { return w.header }
func (w *answer) Write(b []byte) (int, error) { w.WriteHeader(http.StatusOK); return len(b), nil }
func (w *answer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// statusOf says what came of a visit: a session that was read must hold what was
// written.
func statusOf(v visit, err error) int {
	if err != nil || v.User != "ada" || len(v.Cart) != len(cart) || v.Count < 1 {
		return http.StatusInternalServerError
	}
	return http.StatusNoContent
}

func sitesOn(e *environment, name, host string, port int, ours *madcrow.Redis) ([]site, error) {
	gob.Register([]string{})
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	client := redis.NewClient(&redis.Options{Addr: addr})
	e.closers = append(e.closers, client.Close)

	store, err := ginredis.NewStore(10, "tcp", addr, "", "", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		return nil, err
	}
	if redistore, err := ginredis.GetRedisStore(store); err == nil {
		e.closers = append(e.closers, redistore.Close)
	}
	m, err := session.New(ours, name, session.Options[visit]{})
	if err != nil {
		return nil, err
	}
	return []site{
		{"scs with goredisstore", scsSite(client, name)},
		{"gin-contrib/sessions with redis", ginSite(store)},
		{"madcrow session", madcrowSite(m)},
	}, nil
}

func scsSite(client *redis.Client, name string) http.Handler {
	m := scs.New()
	m.Store = goredisstore.NewWithPrefix(client, name+":scs:")
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		v := visit{User: m.GetString(ctx, "user"), Count: m.GetInt(ctx, "count")}
		v.Cart, _ = m.Get(ctx, "cart").([]string)
		w.WriteHeader(statusOf(v, nil))
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		m.Put(ctx, "user", "ada")
		m.Put(ctx, "cart", cart)
		m.Put(ctx, "count", m.GetInt(ctx, "count")+1)
		w.WriteHeader(http.StatusNoContent)
	})
	return m.LoadAndSave(mux)
}

func ginSite(store ginredis.Store) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.Use(ginsessions.Sessions("session", store))
	g.GET("/read", func(c *gin.Context) {
		s := ginsessions.Default(c)
		var v visit
		v.User, _ = s.Get("user").(string)
		v.Cart, _ = s.Get("cart").([]string)
		v.Count, _ = s.Get("count").(int)
		c.Status(statusOf(v, nil))
		c.Writer.WriteHeaderNow()
	})
	g.GET("/write", func(c *gin.Context) {
		s := ginsessions.Default(c)
		count, _ := s.Get("count").(int)
		s.Set("user", "ada")
		s.Set("cart", cart)
		s.Set("count", count+1)
		c.Status(http.StatusNoContent)
		if err := s.Save(); err != nil {
			c.Status(http.StatusInternalServerError)
		}
		c.Writer.WriteHeaderNow()
	})
	return g
}

func madcrowSite(m *session.Manager[visit]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		v, _, err := m.From(r.Context()).Get(r.Context())
		w.WriteHeader(statusOf(v, err))
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		var now visit
		err := m.From(r.Context()).Update(r.Context(), func(v *visit) error {
			v.User, v.Cart = "ada", cart
			v.Count++
			now = *v
			return nil
		})
		w.WriteHeader(statusOf(now, err))
	})
	return m.Middleware(madcrow.FailClosed)(mux)
}
