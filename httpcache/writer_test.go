package httpcache_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/httpcache"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

// breaking is a client's writer whose header cannot be written.
type breaking struct{ http.ResponseWriter }

func (breaking) WriteHeader(int) { panic("no header") }

func TestCache_WriterThatPanicsHangsNoOne(t *testing.T) {
	t.Parallel()
	s := newSite(t, openConfig(t, madcrowtest.StartRedis(t).Config()), httpcache.Options{LoadTimeout: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // until it is the client's alone
		_, _ = io.WriteString(w, "x")
	})
	ended := make(chan any)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	go func() {
		defer func() { ended <- recover() }()
		s.ServeHTTP(breaking{httptest.NewRecorder()}, request("GET", "/").WithContext(ctx))
	}()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		t.Error("it hangs")
	}
}
