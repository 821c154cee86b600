package offer

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// ProbeDialer is a data plane by which the director can talk to one server of a service
// as a client of the virtual address does.
type ProbeDialer interface {
	// DialServer connects to the virtual address of the service, port the service's if 0,
	// such that the packets go to the server by the way of a client's; network is tcp or
	// udp. Closing the connection ends what was set up for it. Errors wrap
	// director.ErrUnsupported if no packet of a client's can go that way, or the data plane
	// cannot send one, and director.ErrNotFound if it does not have the server.
	DialServer(ctx context.Context, network string, key director.ServiceKey, server netip.AddrPort, port uint16) (net.Conn, error)
}

// dialServer connects by d, and straight to the server's address where the data plane
// does not have it, as it was withdrawn: else it would never be back. So it does where
// the way of clients was not asked for by name and cannot be gone.
func dialServer(ctx context.Context, d ProbeDialer, via realserver.CheckVia, network string, key director.ServiceKey, server netip.AddrPort, port uint16) (net.Conn, error) {
	c, err := d.DialServer(ctx, network, key, server, port)
	if !errors.Is(err, director.ErrNotFound) && (via != realserver.ViaAuto || !errors.Is(err, director.ErrUnsupported)) {
		return c, err
	}
	if port != 0 {
		server = netip.AddrPortFrom(server.Addr(), port)
	}
	straight := net.Dialer{KeepAlive: -1}
	return straight.DialContext(ctx, network, server.String())
}
