package madcrowtest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/madcrow-go/madcrow"
)

// Proxied is Config with a faulty wire before every server and Sentinel. The
// addresses stay the real ones, which Sentinels give out as well;
// Config.Dialer leads each to its proxy, and dials no other address. proxies
// holds the proxies by real address, [Server.Addr]. The servers themselves
// reach one another without.
func (s *SentinelSet) Proxied(t testing.TB) (cfg madcrow.Config, proxies map[string]*Proxy) {
	t.Helper()
	return proxied(t, s.Config(), slices.Concat(s.nodes, s.sentinels))
}

// Proxied is Config with a faulty wire before every node. The addresses stay
// the real ones, to which nodes redirect as well; Config.Dialer leads each to
// its proxy, and dials no other address. proxies holds the proxies by real
// address, [Server.Addr]. The nodes themselves reach one another without.
func (c *Cluster) Proxied(t testing.TB) (cfg madcrow.Config, proxies map[string]*Proxy) {
	t.Helper()
	return proxied(t, c.Config(), c.nodes)
}

func proxied(t testing.TB, cfg madcrow.Config, nodes []*Server) (madcrow.Config, map[string]*Proxy) {
	t.Helper()
	proxies := make(map[string]*Proxy, len(nodes))
	for _, n := range nodes {
		proxies[n.Addr()] = StartProxy(t, n.Addr())
	}
	through := maps.Clone(proxies) // the caller may change the other
	cfg.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		p := through[address]
		if p == nil {
			return nil, fmt.Errorf("madcrowtest: dial %s: no proxy stands before this address", address)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, p.Addr())
	}
	return cfg, proxies
}
