package conn

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/madcrow-go/madcrow/internal/fault"
	"github.com/madcrow-go/madcrow/internal/resp"
)

// RESPConfig is what a RESPClient needs to know.
type RESPConfig struct {
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS makes the configuration of a new connection to addr; nil: without TLS.
	TLS func(addr string) *tls.Config
	// ExplainTLS adds to a failed handshake what to do about it.
	ExplainTLS func(error) error
	// Credentials returns the user and the password of a new connection.
	Credentials func() (user, password string)
	// Fetch asks for credentials that rotate, in the place of Credentials, within
	// Timeout; nil: none do.
	Fetch   func(ctx context.Context) (Credentials, error)
	Timeout time.Duration
	Hint    string // the settings that the credentials come from
}

// RESPClient makes single exchanges with servers, beside the connections that
// carry calls: with Sentinels, and with cluster nodes about their map. All of
// it ends with its context.
type RESPClient struct {
	cfg RESPConfig

	mu      sync.Mutex
	have    bool // current is usable
	current Credentials
}

// NewRESPClient makes a client. It connects with each exchange.
func NewRESPClient(cfg RESPConfig) *RESPClient { return &RESPClient{cfg: cfg} }

// RESPConn is an open connection of a RESPClient.
type RESPConn struct {
	net.Conn
	Reader  *bufio.Reader
	step    time.Duration // bounds each step; 0: only the context does
	Slowest time.Duration // of the steps so far
}

// within runs one step, which ends with ctx and in time.
func (l *RESPConn) within(ctx context.Context, do func(ctx context.Context) error) error {
	if l.step > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.step)
		defer cancel()
	}
	stop := func() bool { return true }
	if c := l.Conn; c != nil {
		stop = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	}
	start := time.Now()
	err := do(ctx)
	l.Slowest = max(l.Slowest, time.Since(start))
	if !stop() || err != nil && ctx.Err() != nil {
		return fault.ErrSilent
	}
	return err
}

// Exchange sends commands and returns their replies, all of it within ctx.
func (rc *RESPClient) Exchange(ctx context.Context, addr string, commands ...[]string) ([]any, error) {
	l, err := rc.Open(ctx, 0, addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.Exchange(ctx, commands...)
}

// Exchange sends commands and returns their replies, in one step.
func (l *RESPConn) Exchange(ctx context.Context, commands ...[]string) ([]any, error) {
	replies := make([]any, len(commands))
	err := l.within(ctx, func(context.Context) error {
		err := resp.Write(l, commands...)
		for i := 0; i < len(replies) && err == nil; i++ {
			replies[i], err = resp.Read(l.Reader)
		}
		return err
	})
	return replies, err
}

// Open connects and authenticates. The dial, the TLS handshake and AUTH are a
// step each: what is far away needs a round trip or more for every one.
func (rc *RESPClient) Open(ctx context.Context, step time.Duration, addr string) (*RESPConn, error) {
	l := &RESPConn{step: step}
	var raw net.Conn
	err := l.within(ctx, func(ctx context.Context) error {
		return runDetached(ctx, func() (err error) { // also a dialer that does not hear it
			raw, err = rc.cfg.Dial(ctx, "tcp", addr)
			return err
		}, func() {
			if raw != nil {
				_ = raw.Close()
			}
		})
	})
	if err != nil {
		return nil, err
	}
	l.Conn = raw
	if rc.cfg.TLS != nil {
		t := tls.Client(raw, rc.cfg.TLS(addr))
		err = rc.cfg.ExplainTLS(l.within(ctx, t.HandshakeContext))
		l.Conn = t
	}
	l.Reader = bufio.NewReaderSize(l.Conn, 4096)
	if err == nil {
		err = l.within(ctx, func(context.Context) error { return rc.authenticate(l, l.Reader) })
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func (rc *RESPClient) authenticate(c io.Writer, r *bufio.Reader) error {
	rc.mu.Lock()
	user, password := rc.current.Username, rc.current.Password
	rc.mu.Unlock()
	if rc.cfg.Fetch == nil {
		user, password = rc.cfg.Credentials()
	}
	if password == "" {
		return nil
	}
	auth := []string{"AUTH", password}
	if user != "" {
		auth = []string{"AUTH", user, password}
	}
	if err := resp.Write(c, auth); err != nil {
		return err
	}
	reply, err := resp.Read(r)
	if err != nil {
		return err
	}
	if refused, ok := reply.(resp.Error); ok {
		return rc.denied(refused)
	}
	return nil
}

// Denied is a refusal of the credentials: trying again does not mend it.
type Denied struct {
	reply error
	hint  string
}

func (e Denied) Error() string { return e.reply.Error() + "; check " + e.hint }
func (e Denied) Unwrap() error { return e.reply }

func (rc *RESPClient) denied(reply resp.Error) error {
	rc.mu.Lock()
	rc.have = false // what rotates is fetched again
	rc.mu.Unlock()
	return Denied{fault.WithoutArguments(reply), rc.cfg.Hint}
}

// Refused explains an error reply to a command: a server that wants a password
// says so only there, when none was sent.
func (rc *RESPClient) Refused(reply resp.Error) error {
	switch kind, _ := fault.ClassifyReply(string(reply)); kind {
	case fault.KindAuth:
		return rc.denied(reply)
	case fault.KindPermission:
		return fmt.Errorf("%w; grant the user this command", reply)
	}
	return fault.WithoutArguments(reply)
}

// Fetch gets credentials where they rotate and those at hand are used up. It
// is apart from the exchanges, which are short, and leaves a function behind
// that does not hear its context.
func (rc *RESPClient) Fetch(ctx context.Context) error {
	rc.mu.Lock()
	fresh := rc.cfg.Fetch == nil || rc.have && (rc.current.RefreshAfter.IsZero() || time.Now().Before(rc.current.RefreshAfter))
	rc.mu.Unlock()
	if fresh {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rc.cfg.Timeout)
	defer cancel()
	var got Credentials
	err := runDetached(ctx, func() (err error) {
		got, err = rc.cfg.Fetch(ctx)
		return err
	}, func() {})
	if err == fault.ErrCallerLeft {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	if soonest := time.Now().Add(refreshAtLeast); !got.RefreshAfter.IsZero() && got.RefreshAfter.Before(soonest) {
		got.RefreshAfter = soonest
	}
	rc.mu.Lock()
	rc.current, rc.have = got, true
	rc.mu.Unlock()
	return nil
}
