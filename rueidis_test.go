package madcrow_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestClient_IsAWholeRueidisClient(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s, r := server(t)
	c := r.Client()
	ctx := t.Context()
	if err := c.Do(ctx, c.B().Set().Key("a").Value("1").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if v, err := c.DoCache(ctx, c.B().Get().Key("a").Cache(), time.Minute).ToString(); v != "1" || err != nil {
		t.Errorf("DoCache: %q, %v", v, err)
	}
	if err := c.Do(ctx, c.B().Get().Key("nothing").Build()).Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("absence is %v", err)
	}
	for _, res := range c.DoMulti(ctx, c.B().Incr().Key("a").Build(), c.B().Incr().Key("a").Build()) {
		if res.Error() != nil {
			t.Error(res.Error())
		}
	}
	var b strings.Builder
	stream := c.DoStream(ctx, c.B().Get().Key("a").Build())
	if _, err := stream.WriteTo(&b); err != nil || b.String() != "3" {
		t.Errorf("DoStream: %q, %v", b.String(), err)
	}
	if err := c.Dedicated(func(d rueidis.DedicatedClient) error { return d.Do(ctx, d.B().Watch().Key("a").Build()).Error() }); err != nil {
		t.Error(err)
	}
	s.Kill()
	await(t, r, madcrow.StateDown, 2*time.Second)
	err := c.Do(ctx, c.B().Get().Key("a").Build()).Error()
	wantError(t, err, madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	d, release := c.Dedicate()
	wantError(t, d.Do(ctx, d.B().Get().Key("a").Build()).Error(), madcrow.KindUnavailable, madcrow.ErrUnavailable, madcrow.OutcomeNotApplied)
	release()
}

// Connections of streams stayed with the stream pool: transactions found none.
func TestClient_StreamsThatWereReadGiveTheirConnectionsBack(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 5
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	mustSet(t, r, "a", "1")
	c := r.Client()
	var streams []rueidis.RedisResultStream
	for range 4 {
		streams = append(streams, c.DoStream(t.Context(), c.B().Get().Key("a").Build()))
	}
	for i := range streams {
		var b strings.Builder
		if _, err := streams[i].WriteTo(&b); err != nil && streams[i].Error() == nil {
			t.Errorf("stream %d: %v", i, err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "n")); return nil })
	if err != nil {
		t.Errorf("nothing runs, and yet: %v", err)
	}
}

// The connection was closed and its place in the pool was not freed.
func TestClient_CloseOfADedicatedConnectionFreesItsPlace(t *testing.T) {
	s := madcrowtest.StartRedis(t)
	cfg := s.Config()
	cfg.MaxConnections = 3
	r := open(t, cfg)
	await(t, r, madcrow.StateUp, 5*time.Second)
	d, _ := r.Client().Dedicate()
	d.Close() // rueidis: closes the connection and gives the slot back
	_, err := r.Tx(t.Context(), nil, func(tx *madcrow.Tx) error { tx.Queue(incr(tx, "n")); return nil })
	if err != nil {
		t.Error(err)
	}
}

// Dedicate has no context, and waited for the server without a bound.
func TestClient_DedicateOnAFrozenServerEndsInTime(t *testing.T) {
	s, r := server(t)
	s.Pause()
	defer s.Resume()
	testkit.Within(t, "Dedicate", 700*time.Millisecond, func() {
		_, release := r.Client().Dedicate()
		release()
	})
}
