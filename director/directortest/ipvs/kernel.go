package ipvs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// Kernel is a namespace with an IPVS of its own and a wire to it. Its methods
// fail the test where the kernel refuses something. Not safe for concurrent use;
// several Kernels may be used at the same time.
type Kernel struct {
	t         testing.TB
	namespace *directortest.Namespace
	link      netlink.Link
	wire      *os.File
	file      int // of the wire, for reads that do not wait
	driver    *kernel.Genetlink
	neighbors map[netip.Addr]bool
	swallowed []io.Closer
	buffer    [2048]byte
}

// Addresses of the wire: virtual addresses are any of Virtual4 and Virtual6,
// servers must be in Servers4 and Servers6, all other addresses are clients'.
var (
	Virtual4 = netip.MustParsePrefix("192.0.2.0/24")
	Virtual6 = netip.MustParsePrefix("2001:db8:0:1::/64")
	Servers4 = netip.MustParsePrefix("10.0.0.0/16")
	Servers6 = netip.MustParsePrefix("fd00:2::/64")

	own4, router4 = netip.MustParseAddr("10.0.255.1"), netip.MustParseAddr("10.0.255.2")
	own6, router6 = netip.MustParseAddr("fd00:2::ffff:1"), netip.MustParseAddr("fd00:2::ffff:2")
)

// New makes a namespace whose IPVS has no services. It is gone at the end of the
// test.
func New(t testing.TB) *Kernel {
	t.Helper()
	Guest(t)
	namespace, err := directortest.NewNamespace(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{t: t, namespace: namespace, neighbors: map[netip.Addr]bool{}}
	t.Cleanup(k.Close)
	k.must(namespace.Do(k.setUp))
	return k
}

// Close ends the namespace before the test ends. Closing twice is harmless.
func (k *Kernel) Close() {
	if k.wire != nil {
		k.must(k.wire.Close())
		k.wire = nil
	}
	for _, s := range k.swallowed {
		k.must(s.Close())
	}
	k.swallowed = nil
	if k.driver != nil {
		k.must(k.driver.Close())
	}
	k.must(k.namespace.Close())
}

// setUp runs in the namespace.
func (k *Kernel) setUp() error {
	for name, value := range map[string]string{
		"net/ipv4/ip_forward":          "1",
		"net/ipv6/conf/all/forwarding": "1",
		// Refusals are ICMP errors and must all come, each at once.
		"net/ipv4/icmp_ratelimit":     "0",
		"net/ipv4/icmp_ratemask":      "0",
		"net/ipv6/icmp/ratelimit":     "0",
		"net/ipv4/conf/all/rp_filter": "0",
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if err := k.addWire(); err != nil {
		return err
	}
	if err := k.addRoutes(); err != nil {
		return err
	}
	driver, err := kernel.OpenGenetlink(context.Background())
	k.driver = driver
	return err
}

func (k *Kernel) addWire() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "wire"
	tap := &netlink.Tuntap{
		LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Queues: 1, NonPersist: true,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE,
	}
	route := k.namespace.Netlink()
	if err := route.LinkAdd(tap); err != nil {
		return fmt.Errorf("add the tap: %w", err)
	}
	k.wire = tap.Fds[0]
	k.file = int(k.wire.Fd())
	if err := unix.SetNonblock(k.file, true); err != nil {
		return fmt.Errorf("set the tap not to block: %w", err)
	}
	link, err := route.LinkByName("wire")
	if err != nil {
		return fmt.Errorf("find the tap: %w", err)
	}
	k.link = link
	if err := route.LinkSetHardwareAddr(link, bpftest.DirectorOutside[:]); err != nil {
		return fmt.Errorf("set the tap's address: %w", err)
	}
	if err := route.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the tap up: %w", err)
	}
	return nil
}

// addRoutes makes the virtual addresses local, the servers neighbors, and all
// else behind one router.
func (k *Kernel) addRoutes() error {
	route := k.namespace.Netlink()
	loopback, err := route.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, family := range []struct {
		own, router      netip.Addr
		servers, virtual netip.Prefix
	}{{own4, router4, Servers4, Virtual4}, {own6, router6, Servers6, Virtual6}} {
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(family.own, family.servers.Bits())), Flags: unix.IFA_F_NODAD}
		if err := route.AddrAdd(k.link, address); err != nil {
			return fmt.Errorf("add address %s: %w", family.own, err)
		}
		if err := k.addNeighbor(family.router, bpftest.ClientMAC); err != nil {
			return err
		}
		for _, r := range []netlink.Route{
			{LinkIndex: loopback.Attrs().Index, Dst: ipNet(family.virtual), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST},
			{LinkIndex: k.link.Attrs().Index, Gw: family.router.AsSlice()},
		} {
			if err := route.RouteAdd(&r); err != nil {
				return fmt.Errorf("add route %s: %w", r, err)
			}
		}
	}
	return nil
}

func (k *Kernel) addNeighbor(address netip.Addr, mac bpftest.MAC) error {
	k.neighbors[address] = true
	err := k.namespace.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: k.link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac[:],
	})
	if err != nil {
		return fmt.Errorf("add neighbor %s: %w", address, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Mark gives all packets of the wire a firewall mark.
func (k *Kernel) Mark(mark uint32) {
	k.t.Helper()
	route := k.namespace.Netlink()
	index := k.link.Attrs().Index
	ingress := netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}
	k.must(route.QdiscAdd(&netlink.Ingress{QdiscAttrs: ingress}))
	edit := netlink.NewSkbEditAction()
	edit.Mark = &mark
	k.must(route.FilterAdd(&netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: ingress.Handle, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{edit},
	}))
}

// swallow lets the stack take datagrams to the port: what IPVS leaves to it is not
// answered then as what IPVS refuses is.
func (k *Kernel) swallow(port uint16) {
	k.t.Helper()
	k.must(k.namespace.Do(func() error {
		s, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err == nil {
			k.swallowed = append(k.swallowed, s)
		}
		return err
	}))
}

// Set writes one of IPVS's parameters: "sloppy_tcp".
func (k *Kernel) Set(name string, value int) {
	k.t.Helper()
	k.must(k.namespace.Sysctl("net/ipv4/vs/"+name, fmt.Sprint(value)))
}

// Frame is a packet that the kernel sent.
type Frame struct {
	To    bpftest.MAC // ServerMAC's of a server, bpftest.ClientMAC for the clients
	Bytes []byte
}

// Send puts a frame on the wire and returns what the kernel sent for it, which
// has all been done when it returns. Link-local chatter is left out.
func (k *Kernel) Send(packet bpftest.Packet) []Frame {
	k.t.Helper()
	packet.Source, packet.Destination = bpftest.ClientMAC, bpftest.DirectorOutside
	return k.SendBytes(packet.Bytes())
}

// SendBytes is Send for a frame that no Packet can be; the addresses of Ethernet
// are as Send sets them.
func (k *Kernel) SendBytes(frame []byte) []Frame {
	k.t.Helper()
	k.drain() // what the kernel sent by itself meanwhile
	if _, err := unix.Write(k.file, frame); err != nil {
		k.t.Fatalf("write to the wire: %v", err)
	}
	return k.drain()
}

func (k *Kernel) drain() []Frame {
	k.t.Helper()
	var frames []Frame
	for {
		n, err := unix.Read(k.file, k.buffer[:])
		if err == unix.EAGAIN {
			return frames
		}
		if err != nil {
			k.t.Fatalf("read from the wire: %v", err)
		}
		f := Frame{Bytes: bytes.Clone(k.buffer[:n])}
		copy(f.To[:], f.Bytes)
		if f.To[0]&1 == 0 { // neither broadcast nor multicast
			frames = append(frames, f)
		}
	}
}

// ServerMAC is the link address that frames to the server have.
func ServerMAC(server netip.Addr) bpftest.MAC {
	last := server.AsSlice()
	return bpftest.MAC{2, 0, 0, 2, last[len(last)-2], last[len(last)-1]}
}

func (k *Kernel) must(err error) {
	if err != nil {
		k.t.Helper()
		k.t.Fatal(err)
	}
}

// IsPortUnreachable reports whether the frame is that ICMP error.
func (f Frame) IsPortUnreachable() bool {
	const ethernet, ip4, ip6 = 14, 20, 40
	b := f.Bytes
	switch {
	case len(b) > ethernet+ip4+1 && b[12] == 0x08 && b[13] == 0x00:
		return b[ethernet+9] == unix.IPPROTO_ICMP && b[ethernet+ip4] == 3 && b[ethernet+ip4+1] == 3 // RFC 792
	case len(b) > ethernet+ip6+1 && b[12] == 0x86 && b[13] == 0xdd:
		return b[ethernet+6] == unix.IPPROTO_ICMPV6 && b[ethernet+ip6] == 1 && b[ethernet+ip6+1] == 4 // RFC 4443 §3.1
	default:
		return false
	}
}

// Release returns the kernel's release, as uname -r prints it.
func Release(t testing.TB) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:])
}
