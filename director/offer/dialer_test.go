package offer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// cannot is a data plane that fails with an error.
type cannot struct{ err error }

func (c cannot) DialServer(context.Context, string, director.ServiceKey, netip.AddrPort, uint16) (net.Conn, error) {
	return nil, fmt.Errorf("connect: %w", c.err)
}

// A server that the data plane does not have is asked straight, and so is one that it
// cannot ask unless that was to be the way; whatever else fails is the server's failure.
func TestDialStraight(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	server := netip.MustParseAddrPort(listener.Addr().String())
	for _, c := range []struct {
		err      error
		via      realserver.CheckVia
		straight bool
	}{
		{director.ErrUnsupported, realserver.ViaAuto, true},
		{director.ErrUnsupported, realserver.ViaVirtual, false},
		{director.ErrNotFound, realserver.ViaAuto, true},
		{director.ErrNotFound, realserver.ViaVirtual, true},
		{io.ErrUnexpectedEOF, realserver.ViaAuto, false},
	} {
		for _, port := range []uint16{0, server.Port()} {
			address := server
			if port != 0 {
				address = netip.AddrPortFrom(server.Addr(), 1)
			}
			conn, err := dialServer(t.Context(), cannot{c.err}, c.via, "tcp", director.ServiceKey{}, address, port)
			if c.straight != (err == nil) || err != nil && !errors.Is(err, c.err) {
				t.Errorf("%v, via %v, port %d: %v; want straight: %v", c.err, c.via, port, err, c.straight)
			}
			if err == nil {
				conn.Close()
			}
		}
	}
}
