package directortest

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf/link"
)

// Shape is how the director is connected.
type Shape string

// The shapes.
const (
	// TwoArmed: the director has a link to the client, eth0, and one to each
	// server, eth1 and up. Packets leave by another link than they came.
	TwoArmed Shape = "two-armed"
	// OneArmed: client, director and servers share one bridge. Packets leave by
	// the director's only link, eth0, on which they came. Replies from a
	// virtual address go from server to client directly (DR), all others
	// through the director (NAT).
	OneArmed Shape = "one-armed"
	// Routed: as one-armed, but the client is behind a router, and so is the last
	// server: Lab.Router and Lab.Far, which can be told of a small MTU beyond them
	// (SetPathMTU). Servers send replies from a virtual address by Router, all else
	// by the director.
	Routed Shape = "routed"
)

// Topology describes a lab. The zero value is two-armed with two servers and
// one client address.
type Topology struct {
	Shape   Shape        // default TwoArmed
	Servers int          // real servers, at most 200; default 2
	Clients int          // addresses of the client per family, at most 50000; default 1
	VIPs    []netip.Addr // virtual addresses; default VIP4 and VIP6
	MTU     int          // of every link; default 1500
	// Forwarding makes the director's kernel route. Off, a packet that the data
	// plane leaves to the stack goes nowhere, so that a test cannot pass by
	// accident. In two-armed DR the replies need it.
	Forwarding Switch
	// Standby: a second director on the bridge, of a one-armed lab, that can take over.
	Standby bool
}

// The default virtual addresses (RFC 5737 and RFC 3849: documentation).
var (
	VIP4 = netip.MustParseAddr("192.0.2.10")
	VIP6 = netip.MustParseAddr("2001:db8::10")
)

func (t Topology) withDefaults() (Topology, error) {
	if t.Shape == "" {
		t.Shape = TwoArmed
	}
	if t.Servers == 0 {
		t.Servers = 2
	}
	if t.Clients == 0 {
		t.Clients = 1
	}
	if t.VIPs == nil {
		t.VIPs = []netip.Addr{VIP4, VIP6}
	}
	switch {
	case !slices.Contains([]Shape{TwoArmed, OneArmed, Routed}, t.Shape):
		return t, fmt.Errorf("unknown lab shape %q", t.Shape)
	case t.Standby && t.Shape != OneArmed:
		return t, fmt.Errorf("a %s lab has no standby director", t.Shape)
	case t.Servers < 1 || t.Servers > 200:
		return t, fmt.Errorf("%d servers: a lab has 1 to 200", t.Servers)
	case t.Clients < 1 || t.Clients > 50000:
		return t, fmt.Errorf("%d client addresses: a lab has 1 to 50000", t.Clients)
	}
	return t, nil
}

// Server is a real server of a lab: a namespace whose link is eth0.
type Server struct {
	*Namespace

	Addr4, Addr6 netip.Addr
}

// Addr returns the server's address of the same family as vip.
func (s *Server) Addr(vip netip.Addr) netip.Addr {
	if vip.Is4() {
		return s.Addr4
	}
	return s.Addr6
}

// Lab is a running set of namespaces.
type Lab struct {
	Topology Topology // with defaults filled in

	Client   *Namespace // its link is eth0
	Director *Namespace
	Standby  *Namespace // nil: none; its link is eth0
	Router   *Namespace // of a routed lab: eth0 leads to the client, eth1 to the bridge
	Far      *Namespace // of a routed lab: eth0 leads to the last server, eth1 to the bridge
	Servers  []*Server

	// DirectorLinks are the director's interfaces: the client's side first.
	DirectorLinks []string
	// ClientAddrs4 and ClientAddrs6 are the client's addresses. The first is
	// what an unbound socket uses.
	ClientAddrs4, ClientAddrs6 []netip.Addr

	passing map[linkOf]link.Link // of AttachPass
	closers []func() error       // in order of creation
}

// Start builds a lab for a test and closes it at the end of the test.
func Start(t testing.TB, topology Topology) *Lab {
	t.Helper()
	Privileged(t)
	lab, err := NewLab(topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return lab
}

// NewLab builds a lab. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN. The caller
// closes it.
func NewLab(topology Topology) (*Lab, error) {
	topology, err := topology.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Lab{Topology: topology, passing: map[linkOf]link.Link{}}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("build the lab: %w", err), l.Close())
	}
	return l, nil
}

// Close ends the servers and the processes in the lab and removes it. It
// returns all errors of the way.
func (l *Lab) Close() error {
	var errs []error
	for i := len(l.closers) - 1; i >= 0; i-- {
		errs = append(errs, l.closers[i]())
	}
	l.closers = nil
	return errors.Join(errs...)
}

// AddVIP makes a further virtual address known to the servers (see Topology).
func (l *Lab) AddVIP(vip netip.Addr) error {
	for _, s := range l.Servers {
		if err := l.addVIP(s, vip); err != nil {
			return err
		}
	}
	l.Topology.VIPs = append(l.Topology.VIPs, vip)
	return nil
}

func (l *Lab) closeLater(c io.Closer) { l.closers = append(l.closers, c.Close) }
