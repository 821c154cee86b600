package xdp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/probe"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

const (
	// probeTries is how many ports are tried that somebody else has a connection at.
	probeTries = 8
	// probeLinger is how long a closed TCP connection keeps its entry: its ends take
	// leave of each other by it.
	probeLinger = time.Second
	// probeLasts is how long an entry lasts that no packet comes by, if its state's
	// timeout is not shorter.
	probeLasts = time.Minute
)

// DialServer connects to the service's virtual address, the first one of several, and to
// its port or, of a service of several ports, the one that is named, such that the
// packets go to the server by the way of a client's, and the answers come back by it. A
// server has to be one that the data plane has, with whatever weight. Access lists,
// guards and limits are not asked. The connection is one of the server's as long as it
// lasts: it is counted, and listed.
//
// Requires CAP_SYS_ADMIN when the Dataplane is opened, and for servers by dr and tunnel a
// kernel with tcx (6.6) or the modules sch_ingress and cls_bpf; without, errors wrap
// director.ErrUnsupported. director.ErrFull: all ports
// are in use. director.ErrNotFound: the data plane has the service without the server.
func (d *Dataplane) DialServer(ctx context.Context, network string, key director.ServiceKey, server netip.AddrPort, port uint16) (net.Conn, error) {
	c, err := d.dialServer(ctx, network, key, server, port)
	if err != nil {
		return nil, fmt.Errorf("connect to server %s of %s by the way of clients: %w", server, key, err)
	}
	return c, nil
}

func (d *Dataplane) dialServer(ctx context.Context, network string, key director.ServiceKey, server netip.AddrPort, port uint16) (net.Conn, error) {
	virtual, err := virtualOf(network, key, port)
	if err != nil {
		return nil, err
	}
	way, err := d.wayTo(ctx, key, server)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		own, err := d.probing.take(way.own)
		if err != nil {
			return nil, err
		}
		from := netip.AddrPortFrom(way.own, own)
		if err = d.loadProbe(ctx, key, way, from, virtual); err != nil {
			d.probing.endNow(own)
			if errors.Is(err, director.ErrExists) && try < probeTries {
				continue
			}
			return nil, err
		}
		conn, err := d.connectProbe(ctx, key.Protocol, way, from, virtual)
		if err != nil {
			d.probing.endNow(own)
			if errors.Is(err, unix.ENETUNREACH) && d.probing.setUpAnew() && try < probeTries {
				continue
			}
			return nil, err
		}
		return &probeConn{Conn: conn, end: func() {
			if key.Protocol == conntrack.TCP {
				d.probing.endLater(own, probeLinger)
			} else {
				d.probing.endNow(own)
			}
		}}, nil
	}
}

// probeConn is a connection that DialServer has made.
type probeConn struct {
	net.Conn
	once sync.Once
	end  func()
}

// Close closes the connection and has its entry go.
func (c *probeConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.end)
	return err
}

// virtualOf returns where a client of the service connects to.
func virtualOf(network string, key director.ServiceKey, port uint16) (netip.AddrPort, error) {
	if want := key.Protocol.String(); network != want {
		return netip.AddrPort{}, fmt.Errorf("by %s: %w: want %s, the service's", network, director.ErrUnsupported, want)
	}
	first, last := key.Ports()
	if port == 0 {
		if port = first; port == 0 {
			return netip.AddrPort{}, fmt.Errorf("%w: want a port, as the service has all", director.ErrInvalid)
		}
	}
	virtual := netip.AddrPortFrom(key.Prefix().Addr(), port)
	if !key.Contains(virtual) {
		return netip.AddrPort{}, fmt.Errorf("port %d: %w: clients' packets come to the servers from %d to %d alone", port, director.ErrUnsupported, first, last)
	}
	return virtual, nil
}

// probeWay is how packets of the director's own get to a server.
type probeWay struct {
	server  netip.AddrPort
	index   uint32
	method  realserver.Method
	own     netip.Addr   // they come from, of the virtual address's family
	locals  []netip.Addr // by fullnat: what the server may be shown instead
	isQuiet bool         // the fast path does not see what it answers
}

// wayTo returns the way to a server of the service.
func (d *Dataplane) wayTo(ctx context.Context, key director.ServiceKey, server netip.AddrPort) (probeWay, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return probeWay{}, err
	}
	svc, err := d.model.live(key)
	if err != nil {
		// Not wrapped: that would say that the server was withdrawn.
		return probeWay{}, errors.New("the data plane does not have the service")
	}
	s := svc.members[server]
	switch {
	case s == nil || s.removed:
		return probeWay{}, fmt.Errorf("the data plane does not have it: %w", director.ErrNotFound)
	case s.method == realserver.Local:
		return probeWay{}, fmt.Errorf("method local: %w: clients' packets are this host's own", director.ErrUnsupported)
	case !s.isReachable():
		return probeWay{}, fmt.Errorf("no next hop: %s", s.reason)
	}
	way := probeWay{
		server: server, index: s.index, method: s.method, own: s.own,
		isQuiet: s.method == realserver.DR || s.method == realserver.Tunnel,
	}
	if s.method == realserver.FullNAT {
		for _, l := range d.locals.held {
			if l.offered && l.address.Is6() == server.Addr().Is6() {
				way.locals = append(way.locals, l.address)
			}
		}
		if way.locals == nil {
			return probeWay{}, errors.New("method fullnat: there is no local address of the server's family")
		}
	}
	if v6 := key.Address.Addr().Is6(); !way.own.IsValid() || way.own.Is6() != v6 {
		if way.own, err = d.ownAddress(s.interfaceIndex, v6); err != nil {
			return probeWay{}, err
		}
	}
	return way, nil
}

// ownAddress returns an address of the interface's that others can answer to.
func (d *Dataplane) ownAddress(index int, v6 bool) (netip.Addr, error) {
	link, err := d.links.LinkByIndex(index)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find interface %d: %w", index, err)
	}
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	addresses, err := d.links.AddrList(link, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read the addresses of %s: %w", link.Attrs().Name, err)
	}
	for i := range addresses {
		if a, ok := netip.AddrFromSlice(addresses[i].IP); ok && addresses[i].Scope == unix.RT_SCOPE_UNIVERSE {
			return a.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no address of the service's family to connect from", link.Attrs().Name)
}

// loadProbe makes the entry of a connection from the room to the server. Errors wrap
// director.ErrExists if somebody has one by these addresses and ports.
func (d *Dataplane) loadProbe(ctx context.Context, key director.ServiceKey, way probeWay, from, virtual netip.AddrPort) error {
	c := conntrack.Connection{
		Protocol: key.Protocol, Client: from, Virtual: virtual, Server: way.server, Method: way.method.String(),
		State: conntrack.SynRecv, Expires: probeLasts,
	}
	if key.Protocol == conntrack.UDP {
		c.State = conntrack.UDPNormal
	}
	if len(way.locals) > 0 {
		first, last := d.opts.LocalFirst, d.opts.LocalLast
		c.Local = netip.AddrPortFrom(way.locals[rand.IntN(len(way.locals))], first+uint16(rand.IntN(int(last-first)+1)))
	}
	l := loader{
		Dataplane: d, key: key, isProven: func(*conntrack.Connection) bool { return true }, isBound: true,
		report: director.LoadReport{Skipped: map[string]uint64{}},
	}
	err := l.load(ctx, func(yield func(conntrack.Connection) bool) { yield(c) })
	switch {
	case err != nil:
		return fmt.Errorf("make its entry: %w", err)
	case l.report.Loaded == 1:
		entry := bpf.Entry{Source: from, Destination: virtual, Protocol: uint8(key.Protocol)}
		v6, args := entry.RemoveArgs()
		d.probing.note(from.Port(), v6, args)
		return nil
	case l.report.Known > 0 || l.report.Skipped[skipCollision] > 0:
		return fmt.Errorf("make its entry: %w: another connection has these ports", director.ErrExists)
	}
	for reason := range l.report.Skipped {
		return fmt.Errorf("make its entry: %s", reason)
	}
	return errors.New("make its entry: the program has not tried")
}

// connectProbe connects by the entry, and makes sure that it was by the entry: another
// server would tell nothing of this one.
func (d *Dataplane) connectProbe(ctx context.Context, protocol conntrack.Protocol, way probeWay, from, virtual netip.AddrPort) (net.Conn, error) {
	if way.isQuiet {
		if err := d.probing.await(from.Port(), probe.Answers{Protocol: uint8(protocol), From: virtual, To: from}); err != nil {
			return nil, err
		}
	}
	conn, err := d.probing.room.dial(ctx, protocol, from, virtual)
	if err != nil {
		return nil, err
	}
	if err := d.checkProbe(protocol, way, from, virtual); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (d *Dataplane) checkProbe(protocol conntrack.Protocol, way probeWay, from, virtual netip.AddrPort) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	_, args, err := d.explain(director.Question{Protocol: protocol, Client: from, Virtual: virtual})
	if err != nil {
		return fmt.Errorf("ask the programs about its entry: %w", err)
	}
	if args.Server != way.index || args.DecidedBy != uint32(bpf.KernelDeciderDECIDED_BY_CONNECTION) {
		return errors.New("its entry was ended meanwhile")
	}
	return nil
}

// dial connects a socket of the room's. Only making it takes the room's thread.
func (r *room) dial(ctx context.Context, protocol conntrack.Protocol, from, to netip.AddrPort) (net.Conn, error) {
	kind := unix.SOCK_STREAM
	if protocol == conntrack.UDP {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd := -1
	err := r.do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), to.String())
	defer file.Close()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return nil, fmt.Errorf("bind to %s: %w", from, err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		if !errors.Is(err, unix.EINPROGRESS) {
			return nil, fmt.Errorf("connect from %s: %w", from, err)
		}
		if err := connected(ctx, file); err != nil {
			return nil, fmt.Errorf("connect from %s: %w", from, err)
		}
	}
	return net.FileConn(file)
}

// connected waits for the end of the socket's handshake.
func connected(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			result = err
		case code != 0:
			result = unix.Errno(code)
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, result)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
