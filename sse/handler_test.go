package sse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/testkit"
	"github.com/madcrow-go/madcrow/madcrowtest"
	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

func TestSSE_GapWithoutAHistoryIsAnEvent(t *testing.T) {
	redis := madcrowtest.StartRedis(t)
	r := connect(t, redis)
	b := newBus(t, r, pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[note]{})
	pattern, _ := pubsub.NewPatterns(b, []string{"ne?s"}, pubsub.TopicOptions[note]{})
	topics, _ := pubsub.NewTopics(b, []string{"news", "more", "news"}, pubsub.TopicOptions[note]{})
	for _, source := range []sse.Source[note]{topic, pattern, topics} {
		srv, _ := serveSSE(t, source, sse.Options[note]{Encode: func(channel string, n note) (string, error) {
			if n.N == 13 {
				return "", errors.New("unlucky")
			}
			return fmt.Sprint(channel, n.N), nil
		}})
		l := listen(t, srv.URL, "Last-Event-ID", "1-1-1") // of no meaning here
		if e := l.live(); e.id != "" {
			t.Errorf("id %q", e.id)
		}
		_, _ = topic.Publish(t.Context(), note{1})
		l.want("", "news1")
		_, _ = topic.Publish(t.Context(), note{13})
		l.want("malformed", "{}")
		redis.Do(t, "PUBLISH", t.Name()+":news", "no JSON")
		l.want("malformed", "{}")
		redis.Kill()
		l.want("interrupted", "{}")
		redis.Start()
		e := l.next()
		var gap struct {
			Since, Until time.Time
			Seconds      float64
		}
		if err := json.Unmarshal([]byte(e.data), &gap); err != nil || e.event != "gap" || !gap.Until.After(gap.Since) || gap.Seconds <= 0 {
			t.Errorf("%+v %v", e, err)
		}
	}
}

func TestSSE_GoesOnAfterARestartOfRedis(t *testing.T) {
	redis := madcrowtest.StartRedis(t, madcrowtest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
	r := connect(t, redis)
	topic, _ := pubsub.NewRecoverable(newBus(t, r, pubsub.Options{}), "news", pubsub.RecoverableOptions[note]{})
	srv, _ := serveSSE(t, topic, sse.Options[note]{})
	l := listen(t, srv.URL)
	l.live()
	publish(t, topic, note{1})
	l.want("", `{"n":1}`)
	redis.Kill()
	l.want("interrupted", "{}")

	late := listen(t, srv.URL) // who comes while Redis is away waits for it
	late.want("interrupted", "{}")
	redis.Start()
	l.live()
	late.live()
	publish(t, topic, note{2})
	l.want("", `{"n":2}`)
	late.want("", `{"n":2}`)
}

// What a message holds can neither end its event nor begin another one.
func TestSSE_LineBreaksStayInTheData(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	srv, _ := serveSSE(t, topic, sse.Options[string]{})
	l := listen(t, srv.URL)
	l.live()
	for text, want := range map[string]string{
		"":                             "",
		" leading":                     " leading",
		":comment":                     ":comment",
		"one\ntwo":                     "one\ntwo",
		"one\r\ntwo\r\n":               "one\ntwo\n",
		"one\rtwo":                     "one\ntwo",
		"\n\nevent: forged\nid: 7\n\n": "\n\nevent: forged\nid: 7\n\n",
		"\r\revent: forged\rid: 7":     "\n\nevent: forged\nid: 7",
	} {
		if _, err := topic.Publish(t.Context(), text); err != nil {
			t.Fatal(err)
		}
		if e := l.want("", want); e.id != "" {
			t.Errorf("%q: %+v", text, e)
		}
	}
}

func TestSSE_SlowClientIsCutOffAndDelaysNoOtherClient(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewRecoverable(b, "news", pubsub.RecoverableOptions[string]{History: 20})
	srv, h := serveSSE(t, topic, sse.Options[string]{WriteTimeout: 500 * time.Millisecond, Queue: 4})
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	good := listen(t, srv.URL)
	good.live()
	big := strings.Repeat("x", 100_000)
	begin := time.Now()
	for n := 0; h.Clients() == 2; n++ {
		publish(t, topic, big)
		good.want("", big)
		if time.Since(begin) > 15*time.Second {
			t.Fatalf("a client that does not read is kept, after %d messages", n)
		}
	}
	publish(t, topic, "end")
	good.want("", "end")
}

func TestSSE_SlowClientWithoutAHistoryGetsTheNumberDropped(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	for name, rule := range map[string]pubsub.Overflow{"dropped": pubsub.DropNewest, "": pubsub.Disconnect} {
		begun, goOn := make(chan struct{}, 100), make(chan struct{})
		srv, _ := serveSSE(t, topic, sse.Options[string]{Queue: 2, Overflow: rule, Encode: func(_ string, text string) (string, error) {
			begun <- struct{}{}
			<-goOn // stands for a client that reads slowly
			return text, nil
		}})
		l := listen(t, srv.URL)
		l.live()
		for i := range 10 {
			_, _ = topic.Publish(t.Context(), fmt.Sprint(i))
			if i == 0 {
				<-begun
			}
		}
		time.Sleep(100 * time.Millisecond)
		close(goOn)
		l.want("", "0")
		if name != "" {
			l.want("", "1")
			l.want("", "2")
			l.want("dropped", `{"n":7}`)
		}
		if rule == pubsub.Disconnect {
			l.ended()
		}
	}
}

func TestSSE_EndsWithTheServerTheBusAndItsLife(t *testing.T) {
	madcrowtest.CheckLeaks(t)
	r := connect(t, nil)
	b := newBus(t, r, pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	short, _ := serveSSE(t, topic, sse.Options[string]{MaxConnectionAge: 300 * time.Millisecond})
	l := listen(t, short.URL)
	l.live()
	l.ended()

	srv, h := serveSSE(t, topic, sse.Options[string]{})
	l = listen(t, srv.URL)
	l.live()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Config.Shutdown(ctx); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("shutdown: %v after %v", err, time.Since(begin))
	}
	l.ended()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "EVENTS_ENDED") {
		t.Errorf("after Close: %d %s", w.Code, w.Body)
	}

	srv, _ = serveSSE(t, topic, sse.Options[string]{})
	l = listen(t, srv.URL)
	l.live()
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	l.ended()
	wantRefusal(t, srv.URL, 503, "MESSAGES_UNAVAILABLE")
}

// Also one that waits for Redis, to catch up, ends with the bus.
func TestSSE_EndsWithTheBusWhileRedisIsAway(t *testing.T) {
	redis := madcrowtest.StartRedis(t)
	b := newBus(t, openConfig(t, redis.Config()), pubsub.Options{})
	topic, _ := pubsub.NewRecoverable(b, "news", pubsub.RecoverableOptions[string]{})
	srv, _ := serveSSE(t, topic, sse.Options[string]{})
	listen(t, srv.URL).live()
	redis.Pause()
	l := listen(t, srv.URL, "Last-Event-ID", pubsub.Beginning.String()) // it comes back after a second, by then it is catching up
	l.want("interrupted", "{}")
	begin := time.Now()
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	l.ended()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestSSE_RefusedClientGetsAProblem(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	h, err := sse.NewFunc(func(r *http.Request) (sse.Source[string], error) {
		topics, err := pubsub.NewTopics(b, []string{r.URL.Query().Get("channel")}, pubsub.TopicOptions[string]{})
		if err != nil && r.URL.Query().Has("hidden") { // it was a 422 all the same
			return nil, errors.Join(problem.New(http.StatusNotFound, "NO_SUCH_FEED", "There is no such feed"), err)
		}
		return topics, err
	}, sse.Options[string]{MaxClients: 2, Authorize: func(r *http.Request) error {
		switch r.URL.Query().Get("user") {
		case "":
			return problem.New(http.StatusUnauthorized, "LOGIN_NEEDED", "Log in first")
		case "mallory":
			return errors.New("not mallory")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	t.Cleanup(h.Close)
	wantRefusal(t, srv.URL+"?channel=news", 401, "LOGIN_NEEDED")
	wantRefusal(t, srv.URL+"?channel=news&user=mallory", 403, "FORBIDDEN")
	wantRefusal(t, srv.URL+"?channel=&user=alice", 422, "VALIDATION_ERROR")
	wantRefusal(t, srv.URL+"?channel=&user=alice&hidden", 404, "NO_SUCH_FEED")
	one, two := listen(t, srv.URL+"?channel=news&user=alice"), listen(t, srv.URL+"?channel=more&user=bob")
	one.live()
	two.live()
	wantRefusal(t, srv.URL+"?channel=news&user=carol", 503, "TOO_MANY_LISTENERS")
	one.leave()
	for deadline := time.Now().Add(5 * time.Second); h.Clients() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its place is not free")
		}
	}
	listen(t, srv.URL+"?channel=news&user=carol").live()
	head, err := http.Head(srv.URL + "?channel=news&user=carol") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	_ = head.Body.Close()
	if head.StatusCode != 503 { // both places are taken
		t.Errorf("%d", head.StatusCode)
	}
}

// A source that cannot be listened to is no stream that ends at once, which a
// browser would ask for again and again.
func TestSSE_NoPermissionIsAProblem(t *testing.T) {
	if madcrowtest.OlderThan(t, "6.2") {
		t.Skip("users have rules for channels from Redis 6.2 on")
	}
	redis := madcrowtest.StartRedis(t, madcrowtest.WithUser("mute", "pw-of-mute", "~*", "+@all", "resetchannels"))
	b := newBus(t, connect(t, redis), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	srv, _ := serveSSE(t, topic, sse.Options[string]{})
	wantRefusal(t, srv.URL, 503, "MESSAGES_UNAVAILABLE")
}

func TestSSE_AWriterThatCannotFlushIsNamed(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	var refused error
	h, err := sse.New(topic, sse.Options[string]{Refuse: func(_ http.ResponseWriter, _ *http.Request, err error) { refused = err }})
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct{ http.ResponseWriter } // without Flush and Unwrap
	h.ServeHTTP(hidden{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/", nil))
	if refused == nil || !strings.Contains(refused.Error(), "Unwrap") {
		t.Error(refused)
	}
}

func TestSSE_WrongOptionsAreNamed(t *testing.T) {
	b := newBus(t, connect(t, nil), pubsub.Options{})
	topic, _ := pubsub.NewTopic(b, "news", pubsub.TopicOptions[string]{})
	for field, opt := range map[string]sse.Options[string]{
		"Options.Heartbeat": {Heartbeat: time.Millisecond}, "Options.WriteTimeout": {WriteTimeout: time.Hour}, "Options.Retry": {Retry: 2 * time.Hour},
		"Options.MaxClients": {MaxClients: -1}, "Options.MaxConnectionAge": {MaxConnectionAge: -1}, "Options.Queue": {Queue: -1},
	} {
		var v *madcrow.ArgumentError
		if _, err := sse.New(topic, opt); !errors.As(err, &v) || v.Argument != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := sse.New[string](nil, sse.Options[string]{}); err == nil {
		t.Error("no source is no error")
	}
}

// A 500 behind a middleware that hides Flush had an error_id that stood in no log.
func TestSSE_ErrorsAreInTheLogOfTheRedis(t *testing.T) {
	var log testkit.Log
	cfg := config
	cfg.KeyPrefix, cfg.Logger = t.Name()+":", log.Logger()
	topic, err := pubsub.NewTopic(newBus(t, openConfig(t, cfg), pubsub.Options{}), "news", pubsub.TopicOptions[string]{})
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := sse.New(topic, sse.Options[string]{})
	chosen, err2 := sse.NewFunc(func(*http.Request) (sse.Source[string], error) { return topic, nil }, sse.Options[string]{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*sse.Handler{"New": one, "NewFunc": chosen} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(struct{ http.ResponseWriter }{rec}, httptest.NewRequest(http.MethodGet, "/events", http.NoBody))
		var body struct {
			ErrorID string `json:"error_id"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || rec.Code != http.StatusInternalServerError || body.ErrorID == "" {
			t.Fatalf("%s: %d %s", name, rec.Code, rec.Body)
		}
		if lines := log.With(body.ErrorID); len(lines) != 1 || !strings.Contains(lines[0], "cannot flush") {
			t.Errorf("%s: %q", name, lines)
		}
	}
}
