package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/pubsub"
)

func TestShop_SellsFromStartToEnd(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	p := start(t, madcrowtest.StartRedis(t))
	b := p.browser(t)
	b.want(t, "GET", "/products/lamp", "", 200, `"price":4900`)
	b.want(t, "GET", "/products/none", "", 404, "NOT_FOUND")
	b.want(t, "GET", "/products?kind=light", "", 200, `"candle"`)
	b.want(t, "PUT", "/products/lamp", `{"name":"Lamp","kind":"light","price":1}`, 401, "")
	b.want(t, "POST", "/login", `{"user":"ada","password":"no"}`, 401, "LOGIN_FAILED")
	b.want(t, "PUT", "/basket/candle", `{"amount":3}`, 200, `"candle":3`) // a visitor's
	b.login(t)
	b.want(t, "GET", "/basket", "", 200, `"candle":3`) // kept
	b.want(t, "GET", "/me", "", 200, `"ada"`)

	b.want(t, "PUT", "/products/lamp", `{"name":"Desk lamp","kind":"office","price":5900}`, 200, "")
	b.want(t, "GET", "/products/lamp", "", 200, `"price":5900`)
	b.want(t, "GET", "/products?kind=office", "", 200, "Desk lamp")
	if text := b.want(t, "GET", "/products?kind=light", "", 200, "candle"); strings.Contains(text, "lamp") {
		t.Errorf("the list is old: %s", text)
	}

	b.want(t, "POST", "/orders", "", 202, "orders")
	b.want(t, "GET", "/basket", "", 200, "null")
	b.want(t, "POST", "/orders", "", 409, "BASKET_EMPTY")
	b.awaitState(t, b.order(t), "paid")
	b.want(t, "GET", "/report", "", 200, `"paid":`)
	b.want(t, "GET", "/health", "", 200, "")
}

func TestShop_DevicesAreListedAndLoggedOut(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	p := start(t, madcrowtest.StartRedis(t))
	here, there, third := p.browser(t), p.browser(t), p.browser(t)
	here.login(t)
	there.login(t)
	third.login(t)
	list := there.want(t, "GET", "/me/devices", "", 200, `"Here":true`)
	if strings.Count(list, `"Handle"`) != 3 {
		t.Errorf("devices: %s", list)
	}
	_, mine, _ := strings.Cut(list, `"Handle":"`)
	handle, _, _ := strings.Cut(mine, `"`)
	here.want(t, "DELETE", "/me/devices/"+handle, "", 204, "")
	here.want(t, "DELETE", "/me/devices/none", "", 404, "")
	for _, b := range []*browser{here, there, third} { // one of them is out, and logs in again
		if status, _ := b.send(t, "GET", "/me", ""); status == 401 {
			b.login(t)
		}
	}
	here.want(t, "PUT", "/me/password", `{"password":"engine"}`, 204, "")
	here.want(t, "GET", "/me", "", 200, "ada")
	there.want(t, "GET", "/me", "", 401, "")
	third.want(t, "GET", "/me", "", 401, "")
	here.want(t, "POST", "/logout", "", 204, "")
	here.want(t, "GET", "/me", "", 401, "")
	for range 5 {
		there.want(t, "POST", "/login", `{"user":"ada","password":"lovelace"}`, 401, "LOGIN_FAILED")
	}
	there.want(t, "POST", "/login", `{"user":"ada","password":"engine"}`, 429, "")
}

func TestShop_EachClientIsLimited(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	p := start(t, madcrowtest.StartRedis(t))
	b := p.browser(t)
	var refused atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if status, _ := b.send(t, "GET", "/products/lamp", ""); status == 429 {
				refused.Add(1)
			}
		})
	}
	all.Wait()
	if n := refused.Load(); n < 1 || n > 50 {
		t.Errorf("%d of 100 at a time were refused, of 50 a second", n)
	}
	b.want(t, "GET", "/health/ready", "", 200, "ready") // not counted
}

func TestShop_BrowserThatComesBackGetsWhatItMissed(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	p := start(t, madcrowtest.StartRedis(t))
	b := p.browser(t)
	b.login(t)
	put := func(name string) {
		b.want(t, "PUT", "/products/lamp", `{"name":"`+name+`","kind":"light","price":1}`, 200, "")
	}
	put("one")
	data, last := b.listen(t, pubsub.Beginning.String(), 1)
	if len(data) != 1 || !strings.Contains(data[0], `"one"`) {
		t.Fatalf("%q", data)
	}
	put("two")
	put("three")
	data, _ = b.listen(t, last, 2)
	if len(data) != 2 || !strings.Contains(data[0], `"two"`) || !strings.Contains(data[1], `"three"`) {
		t.Errorf("%q", data)
	}
}

func TestShop_PaymentsAreTriedAgainOrRefused(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	var asked, status atomic.Int64
	payment := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) <= 2 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer payment.Close()
	defer http.DefaultClient.CloseIdleConnections()
	t.Setenv("PAYMENT_URL", payment.URL)
	p := start(t, madcrowtest.StartRedis(t))
	defer p.stop()
	b := p.browser(t)
	b.login(t)
	status.Store(http.StatusOK)
	b.awaitState(t, b.order(t), "paid") // at the third delivery
	if n := asked.Load(); n != 3 {
		t.Errorf("%d payments were asked for", n)
	}
	status.Store(http.StatusPaymentRequired)
	b.awaitState(t, b.order(t), "refused") // at once
	if n := asked.Load(); n != 4 {
		t.Errorf("%d payments were asked for", n)
	}
	if len(p.log.With("card was refused")) == 0 {
		t.Error("the log does not say why")
	}
}

func TestShop_GoesOnWhileRedisIsAway(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	s := madcrowtest.StartRedis(t)
	p := start(t, s)
	b := p.browser(t)
	b.login(t)
	b.want(t, "PUT", "/basket/lamp", `{"amount":1}`, 200, "")
	b.want(t, "GET", "/me", "", 200, "ada")
	b.want(t, "GET", "/products/lamp", "", 200, "Lamp")
	s.Kill()
	testkit.Eventually(t, "ready says that Redis is away", func() bool {
		status, text := b.send(t, "GET", "/health/ready", "")
		return status == 200 && strings.Contains(text, "degraded")
	})
	b.want(t, "GET", "/products/lamp", "", 200, "Lamp")
	b.want(t, "GET", "/products/table", "", 200, "Table") // of the database
	b.want(t, "GET", "/products?kind=light", "", 200, "candle")
	b.want(t, "GET", "/me", "", 200, "ada") // of the fallback copy
	b.want(t, "POST", "/orders", "", 503, "")
	b.want(t, "POST", "/login", `{"user":"ada","password":"lovelace"}`, 503, "")

	// An order whose row was written and whose number did not reach the stream.
	ids, err := p.db.placeOrders(t.Context(), "ada", basket{"table": 1})
	if err != nil {
		t.Fatal(err)
	}
	p.log.Await(t, 1, "an order waits in the database", 10*time.Second)
	s.Start()
	testkit.Eventually(t, "the order is paid", func() bool {
		_, state, err := p.db.orderOf(t.Context(), ids[0])
		return err == nil && state == "paid"
	})
	b.login(t) // a Redis without a disk has forgotten the sessions
	b.awaitState(t, b.order(t), "paid")
}

func TestShop_RunsWithNothingInstalled(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	p := start(t, nil)
	b := p.browser(t)
	b.want(t, "GET", "/products/lamp", "", 200, "Lamp")
	b.login(t)
	b.awaitState(t, b.order(t), "paid")
}

func TestShop_EndsWithOpenStreamsAndOrdersUnderWay(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	release, begun := make(chan struct{}), make(chan struct{}, 1)
	payment := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-release
	}))
	defer payment.Close()
	defer http.DefaultClient.CloseIdleConnections()
	t.Setenv("PAYMENT_URL", payment.URL)
	p := start(t, madcrowtest.StartRedis(t))
	b, reader := p.browser(t), p.browser(t)
	b.login(t)
	listened := make(chan struct{})
	go func() { defer close(listened); reader.listen(t, "", 1) }() // nothing comes
	path := b.order(t)
	<-begun
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	p.stop()
	<-listened
	var id int64
	for _, d := range strings.TrimPrefix(path, "/orders/") {
		id = id*10 + int64(d-'0')
	}
	if _, state, err := p.db.orderOf(t.Context(), id); err != nil || state != "paid" {
		t.Errorf("the order under way is %s, %v", state, err)
	}
}
