//go:build soak

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow/examples/internal/program"
)

// TestPage_InABrowser looks at the page in Chromium while the program and Redis
// are restarted. MADCROW_SCREENSHOTS names a folder for pictures of it.
func TestPage_InABrowser(t *testing.T) {
	redis := startRedis(t)
	serves, sends := startProgram(t, redis), startProgram(t, redis)
	var want []string
	send := func(text string) {
		t.Helper()
		sends.mustSend("orders", text)
		want = append(want, text)
	}
	send("Order 1 is paid")
	c := openChromium(t, serves.url+"/?channel=orders")
	c.waitState("live") // what was sent before is there, too
	send("Order 2 is paid")
	send(`<img src=x onerror="document.title='broken'"> is text`)
	c.waitShown(want)
	c.picture("live")

	serves.stop()
	c.waitState("interrupted")
	c.picture("interrupted")
	send("Order 3 is paid")
	send("two\nlines")
	serves.start()
	c.waitState("live")
	c.waitShown(want)

	redis.Kill()
	c.waitState("interrupted")
	redis.Start()
	c.waitState("live")
	send("Order 4 is sent")
	c.waitShown(want)

	c.eval(`document.getElementById("message").value = "from the page"; document.querySelector("button").click()`)
	want = append(want, "from the page")
	c.waitShown(want)
	c.picture("back")
	if n := c.eval(`document.querySelectorAll("#feed .pause").length`); n != "2" {
		t.Errorf("%s interruptions are shown", n)
	}
	if text := c.eval(`document.title.split(" ")[0] + document.querySelectorAll("#feed .lost, #feed img").length`); text != `"orders0"` {
		t.Error(text)
	}
	c.visit(serves.url + "/?channel=orders") // a new page shows what is kept, once
	c.waitState("live")
	c.waitShown(want)
	for _, line := range c.complaints {
		t.Errorf("the browser complains: %s", line)
	}
}

// chromium is driven through two pipes; its messages end with a zero byte.
type chromium struct {
	t          *testing.T
	in         io.Writer
	out        *bufio.Reader
	session    string
	calls      int
	complaints []string
}

func openChromium(t *testing.T, url string) *chromium {
	t.Helper()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	hear, in := pipe()
	out, speak := pipe()
	cmd := exec.CommandContext(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=800,640", "--no-first-run", "--disable-sync",
		"--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
		"--remote-debugging-pipe", "--user-data-dir="+t.TempDir())
	cmd.ExtraFiles = []*os.File{hear, speak}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = hear.Close(), speak.Close()
	c := &chromium{t: t, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_, _ = in.Close(), out.Close()
	})
	var target struct{ TargetID, SessionID string }
	c.call("Target.createTarget", &target, "url", "about:blank")
	c.call("Target.attachToTarget", &target, "targetId", target.TargetID, "flatten", true)
	c.session = target.SessionID
	c.call("Log.enable", nil)
	c.call("Runtime.enable", nil)
	c.visit(url)
	return c
}

// call sends a command, with parameters in pairs, and reads until its answer.
func (c *chromium) call(method string, result any, params ...any) {
	c.t.Helper()
	c.calls++
	message := map[string]any{"id": c.calls, "method": method}
	if c.session != "" {
		message["sessionId"] = c.session
	}
	members := map[string]any{}
	for i := 0; i < len(params); i += 2 {
		members[fmt.Sprint(params[i])] = params[i+1]
	}
	message["params"] = members
	text, err := json.Marshal(message)
	if err == nil {
		_, err = c.in.Write(append(text, 0))
	}
	for err == nil {
		var answer struct {
			ID     int
			Method string
			Params json.RawMessage
			Result json.RawMessage
			Error  any
		}
		if text, err = c.out.ReadBytes(0); err != nil {
			break
		}
		if err = json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &answer); err != nil {
			break
		}
		if answer.ID != c.calls {
			c.hear(answer.Method, string(answer.Params))
			continue
		}
		if answer.Error != nil {
			err = fmt.Errorf("%v", answer.Error)
		} else if result != nil {
			err = json.Unmarshal(answer.Result, result)
		}
		if err == nil {
			return
		}
	}
	c.t.Fatalf("%s: %v", method, err)
}

// hear notes complaints, but for those about a server that is away.
func (c *chromium) hear(event, params string) {
	complaint := event == "Runtime.exceptionThrown" || event == "Log.entryAdded" && !strings.Contains(params, `"level":"info"`)
	if complaint && !strings.Contains(params, "net::ERR_") {
		c.complaints = append(c.complaints, params)
	}
}

func (c *chromium) visit(url string) {
	c.t.Helper()
	c.call("Page.navigate", nil, "url", url)
}

// eval is the value of an expression as JSON.
func (c *chromium) eval(expression string) string {
	c.t.Helper()
	var got struct {
		Result struct{ Value json.RawMessage }
	}
	c.call("Runtime.evaluate", &got, "expression", expression, "returnByValue", true)
	return string(got.Result.Value)
}

func (c *chromium) waitState(state string) {
	c.t.Helper()
	program.Wait(c.t, func() bool { return c.eval(`document.getElementById("state")?.textContent`) == `"`+state+`"` })
}

// waitShown waits until the page shows these messages, the newest first, and
// gives one that comes twice the time to do so.
func (c *chromium) waitShown(want []string) {
	c.t.Helper()
	shown := func() (texts []string) {
		_ = json.Unmarshal([]byte(c.eval(`Array.from(document.querySelectorAll("#feed .message span"), e => e.textContent).reverse()`)), &texts)
		return texts
	}
	program.Wait(c.t, func() bool { return len(shown()) >= len(want) })
	time.Sleep(200 * time.Millisecond)
	if got := shown(); !slices.Equal(got, want) {
		c.t.Errorf("the page shows %q, want %q", got, want)
	}
}

// picture takes one of the page in light and in dark.
func (c *chromium) picture(name string) {
	c.t.Helper()
	folder := os.Getenv("MADCROW_SCREENSHOTS")
	if folder == "" {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		c.call("Emulation.setEmulatedMedia", nil, "features", []map[string]string{{"name": "prefers-color-scheme", "value": scheme}})
		var shot struct{ Data []byte }
		c.call("Page.captureScreenshot", &shot)
		if err := os.WriteFile(filepath.Join(folder, "notifications-"+name+"-"+scheme+".png"), shot.Data, 0o600); err != nil {
			c.t.Error(err)
		}
	}
}
