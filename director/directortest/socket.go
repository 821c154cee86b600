package directortest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// Dial connects from the namespace. The network is tcp or udp. A zero local
// address, or a zero port in it, is the kernel's choice.
func (n *Namespace) Dial(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{}
	dialer.SetMultipathTCP(false)
	if local.IsValid() {
		switch network {
		case "tcp":
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		case "udp":
			dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
		default:
			return nil, fmt.Errorf("dial %s: unknown network %q", remote, network)
		}
	}
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, remote.String())
		return err
	})
	return conn, err
}

// Listen listens for TCP in the namespace. An unspecified IPv6 address stands
// for both families.
func (n *Namespace) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = config.Listen(ctx, "tcp", addr.String())
		return err
	})
	return listener, err
}

// ListenPacket opens a UDP socket in the namespace.
func (n *Namespace) ListenPacket(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	config := net.ListenConfig{}
	var conn net.PacketConn
	err := n.Do(func() (err error) {
		conn, err = config.ListenPacket(ctx, "udp", addr.String())
		return err
	})
	return conn, err
}

// ClientOptions say how an HTTP client connects.
type ClientOptions struct {
	Source netip.Addr // of its connections; zero: the kernel's choice
	// KeepAlive lets requests share connections. By default each request has
	// its own, so that each is scheduled.
	KeepAlive Switch
}

// HTTPClient returns a client inside the namespace. It does not follow
// redirects. Call CloseIdleConnections when done with a keep-alive client.
func (n *Namespace) HTTPClient(options ClientOptions) *http.Client {
	local := netip.AddrPort{}
	if options.Source.IsValid() {
		local = netip.AddrPortFrom(options.Source, 0)
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives:   options.KeepAlive == Off,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 1024,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				remote, err := netip.ParseAddrPort(addr)
				if err != nil {
					return nil, fmt.Errorf("the lab has no names: %w", err)
				}
				return n.Dial(ctx, "tcp", local, remote)
			},
		},
	}
}
