//go:build soak

package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
)

// TestPages_InABrowser goes through the pages in Chromium, which can resolve no
// name. MADCROW_SCREENSHOTS names a folder for pictures of them.
func TestPages_InABrowser(t *testing.T) {
	s := open(t)
	phone := s.browser(iphone)
	phone.login("ada")
	c := startChromium(t)

	c.visit(s.url + "/")
	c.waitFor("location.pathname == '/login' && !!document.querySelector('input[name=password]')")
	c.picture("login")
	c.fill("name", "ada")
	c.fill("password", "wrong horse battery")
	c.click("main button", "document.body.innerText.includes('is wrong. 2 tries are left')")
	c.picture("wrong")
	c.fill("password", password)
	c.click("input[name=remember]", "true")
	c.click("main button", "location.pathname == '/profile' && document.querySelector('h1').innerText == 'ada'")
	c.picture("profile")
	if n := c.eval("document.styleSheets[0].cssRules.length > 20 && document.cookie == ''"); n != "true" {
		t.Errorf("no style, or a script could read the cookie: %v", n)
	}

	const next = "staple staple battery"
	c.fill("old", password)
	c.fill("new", next)
	c.fill("again", next)
	c.click("main button", "document.body.innerText.includes('One other session was ended')")
	c.picture("changed")
	if phone.in("ada") {
		t.Error("the phone is still in")
	}
	if a := phone.post("/login", "name", "ada", "password", next); a.to != "/profile" {
		t.Fatal(a)
	}
	c.click("nav a[href='/sessions']", "document.querySelectorAll('.sessions li').length == 2")
	c.picture("sessions")
	crossOrigin(t, c, s)

	c.visit(s.url + "/sessions")
	c.click(".sessions li:not(.here) button", "document.body.innerText.includes('The session is ended')")
	if phone.in("ada") {
		t.Error("the phone is still in")
	}
	s.redis.Stop()
	c.visit(s.url + "/profile")
	c.waitFor("document.body.innerText.includes('cannot be reached')")
	c.picture("without-redis")
	c.visit(s.url + "/sessions")
	c.waitFor("document.querySelector('h1').innerText == 'Service Unavailable'")
	c.picture("error")
	s.redis.Start()
	program.Wait(t, func() bool { return s.browser(firefox).get("/login").code == 200 })
	logInAndOut(c, s, next)
	for _, line := range c.complaints {
		t.Errorf("the browser complains: %s", line)
	}
}

// logInAndOut ends where it began, as another page of the same browser shows.
func logInAndOut(c *chromium, s *site, password string) {
	c.visit(s.url + "/login")
	c.fill("name", "ada")
	c.fill("password", password)
	c.click("main button", "location.pathname == '/profile' && document.readyState == 'complete'")
	c.click("header button", "document.body.innerText.includes('You are logged out')")
	c.picture("out")
	c.visit(s.url + "/profile")
	c.waitFor("location.pathname == '/login'")
}

// crossOrigin has a page of another origin send the form of the logout. It is
// of the same site (a port is no site), so the cookie goes along.
func crossOrigin(t *testing.T, c *chromium, s *site) {
	t.Helper()
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<form method="post" action="%s/sessions/end"><button name="session" value="all">win</button></form>`, s.url)
	}))
	t.Cleanup(evil.Close)
	c.visit(evil.URL)
	c.click("button", "document.body.innerText.includes('Another site sent this form')")
	c.picture("cross-origin")
}

// chromium is a browser at the end of two pipes, which carry the messages of
// its DevTools protocol, each ended by a zero byte.
type chromium struct {
	t          *testing.T
	ctx        context.Context
	in         io.Writer
	out        *bufio.Reader
	n          int
	session    string
	shots      string
	complaints []string
}

func startChromium(t *testing.T) *chromium {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	hears, in, err1 := os.Pipe()
	out, says, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--ignore-certificate-errors",
		"--window-size=900,700", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{hears, says} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = hears.Close()
	_ = says.Close()
	c := &chromium{t: t, ctx: ctx, in: in, out: bufio.NewReader(out), shots: os.Getenv("MADCROW_SCREENSHOTS")}
	t.Cleanup(func() {
		_, _ = c.call("Browser.close", nil)
		_ = cmd.Wait()
		cancel()
		_ = in.Close()
		_ = out.Close()
	})
	var page struct{ TargetID, SessionID string }
	c.must("Target.createTarget", map[string]any{"url": "about:blank"}, &page)
	c.must("Target.attachToTarget", map[string]any{"targetId": page.TargetID, "flatten": true}, &page)
	c.session = page.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		c.must(domain+".enable", nil, nil)
	}
	return c
}

// call sends a command and returns its result. What the browser says meanwhile
// is looked through for complaints.
func (c *chromium) call(method string, params any) (json.RawMessage, error) {
	c.n++
	message := map[string]any{"id": c.n, "method": method}
	if params != nil {
		message["params"] = params
	}
	if c.session != "" && method != "Browser.close" {
		message["sessionId"] = c.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if _, err := c.in.Write(append(text, 0)); err != nil {
		return nil, err
	}
	for {
		text, err := c.out.ReadBytes(0)
		if err != nil {
			return nil, errors.Join(err, c.ctx.Err())
		}
		var got struct {
			ID     int
			Method string
			Params struct {
				Entry struct{ Level, Text, URL string }
			}
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(text[:len(text)-1], &got); err != nil {
			return nil, err
		}
		switch {
		case got.ID == c.n && got.Error != nil:
			return nil, errors.New(got.Error.Message)
		case got.ID == c.n:
			return got.Result, nil
		}
		e := got.Params.Entry
		if (e.Level == "warning" || e.Level == "error") && !strings.Contains(e.Text, "the server responded with a status of") {
			c.complaints = append(c.complaints, fmt.Sprint(e))
		}
	}
}

func (c *chromium) must(method string, params, result any) {
	c.t.Helper()
	raw, err := c.call(method, params)
	if err == nil && result != nil {
		err = json.Unmarshal(raw, result)
	}
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
}

func (c *chromium) visit(url string) {
	c.t.Helper()
	c.must("Page.navigate", map[string]any{"url": url}, nil)
	c.waitFor("document.readyState == 'complete'")
}

// eval is the value of an expression, as JSON; "" while pages change.
func (c *chromium) eval(expression string) string {
	var got struct {
		Result struct{ Value json.RawMessage }
	}
	if raw, err := c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}); err != nil || json.Unmarshal(raw, &got) != nil {
		return ""
	}
	return string(got.Result.Value)
}

func (c *chromium) waitFor(expression string) {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); c.eval(expression) != "true"; time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			c.picture("failed")
			c.t.Fatalf("%s did not become true at %s:\n%s", expression, c.eval("location.href"), c.eval("document.body.innerText"))
		}
	}
}

// click does it as a script of the browser's owner: the policy of the pages
// lets none of theirs run.
func (c *chromium) click(selector, until string) {
	c.t.Helper()
	c.eval(fmt.Sprintf("document.querySelector(%q).click()", selector))
	c.waitFor(until)
}

func (c *chromium) fill(name, value string) {
	c.t.Helper()
	if c.eval(fmt.Sprintf("(e => { e.focus(); e.select(); return document.activeElement == e })(document.querySelector('input[name=%s]'))", name)) != "true" {
		c.t.Fatalf("there is no field %s", name)
	}
	c.must("Input.insertText", map[string]any{"text": value}, nil)
}

// picture takes one of the page in light and in dark, and as a phone has it.
func (c *chromium) picture(name string) {
	c.t.Helper()
	if c.shots == "" {
		return
	}
	for _, look := range []struct {
		name, scheme string
		width        int
	}{{"light", "light", 900}, {"dark", "dark", 900}, {"phone", "light", 390}} {
		c.must("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": look.scheme}}}, nil)
		c.must("Emulation.setDeviceMetricsOverride", map[string]any{"width": look.width, "height": 760, "deviceScaleFactor": 1, "mobile": false}, nil)
		var shot struct{ Data string }
		c.must("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
		data, err := base64.StdEncoding.DecodeString(shot.Data)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.shots, name+"-"+look.name+".png"), data, 0o600)
		}
		if err != nil {
			c.t.Error(err)
		}
	}
}
