package usual

import (
	"encoding/gob"
	"net/http"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/redis/go-redis/v9"
)

func sessions(mux *http.ServeMux, rdb *redis.Client) {
	gob.Register(site.Visit{})
	m := scs.New()
	m.Store = goredisstore.New(rdb)
	m.Lifetime = 24 * time.Hour
	m.ErrorFunc = fail
	mux.Handle("POST /login", m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := site.Authenticate(r)
		if !ok {
			refuse(w, http.StatusUnauthorized, "LOGIN_FAILED", "The name or the password is wrong")
			return
		}
		if err := m.RenewToken(r.Context()); err != nil {
			fail(w, r, err)
			return
		}
		m.Put(r.Context(), "visit", site.Visit{UserID: user.ID, Username: user.Username, Role: user.Role, LoginTime: time.Now().UTC()})
		_ = site.Reply(w, map[string]string{"user": user.Username})
	})))
	mux.Handle("GET /profile", m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := m.Get(r.Context(), "visit").(site.Visit)
		if !ok {
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "Not logged in")
			return
		}
		_ = site.Reply(w, map[string]site.Visit{"user": v})
	})))
}
