package madcrow_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// fakeSentinel answers as a Sentinel would, with what the test sets.
type fakeSentinel struct {
	ln     net.Listener
	mu     sync.Mutex
	master string
	epoch  int
	delay  time.Duration
	mute   bool
	// refuse is what it answers to a subcommand in the place of a reply.
	refuse   map[string]string
	replicas []string
}

func startFakeSentinel(t testing.TB, master string, epoch int) *fakeSentinel {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeSentinel{ln: ln, master: master, epoch: epoch}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	return f
}

func (f *fakeSentinel) addr() string { return f.ln.Addr().String() }

func (f *fakeSentinel) set(fn func()) { f.mu.Lock(); fn(); f.mu.Unlock() }

func bulk(s string) string { return "$" + strconv.Itoa(len(s)) + "\r\n" + s + "\r\n" }

func (f *fakeSentinel) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		v, err := resp.Read(r)
		if err != nil {
			return
		}
		args := v.([]any)
		f.mu.Lock()
		master, epoch, delay, mute := f.master, f.epoch, f.delay, f.mute
		refuse, replicas := f.refuse, f.replicas
		f.mu.Unlock()
		if mute {
			continue
		}
		time.Sleep(delay)
		host, port, _ := net.SplitHostPort(master)
		switch args[0] {
		case "SENTINEL":
			if text := refuse[args[1].(string)]; text != "" {
				fmt.Fprint(c, "-"+text+"\r\n")
				continue
			}
			switch args[1] {
			case "REPLICAS", "SLAVES":
				fmt.Fprintf(c, "*%d\r\n", len(replicas))
				for _, r := range replicas {
					host, port, _ := net.SplitHostPort(r)
					_ = resp.Write(c, []string{"ip", host, "port", port, "flags", "slave", "master-link-status", "ok"})
				}
			case "GET-MASTER-ADDR-BY-NAME":
				fmt.Fprint(c, "*2\r\n"+bulk(host)+bulk(port))
			case "MASTER":
				fmt.Fprint(c, "*4\r\n"+bulk("config-epoch")+bulk(strconv.Itoa(epoch))+bulk("quorum")+bulk("2"))
			default:
				fmt.Fprint(c, "*0\r\n")
			}
		case "SUBSCRIBE":
			fmt.Fprint(c, "*3\r\n"+bulk("subscribe")+bulk(args[1].(string))+":1\r\n")
		default:
			fmt.Fprint(c, "+PONG\r\n")
		}
	}
}

func fakeSet(t *testing.T, fs ...*fakeSentinel) madcrow.Config {
	cfg := madcrow.Config{Sentinel: madcrow.Sentinel{Enabled: true, ServiceName: "m"}}
	for _, f := range fs {
		cfg.Sentinel.Addresses = append(cfg.Sentinel.Addresses, f.addr())
	}
	return cfg
}

func awaitMaster(t *testing.T, r *madcrow.Redis, addr string, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if st := r.Status(); st.Master == addr && r.Available() {
			if err := r.Do(context.Background(), get(r, "x")).Err(); err == nil {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("master %s, want %s", r.Status().Master, addr)
		}
	}
}
