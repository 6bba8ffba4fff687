package httpcache

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/madcrow-go/madcrow"
)

// codings is what is known of the content codings that the handlers give. Of
// what clients accept, only codings that a handler may give separate responses.
//
// A response is always under a set that holds its coding, and is given to those
// alone who accept that set: what another process has learnt makes at worst a
// variant more.
type codings struct {
	mu    sync.Mutex
	known atomic.Pointer[map[string]bool] // by coding: whether it was ever given; it does not change
}

// registered are the codings that a handler may give of which none is known.
// Others are let alone until one has given them.
var registered = map[string]bool{"br": true, "compress": true, "dcb": true, "dcz": true, "deflate": true, "gzip": true, "zstd": true}

// of is what a client accepts, in normal form.
func (c *codings) of(values []string) string {
	var known map[string]bool
	if p := c.known.Load(); p != nil {
		known = *p
	}
	var list []string
	for _, name := range accepted(values) {
		given, offered := known[name]
		if given || !offered && registered[name] || name == "*" || name == noIdentity {
			list = append(list, name)
		}
	}
	return strings.Join(list, ",")
}

// noIdentity stands for what has to be encoded.
const noIdentity = "identity;q=0"

// accepted are the codings that a header accepts, sorted.
func accepted(values []string) (list []string) {
	for _, v := range values {
		for part := range strings.SplitSeq(strings.ToLower(v), ",") {
			name, weight, _ := strings.Cut(part, ";")
			name = strings.TrimPrefix(strings.TrimSpace(name), "x-")
			_, weight, _ = strings.Cut(weight, "q=")
			q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
			none := err == nil && q == 0
			switch {
			case name == "identity" && none:
				list = append(list, noIdentity)
			case name == "*" && none:
				list = append(list, noIdentity)
			case name != "" && name != "identity" && !none:
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// maxCodings bounds what is remembered.
const maxCodings = 32

// learn notes what a handler that heeds Accept-Encoding gave, and could have.
func (c *codings) learn(vary []string, request, response http.Header) {
	if !slices.Contains(vary, "accept-encoding") {
		return
	}
	given := accepted(response["Content-Encoding"])
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[string]bool{}
	if p := c.known.Load(); p != nil {
		next = maps.Clone(*p)
	}
	before := len(next)
	changed := false
	for _, name := range given {
		changed = changed || !next[name]
		next[name] = true
	}
	if len(given) > 0 { // it compresses: of what was offered, it prefers this
		for _, name := range accepted(request["Accept-Encoding"]) {
			if registered[name] && !next[name] {
				next[name] = false
			}
		}
	}
	if (changed || len(next) > before) && len(next) <= maxCodings {
		c.known.Store(&next)
	}
}

// admit says whether a response may be stored beside the others of its URL: of
// what clients can make up there is no end. Redis is asked where it is not the
// plain one. Those that a page has had before stay in; of others one in eight
// takes the place of the oldest, so that neither those who came first nor those
// who come all the time keep out the rest.
func (x *exchange) admit(ctx context.Context, l *responseLoad, life time.Duration) bool {
	v := x.v
	if x.at.key == v.url || v.h.engine.Degraded(l) {
		return true // the second is not stored anyway
	}
	e := v.h.engine
	id := sha256.Sum256([]byte(v.h.variantKey(v.key, "", x.at.vary, x.asked))) // the same after the next load, too
	chance := "0"
	if rand.IntN(8) == 0 { //nolint:gosec // no secret
		chance = "1"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), v.h.opt.ReadTimeout)
	defer cancel()
	m, err := v.h.r.Eval(ctx, scriptAdmit, []string{e.RedisKey("n|" + v.url)}, []string{
		base64.RawURLEncoding.EncodeToString(id[:16]), e.EntryName(x.at.key), strconv.FormatInt((life + keptAfter).Milliseconds(), 10), strconv.Itoa(v.h.opt.MaxVariants), chance,
	}).Message()
	if err != nil {
		return false
	}
	list, err := m.ToArray()
	if err != nil || len(list) == 0 {
		return false
	}
	yes, err := list[0].AsInt64()
	for _, victim := range list[1:] {
		if old, err := victim.ToString(); err == nil {
			e.Evict(ctx, old)
		}
	}
	return err == nil && yes == 1
}

//go:embed lua/admit.lua
var luaAdmit string

var scriptAdmit = madcrow.NewScript("cache_admit", luaAdmit)

// keptAfter is for how long a variant that has ended may come back.
const keptAfter = time.Minute
