package conn

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/madcrow-go/madcrow/internal/logonce"
)

const (
	// refreshAtLeast keeps a RefreshAfter in the past from being a storm.
	refreshAtLeast = time.Second
	// refreshAgain is when a refresh that failed is tried again.
	refreshAgain = 5 * time.Second
)

// credentialCache keeps what Config.Credentials last gave, so that a caller
// who needs a new connection does not wait for a token service.
type credentialCache struct {
	mu   sync.Mutex // held while they are fetched
	last rueidis.AuthCredentials
	have bool

	stale logonce.Reasons // why they could not be refreshed
}

// FetchCredentials asks for new ones. The prober does so before it connects.
func (ep *Endpoint) FetchCredentials(ctx context.Context) error {
	if ep.Config.Fetch == nil {
		return nil
	}
	ep.creds.mu.Lock()
	defer ep.creds.mu.Unlock()
	return ep.askCredentials(ctx)
}

func (ep *Endpoint) askCredentials(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ep.Config.ConnectTimeout)
	defer cancel()
	type answer struct {
		c   Credentials
		err error
	}
	done := make(chan answer, 1)
	addr := ep.Addr()
	go func() {
		c, err := ep.Config.Fetch(ctx, addr)
		done <- answer{c, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return a.err
		}
		if soonest := time.Now().Add(refreshAtLeast); !a.c.RefreshAfter.IsZero() && a.c.RefreshAfter.Before(soonest) {
			a.c.RefreshAfter = soonest
		}
		ep.creds.last = rueidis.AuthCredentials{Username: a.c.Username, Password: a.c.Password, RefreshAfter: a.c.RefreshAfter}
		ep.creds.have = true
		if ep.creds.stale.Clear() {
			ep.Config.Log.Info("the credentials are refreshed again")
		}
		return nil
	case <-ctx.Done(): // also of a function that does not hear it
		return ctx.Err()
	}
}

// credentials serves the client, for a new connection or to refresh an old
// one. A refresh that fails is no reason to end a connection that works.
func (ep *Endpoint) credentials(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	ep.creds.mu.Lock()
	defer ep.creds.mu.Unlock()
	c := &ep.creds
	if c.have && (c.last.RefreshAfter.IsZero() || time.Now().Before(c.last.RefreshAfter)) {
		return c.last, nil
	}
	err := ep.askCredentials(ep.Life)
	if err != nil && c.have {
		if c.stale.First(err) {
			ep.Config.Log.Warn("the credentials could not be refreshed", "reason", err)
		}
		c.last.RefreshAfter = time.Now().Add(refreshAgain)
		return c.last, nil
	}
	return c.last, err
}
