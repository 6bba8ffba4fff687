// Package lines_test compares the six usage examples with Madcrow and with the
// usual libraries: what they do, and how many lines a user writes.
package lines_test

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/bench/lines/ours"
	"github.com/madcrow-go/madcrow/bench/lines/site"
	"github.com/madcrow-go/madcrow/bench/lines/usual"
	"github.com/madcrow-go/madcrow/madcrowtest"
)

func TestLines_BothDoTheSame(t *testing.T) {
	for name, open := range map[string]func(context.Context, *site.Heard) (http.Handler, func(), error){"ours": ours.Open, "usual": usual.Open} {
		t.Run(name, func(t *testing.T) {
			s := madcrowtest.StartRedis(t)
			t.Setenv("REDIS_URL", "redis://"+s.Addr())
			t.Setenv("DEPLOY_ENV", "PRODUCTION")
			ctx, cancel := context.WithCancel(t.Context())
			heard := &site.Heard{}
			h, end, err := open(ctx, heard)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(h)
			t.Cleanup(func() { srv.Close(); cancel(); end() })
			jar, _ := cookiejar.New(nil)
			c := &client{http.Client{Jar: jar, Timeout: 10 * time.Second}, srv.URL}
			with(t, c, s, heard)
			s.Pause()
			without(t, c)
			s.Resume()
			c.eventually(t, "GET", "/cache/a", 200)
			s.Kill()
			without(t, c)
			s.Start()
			c.eventually(t, "GET", "/cache/a", 200)
			again(t, c, heard)
		})
	}
}

func with(t *testing.T, c *client, s *madcrowtest.Server, heard *site.Heard) {
	t.Helper()
	c.want(t, "GET", "/cache/a", 200, `"exists":false`)
	c.want(t, "POST", "/cache?key=a&value=one", 200, `"success":true`)
	c.want(t, "GET", "/cache/a", 200, `"value":"one","exists":true`)
	c.want(t, "POST", "/cache?value=one", 422, "VALIDATION_ERROR")
	s.Do(t, "RPUSH", "list", "x")
	c.want(t, "GET", "/cache/list", 409, "REDIS_WRONG_TYPE")

	c.want(t, "GET", "/data/1", 200, `"source":"database"`)
	c.want(t, "GET", "/data/1", 200, `"source":"cache"`)
	c.want(t, "GET", "/data/2", 404, "NOT_FOUND")

	c.want(t, "GET", "/profile", 401, "")
	c.want(t, "POST", "/login?username=ada&password=wrong", 401, "LOGIN_FAILED")
	c.want(t, "POST", "/login?username=ada&password=lovelace", 200, `"user":"ada"`)
	c.want(t, "GET", "/profile", 200, `"role":"admin"`)

	for range 10 {
		c.want(t, "POST", "/api/action", 200, "done")
	}
	if res := c.want(t, "POST", "/api/action", 429, "QUOTA_EXCEEDED"); res.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	again(t, c, heard)
	c.want(t, "POST", "/notify/no-one?message=x", 200, `"subscribers":0`)
}

// again waits until messages are heard (again).
func again(t *testing.T, c *client, heard *site.Heard) {
	t.Helper()
	before := len(heard.List())
	for end := time.Now().Add(15 * time.Second); len(heard.List()) == before; time.Sleep(20 * time.Millisecond) {
		c.want(t, "POST", "/notify/notifications?message=x", 200, `"message":"x"`)
		if time.Now().After(end) {
			t.Fatal("nothing is heard")
		}
	}
}

func without(t *testing.T, c *client) {
	t.Helper()
	c.eventually(t, "GET", "/cache/a", 503)
	c.eventually(t, "POST", "/api/action", 503) // a denial may be remembered for a second
	begin := time.Now()
	for _, ask := range []string{
		"GET /cache/a", "POST /cache?key=a&value=b", "GET /profile", "POST /login?username=ada&password=lovelace",
		"POST /notify/notifications?message=x", "POST /api/action",
	} {
		method, path, _ := strings.Cut(ask, " ")
		if res := c.want(t, method, path, 503, "UNAVAILABLE"); res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: 503 without Retry-After", ask)
		}
	}
	refused := time.Since(begin)
	begin = time.Now()
	c.want(t, "GET", "/data/1", 200, `"source":"database"`)
	t.Logf("without Redis: six refusals took %v, a record %v", refused, time.Since(begin))
}

type client struct {
	http.Client
	addr string
}

func (c *client) ask(t *testing.T, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 1800*time.Millisecond {
		t.Errorf("%s %s took %v", method, path, took)
	}
	if !json.Valid(text) {
		t.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	return res, string(text)
}

func (c *client) want(t *testing.T, method, path string, status int, text string) *http.Response {
	t.Helper()
	res, got := c.ask(t, method, path)
	if res.StatusCode != status || !strings.Contains(got, text) {
		t.Errorf("%s %s: %d %s, want %d %s", method, path, res.StatusCode, got, status, text)
	}
	return res
}

func (c *client) eventually(t *testing.T, method, path string, status int) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, got := c.ask(t, method, path)
		if res.StatusCode == status {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, got, status)
		}
	}
}

// The table of the guide has the numbers of the files.
func TestLines_TheTableIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/from-fastapi.md")
	if err != nil {
		t.Fatal(err)
	}
	var sum [2]int
	for _, row := range []struct{ file, what string }{
		{"basic", "read and write a cached value"},
		{"optional", "a record through a cache, or without"},
		{"session", "log in, and read the session"},
		{"limit", "ten requests a minute"},
		{"notify", "send a message"},
		{"subscribe", "listen in the background"},
		{"setup", "connect, put together, answer errors"},
	} {
		n := [2]int{count(t, "ours/"+row.file+".go"), count(t, "usual/"+row.file+".go")}
		sum[0], sum[1] = sum[0]+n[0], sum[1]+n[1]
		if line := fmt.Sprintf("| %s | %d | %d |", row.what, n[0], n[1]); !strings.Contains(string(page), line) {
			t.Errorf("the page does not say: %s", line)
		}
	}
	if line := fmt.Sprintf("| all | %d | %d |", sum[0], sum[1]); !strings.Contains(string(page), line) {
		t.Errorf("the page does not say: %s", line)
	}
	for _, dir := range []string{"ours", "usual"} {
		if files, err := filepath.Glob(dir + "/*.go"); err != nil || len(files) != 7 {
			t.Errorf("%s: not every file is counted: %v %v", dir, files, err)
		}
	}
}

// count returns how many lines a file has with anything but comments, its
// package and its imports.
func count(t *testing.T, name string) int {
	t.Helper()
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return lines(t, src)
}

func lines(t *testing.T, src []byte) int {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, "", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	head := parsed.Name.End()
	for _, d := range parsed.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.IMPORT {
			head = g.End()
		}
	}
	at := files.AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(at, src, nil, 0)
	code := map[int]bool{}
	skip := files.Position(head).Line
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			return len(code)
		}
		if tok == token.SEMICOLON {
			continue
		}
		first := at.Line(pos)
		for line := first; line <= first+strings.Count(text, "\n"); line++ {
			if line > skip {
				code[line] = true
			}
		}
	}
}

func TestLines_AreCounted(t *testing.T) {
	const src = "// Package p.\npackage p\n\nimport (\n\t\"fmt\"\n)\n\n// f prints.\nfunc f() {\n\t/* no\n\tcode */\n\n\tfmt.Println(`one\ntwo`) // text\n}\n"
	if n := lines(t, []byte(src)); n != 4 {
		t.Errorf("%d lines, want 4", n)
	}
}
