package madcrow

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/madcrow-go/madcrow/internal/resp"
)

// asker makes single exchanges with servers, beside the connections that carry
// calls: with Sentinels, and with cluster nodes about their map. All of it
// ends with its context.
type asker struct {
	tls         *tls.Config // without a name; nil: none
	dial        func(ctx context.Context, network, addr string) (net.Conn, error)
	credentials func(ctx context.Context, addr string) (user, password string, err error)
	hint        string // where the credentials come from
}

// exchange sends commands and returns their replies.
func (a *asker) exchange(ctx context.Context, addr string, commands ...[]string) ([]any, error) {
	c, r, err := a.open(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	if err := resp.Write(c, commands...); err != nil {
		return nil, err
	}
	replies := make([]any, len(commands))
	for i := range replies {
		if replies[i], err = resp.Read(r); err != nil {
			if ctx.Err() != nil {
				err = errSilent
			}
			return nil, err
		}
	}
	return replies, nil
}

// open connects and authenticates.
func (a *asker) open(ctx context.Context, addr string) (net.Conn, *bufio.Reader, error) {
	raw, err := a.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) })()
	c := raw
	if a.tls != nil {
		t := tls.Client(raw, named(a.tls, addr))
		err = t.HandshakeContext(ctx)
		c = t
	}
	r := bufio.NewReaderSize(c, 4096)
	if err == nil {
		err = a.authenticate(ctx, c, r, addr)
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = errSilent
		}
		return nil, nil, err
	}
	return c, r, nil
}

func (a *asker) authenticate(ctx context.Context, c net.Conn, r *bufio.Reader, addr string) error {
	user, password, err := a.credentials(ctx, addr)
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
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
		return fmt.Errorf("%w; check %s", refused, a.hint)
	}
	return nil
}

// askerOf returns the one for data nodes, or for Sentinels.
func askerOf(cfg Config, sentinel bool) (*asker, error) {
	a := &asker{dial: cfg.Dialer, hint: "REDIS_USERNAME and REDIS_PASSWORD"}
	user, password := cfg.Username, cfg.Password
	var err error
	if sentinel {
		user, password = cfg.Sentinel.Username, cfg.Sentinel.Password
		a.hint = "REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"
		a.tls, err = cfg.sentinelTLSConfig("")
	} else {
		a.tls, err = cfg.tlsConfig("")
	}
	if a.dial == nil {
		a.dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	a.credentials = func(ctx context.Context, addr string) (string, string, error) {
		if cfg.Credentials == nil {
			return user, password, nil
		}
		c, err := cfg.Credentials(ctx, CredentialsRequest{Address: addr, Sentinel: sentinel})
		return c.Username, c.Password, err
	}
	return a, err
}
