package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow"
	"github.com/redis/rueidis"
)

const (
	keys  = 1000
	value = 128
)

// environment is one redis-server and the clients that all races share.
type environment struct {
	cmd  *exec.Cmd
	dir  string
	once sync.Once

	host string
	port int

	redis *madcrow.Redis
	bare  rueidis.Client // as rueidis comes
	one   rueidis.Client // with one connection, as Madcrow uses it here
	keys  []string

	children []*exec.Cmd
	closers  []func() error // of the peers' clients
}

func newEnvironment() (*environment, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &environment{host: "127.0.0.1", port: l.Addr().(*net.TCPAddr).Port}
	_ = l.Close()
	if e.dir, err = os.MkdirTemp("", "madcrow-bench-"); err != nil {
		return nil, err
	}
	e.cmd = exec.Command("redis-server", "--port", strconv.Itoa(e.port), "--bind", e.host, "--save", "", "--appendonly", "no", "--dir", e.dir)
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("redis-server is needed (apt-get install redis-server): %w", err)
	}
	if err := e.connect(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *environment) connect() error {
	ctx := context.Background()
	var err error
	e.redis, err = madcrow.Open(ctx, madcrow.Config{Host: e.host, Port: e.port, Require: true})
	if err != nil {
		return err
	}
	opt := rueidis.ClientOption{InitAddress: []string{net.JoinHostPort(e.host, strconv.Itoa(e.port))}, ForceSingleClient: true, DisableCache: true}
	if e.bare, err = rueidis.NewClient(opt); err != nil {
		return err
	}
	opt.PipelineMultiplex, opt.AlwaysPipelining = -1, true
	if e.one, err = rueidis.NewClient(opt); err != nil {
		return err
	}
	text := strings.Repeat("x", value)
	for i := range keys {
		k := "key:" + strconv.Itoa(i)
		e.keys = append(e.keys, k)
		if err := e.bare.Do(ctx, e.bare.B().Set().Key(k).Value(text).Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

// close stops the server, by its process, and what is connected to it.
func (e *environment) close() {
	e.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if e.redis != nil {
			_ = e.redis.Close(ctx)
		}
		for _, c := range []rueidis.Client{e.bare, e.one} {
			if c != nil {
				c.Close()
			}
		}
		for _, stop := range e.closers {
			_ = stop()
		}
		for _, c := range e.children {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		_ = e.cmd.Process.Kill()
		if err := e.cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		_ = os.RemoveAll(e.dir)
	})
}
