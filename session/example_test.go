package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/clientip"
	"github.com/madcrow-go/madcrow/session"
)

// Basket is what a shop keeps of a visitor.
type Basket struct {
	Articles []string `json:"articles"`
}

// shop opens the sessions of an example. In a program the configuration comes
// from madcrow.ConfigFromEnv.
func shop(name string, opt session.Options[Basket]) (*session.Manager[Basket], func()) {
	ctx := context.Background()
	cfg := config // of the test's Redis
	cfg.Require = true
	r, err := madcrow.Open(ctx, cfg)
	if err != nil {
		panic(err)
	}
	sessions, err := session.New(r, name, opt)
	if err != nil {
		panic(err)
	}
	return sessions, func() { _ = r.Close(ctx) }
}

func ExampleManager_Middleware() {
	sessions, done := shop("example-middleware", session.Options[Basket]{})
	defer done()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /basket", func(w http.ResponseWriter, r *http.Request) {
		s := sessions.From(r.Context())
		err := s.Update(r.Context(), func(b *Basket) error {
			b.Articles = append(b.Articles, r.FormValue("article"))
			return nil
		})
		if err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /basket", func(w http.ResponseWriter, r *http.Request) {
		b, _, err := sessions.From(r.Context()).Get(r.Context())
		if err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, b.Articles)
	})
	srv := httptest.NewTLSServer(sessions.Middleware(madcrow.FailClosed)(mux))
	defer srv.Close()

	browser := srv.Client()
	browser.Jar, _ = cookiejar.New(nil)
	for _, article := range []string{"lamp", "chair"} {
		res, _ := browser.Post(srv.URL+"/basket?article="+article, "", nil)
		fmt.Println(res.Status, len(res.Cookies()), "cookie")
	}
	res, _ := browser.Get(srv.URL + "/basket")
	var text [64]byte
	n, _ := res.Body.Read(text[:])
	fmt.Println(string(text[:n]))
	// Output:
	// 200 OK 1 cookie
	// 200 OK 0 cookie
	// [lamp chair]
}

func ExampleSession_Update() {
	sessions, done := shop("example-update", session.Options[Basket]{})
	defer done()
	ctx := context.Background()

	s := sessions.Open("") // no user yet: nothing is stored
	fmt.Println("stored:", s.Token() != "")
	err := s.Update(ctx, func(b *Basket) error {
		b.Articles = append(b.Articles, "lamp")
		return nil
	})
	fmt.Println("stored:", s.Token() != "", err)

	// An error of the function changes nothing.
	full := errors.New("the basket is full")
	err = s.Update(ctx, func(b *Basket) error {
		b.Articles = nil
		return full
	})
	b, found, _ := s.Get(ctx)
	fmt.Println(b.Articles, found, err)
	// Output:
	// stored: false
	// stored: true <nil>
	// [lamp] true the basket is full
}

func ExampleSession_Login() {
	sessions, done := shop("example-login", session.Options[Basket]{})
	defer done()
	ctx := context.Background()

	s := sessions.Open("")
	_ = s.Update(ctx, func(b *Basket) error { b.Articles = []string{"lamp"}; return nil })
	before := s.Token()
	if err := s.Login(ctx, "alice", session.Remember()); err != nil {
		fmt.Println(err)
	}

	user, _ := s.User(ctx)
	b, _, _ := s.Get(ctx)
	fmt.Println(user, b.Articles)
	_, found, _ := sessions.Open(before).Get(ctx)
	fmt.Println("under the old identifier:", found)
	// Output:
	// alice [lamp]
	// under the old identifier: false
}

func ExampleSession_Logout() {
	sessions, done := shop("example-logout", session.Options[Basket]{})
	defer done()
	ctx := context.Background()

	s := sessions.Open("")
	_ = s.Login(ctx, "alice")
	late := sessions.Open(s.Token()) // a request that is still under way
	_, _, _ = late.Get(ctx)

	fmt.Println(s.Logout(ctx))
	err := late.Update(ctx, func(*Basket) error { return nil })
	fmt.Println(errors.Is(err, session.ErrEnded))
	// Output:
	// <nil>
	// true
}

func ExampleSession_Rotate() {
	sessions, done := shop("example-rotate", session.Options[Basket]{RotationGrace: 10 * time.Second})
	defer done()
	ctx := context.Background()

	s := sessions.Open("")
	_ = s.Login(ctx, "alice")
	old := sessions.Open(s.Token()) // a request that is still under way
	_ = s.Rotate(ctx)               // the user becomes an administrator

	_, found, _ := old.Get(ctx)
	err := old.Update(ctx, func(*Basket) error { return nil })
	fmt.Println("reads:", found, "writes:", !errors.Is(err, session.ErrRotated))
	// Output:
	// reads: true writes: false
}

func ExampleManager_List() {
	sessions, done := shop("example-list", session.Options[Basket]{Client: clientip.RemoteAddr()})
	defer done()
	ctx := context.Background()
	_, _ = sessions.RevokeAll(ctx, "alice")

	login := sessions.Middleware(madcrow.FailClosed)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = sessions.From(r.Context()).Login(r.Context(), "alice")
	}))
	for _, agent := range []string{"Phone", "Laptop"} {
		r := httptest.NewRequest("POST", "/login", nil)
		r.Header.Set("User-Agent", agent)
		login.ServeHTTP(httptest.NewRecorder(), r)
	}
	devices, _ := sessions.List(ctx, "alice")
	for _, d := range devices {
		fmt.Println(d.Device.UserAgent, d.Device.Address)
	}
	ended, err := sessions.Revoke(ctx, "alice", devices[1].Handle)
	fmt.Println(ended, err)
	devices, _ = sessions.List(ctx, "alice")
	fmt.Println(len(devices))
	// Output:
	// Laptop 192.0.2.1
	// Phone 192.0.2.1
	// true <nil>
	// 1
}

func ExampleSession_RevokeOthers() {
	sessions, done := shop("example-others", session.Options[Basket]{})
	defer done()
	ctx := context.Background()
	_, _ = sessions.RevokeAll(ctx, "alice")

	var last *session.Session[Basket]
	for range 3 {
		last = sessions.Open("")
		_ = last.Login(ctx, "alice")
	}
	// The password was changed: this one gets a new identifier, the others end.
	_ = last.Rotate(ctx)
	n, err := last.RevokeOthers(ctx)
	fmt.Println(n, err)
	n, err = sessions.RevokeAll(ctx, "alice") // and now all
	fmt.Println(n, err)
	// Output:
	// 2 <nil>
	// 1 <nil>
}

func ExampleSession_TakeFlashes() {
	sessions, done := shop("example-flash", session.Options[Basket]{})
	defer done()
	ctx := context.Background()

	s := sessions.Open("")
	_ = s.AddFlash(ctx, "info", "Your order is on its way.")
	for range 2 {
		flashes, _ := sessions.Open(s.Token()).TakeFlashes(ctx)
		fmt.Println(flashes)
	}
	// Output:
	// [{info Your order is on its way.}]
	// []
}

func ExampleManager_Require() {
	sessions, done := shop("example-require", session.Options[Basket]{})
	defer done()

	private := sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	h := sessions.Middleware(madcrow.FailClosed)(private)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/account", nil))
	fmt.Println(w.Code)
	// Output:
	// 401
}

// A route that shows what it can while Redis is away.
func ExampleManager_Middleware_failPolicy() {
	sessions, done := shop("example-failure", session.Options[Basket]{})
	s := sessions.Open("")
	_ = s.Login(context.Background(), "alice")
	done() // as if Redis were away

	show := func(_ http.ResponseWriter, r *http.Request) {
		s := sessions.From(r.Context())
		user, err := s.User(r.Context())
		fmt.Printf("user %q, error %v, degraded %v\n", user, err != nil, s.Degraded() != nil)
	}
	for _, failure := range []madcrow.FailPolicy{madcrow.FailClosed, madcrow.FailOpen} {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: s.Token()})
		sessions.Middleware(failure)(http.HandlerFunc(show)).ServeHTTP(httptest.NewRecorder(), r)
	}
	// Output:
	// user "", error true, degraded false
	// user "", error false, degraded true
}

// Keys are changed in three steps, each everywhere before the next: the new one
// behind the old one, so that all can read what it makes; the new one first; the
// old one taken away, when its sessions have ended.
func ExampleOptions_keys() {
	ctx := context.Background()
	first, second := make([]byte, 32), make([]byte, 32)
	second[0] = 1

	before, done := shop("example-keys", session.Options[Basket]{EncryptionKeys: [][]byte{first, second}})
	defer done()
	s := before.Open("")
	_ = s.Update(ctx, func(b *Basket) error { b.Articles = []string{"lamp"}; return nil })

	after, done := shop("example-keys", session.Options[Basket]{EncryptionKeys: [][]byte{second, first}})
	defer done()
	b, found, err := after.Open(s.Token()).Get(ctx)
	fmt.Println(b.Articles, found, err)
	// Output:
	// [lamp] true <nil>
}

// Sessions of FastAPI Madcrow are read and written in its layout.
func ExampleOptions_fastAPILayout() {
	sessions, done := shop("example-fastapi", session.Options[Basket]{FastAPILayout: true, IdleTimeout: time.Hour})
	defer done()
	ctx := context.Background()

	s := sessions.Open("")
	_ = s.Update(ctx, func(b *Basket) error { b.Articles = []string{"lamp"}; return nil })
	fmt.Println(errors.Is(s.Login(ctx, "alice"), session.ErrFastAPILayout))
	b, found, _ := sessions.Open(s.Token()).Get(ctx)
	fmt.Println(b.Articles, found)
	// Output:
	// true
	// [lamp] true
}

// A handler that wants to know why no one is logged in. The reason is for the log: a
// client must not see it.
func ExampleSession_Why() {
	sessions, done := shop("example-why", session.Options[Basket]{})
	defer done()
	s := sessions.Open("")
	_ = s.Login(context.Background(), "alice")
	token := s.Token()
	_, _ = sessions.RevokeAll(context.Background(), "alice")

	s = sessions.Open(token)
	user, _ := s.User(context.Background())
	fmt.Printf("user %q: %v\n", user, s.Why())
	fmt.Println(errors.Is(s.Why(), session.ErrRevoked))
	// Output:
	// user "": the session was revoked
	// true
}

// A program that refuses to start with a Secret that would log all users out.
func ExampleManager_CheckSecret() {
	first, second := []byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210fedcba9876543210")
	before, done := shop("example-secret", session.Options[Basket]{Secret: first})
	defer done()
	_ = before.Open("").Login(context.Background(), "alice")

	after, done := shop("example-secret", session.Options[Basket]{Secret: second})
	defer done()
	_, err := after.CheckSecret(context.Background())
	fmt.Println(errors.Is(err, session.ErrOtherSecret))
	// Output: true
}
