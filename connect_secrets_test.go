package madcrow_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/resp"
	"github.com/madcrow-go/madcrow/internal/testkit"
)

// A server that does not know AUTH repeats its arguments in the error.
func TestConnect_PasswordIsNotShownWhereAServerRepeatsIt(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); ; {
					v, err := resp.Read(r)
					words, _ := v.([]any)
					if err != nil || len(words) == 0 {
						return
					}
					_, _ = fmt.Fprintf(c, "-ERR unknown command '%v', with args beginning with: %q\r\n", words[0], words[1:])
				}
			}()
		}
	}()
	cfg := madcrow.Config{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
	var log testkit.Log
	cfg.Username, cfg.Password, cfg.Require = "user", "hunter2secret", true
	cfg.Logger = log.Logger()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = madcrow.Open(ctx, cfg)
	if err == nil || !strings.Contains(err.Error(), "unknown command") {
		t.Fatalf("%v", err)
	}
	if text := err.Error() + strings.Join(log.With(""), ""); strings.Contains(text, "hunter2") {
		t.Errorf("%s", text)
	}
}
