package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/pubsub"
	"github.com/madcrow-go/madcrow/sse"
)

//go:embed page
var files embed.FS

// policy lets the page use its own files and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// notification is one event for a page.
type notification struct {
	Message string    `json:"message"`
	Sent    time.Time `json:"sent"`
}

// maxMessage and maxChannel are in bytes.
const (
	maxMessage = 4096
	maxChannel = 100
)

type app struct {
	bus *pubsub.Bus
	log *slog.Logger
}

// newHandler is the application. The feed must be closed with the server.
func newHandler(bus *pubsub.Bus, log *slog.Logger) (http.Handler, *sse.Handler, error) {
	a := &app{bus, log}
	feed, err := sse.NewFunc(func(r *http.Request) (sse.Source[notification], error) {
		return a.topic(r)
	}, sse.Options[notification]{
		Retry:  500 * time.Millisecond,
		Logger: log,
	})
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", file("page/index.html", "text/html; charset=utf-8"))
	mux.HandleFunc("GET /app.js", file("page/app.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /style.css", file("page/style.css", "text/css; charset=utf-8"))
	mux.HandleFunc("POST /notify/{channel}", a.notify)
	mux.Handle("GET /feed/{channel}", feed)
	// Pages of other sites can neither write nor, without a CORS header, read.
	return http.NewCrossOriginProtection().Handler(mux), feed, nil
}

func file(name, kind string) http.HandlerFunc {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		_, _ = w.Write(data)
	}
}

// topic is that of the channel in the path.
func (a *app) topic(r *http.Request) (*pubsub.Recoverable[notification], error) {
	channel := r.PathValue("channel")
	if channel == "" || len(channel) > maxChannel {
		return nil, problem.Validation(problem.FieldError{Field: "path.channel", Message: fmt.Sprintf("expected 1 to %d bytes", maxChannel)})
	}
	return pubsub.NewRecoverable(a.bus, "notifications:"+channel, pubsub.RecoverableOptions[notification]{History: 1000, HistoryTTL: 24 * time.Hour})
}

// notify sends a message. The answer 503 or 504 does not always say that it was
// not sent: whoever sends it again may send it twice.
func (a *app) notify(w http.ResponseWriter, r *http.Request) {
	topic, err := a.topic(r)
	message := r.URL.Query().Get("message")
	if err == nil && (message == "" || len(message) > maxMessage) {
		err = problem.Validation(problem.FieldError{Field: "query.message", Message: fmt.Sprintf("expected 1 to %d bytes", maxMessage)})
	}
	var at pubsub.Position
	if err == nil {
		at, err = topic.Publish(r.Context(), notification{message, time.Now().UTC()})
	}
	if err != nil {
		problem.Write(w, r, a.log, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"channel": r.PathValue("channel"), "message": message, "id": at.String()})
}
