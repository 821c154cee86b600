package offer

import (
	"context"
	"net"
	"net/netip"

	"github.com/shunt-lb/shunt/director"
)

// ProbeDialer is a data plane by which the director can talk to one server of a service
// as a client of the virtual address does.
type ProbeDialer interface {
	// DialServer connects to the virtual address of the service, port the service's if 0,
	// such that the packets go to the server by the way of a client's; network is tcp or
	// udp. Closing the connection ends what was set up for it.
	DialServer(ctx context.Context, network string, key director.ServiceKey, server netip.AddrPort, port uint16) (net.Conn, error)
}
