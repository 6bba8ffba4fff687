package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/madcrow-go/madcrow/problem"
	"github.com/madcrow-go/madcrow/session"
)

//go:embed pages
var files embed.FS

// pages are the templates, each with the layout around it.
var pages = func() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(template.FuncMap{"ago": ago, "wait": wait}).ParseFS(files, "pages/layout.html"))
	all := map[string]*template.Template{}
	for _, name := range []string{"login", "profile", "sessions", "error"} {
		all[name] = template.Must(template.Must(layout.Clone()).ParseFS(files, "pages/"+name+".html"))
	}
	return all
}()

var sheet, sheetVersion = func() ([]byte, string) {
	css, err := files.ReadFile("pages/style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(css)
	return css, hex.EncodeToString(sum[:6])
}()

func style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // its address has the version
	_, _ = w.Write(sheet)
}

// page is what every page shows.
type page struct {
	Title, Sheet string
	User         string // "" without a login
	At           string // the page's path, for the menu
	Old          bool   // from a copy, without Redis
	Notes        []session.Flash
	Data         any
}

// show answers with a page.
func (a *app) show(w http.ResponseWriter, r *http.Request, status int, name, title string, data any) error {
	ctx := r.Context()
	s := a.sessions.From(ctx)
	v, _, err := s.Get(ctx)
	if err != nil {
		return err
	}
	p := page{Title: title, User: v.Username, At: r.URL.Path, Old: s.Degraded() != nil, Data: data}
	if !p.Old {
		// A message that cannot be taken now waits for the next page.
		if p.Notes, err = s.TakeFlashes(ctx); err != nil {
			a.log.WarnContext(ctx, "messages are not shown", "reason", err)
		}
	}
	return render(w, status, name, p)
}

// render writes nothing but whole pages.
func render(w http.ResponseWriter, status int, name string, p page) error {
	p.Sheet = sheetVersion
	var b bytes.Buffer
	if err := pages[name].Execute(&b, p); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // the browser may have gone; no answer reaches it
	return nil
}

// fail answers with the problem of err, as a page for people.
func (a *app) fail(w http.ResponseWriter, r *http.Request, err error) {
	if wantsJSON(r) {
		problem.Write(w, r, a.log, err)
		return
	}
	p := problem.From(err)
	problem.Log(r.Context(), a.log, p, err, slog.String("method", r.Method), slog.String("route", r.Pattern))
	p.SetHeaders(w.Header())
	p.Title = http.StatusText(p.Status) // problem types are for programs
	if err := render(w, p.Status, "error", page{Title: p.Title, Data: p}); err != nil {
		problem.Write(w, r, a.log, err)
	}
}

// wantsJSON says whether a program asks.
func wantsJSON(r *http.Request) bool {
	accept := strings.ToLower(r.Header.Get("Accept")) // media types have no case
	return strings.Contains(accept, "json") && !strings.Contains(accept, "text/html")
}

// ago is how long ago something was, roughly.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return count(int(d/time.Minute), "minute") + " ago"
	case d < 48*time.Hour:
		return count(int(d/time.Hour), "hour") + " ago"
	}
	return count(int(d/(24*time.Hour)), "day") + " ago"
}

// wait is how long to wait, rounded up.
func wait(d time.Duration) string {
	switch {
	case d <= time.Minute:
		return count(int((d+time.Second-1)/time.Second), "second")
	case d <= time.Hour:
		return count(int((d+time.Minute-1)/time.Minute), "minute")
	}
	return count(int((d+time.Hour-1)/time.Hour), "hour")
}

func count(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return strconv.Itoa(n) + " " + unit
}
