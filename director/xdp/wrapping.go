package xdp

import (
	"fmt"
	"net/netip"

	"github.com/shunt-lb/shunt/director/xdp/nexthop"
	"github.com/shunt-lb/shunt/realserver"
)

// outerSource is where outer headers to the server come from: what is configured for
// its family, or what the route says; invalid if neither does.
func (o Options) outerSource(server netip.Addr, r nexthop.Resolution) netip.Prefix {
	for _, p := range o.TunnelSources {
		if p.Addr().Is4() == server.Is4() {
			return p.Masked()
		}
	}
	if r.Source.IsValid() && r.Source.Is4() == server.Is4() {
		return host(r.Source)
	}
	return netip.Prefix{}
}

// settleTunnel gives the server the tunnel of its terms, written before the server
// names it; the reason if it can have none. Old connections by tunnel keep the one they
// have when the method is another. Called with mu held.
func (d *Dataplane) settleTunnel(s *server) string {
	if s.method != realserver.Tunnel {
		return ""
	}
	next, reason := uint32(0), ""
	if s.source.IsValid() {
		var err error
		t := tunnel{address: s.address.Addr(), options: s.tunnelOptions, source: s.source}
		if next, err = d.tunnels.acquire(d.plane, t); err != nil {
			reason = err.Error()
		}
	} else {
		reason = fmt.Sprintf("no address of this host to send tunnelled packets to %s from: set tunnel.sources", s.address.Addr())
	}
	d.tunnels.release(s.tunnel)
	s.tunnel = next
	return reason
}

// retunnel does that where the server's terms have changed and its route is known.
// Called with mu held.
func (d *Dataplane) retunnel(s *server) {
	if s.hop != 0 {
		s.reason = d.settleTunnel(s)
	}
}
