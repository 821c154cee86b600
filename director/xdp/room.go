package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// room is a network namespace without a name, and the thread that is in it. It ends
// with the process: so does its end of a link, and with that the other one.
type room struct {
	jobs  chan func() // run one after another on the thread
	ended chan struct{}
	file  *os.File
	route *netlink.Handle
}

// openRoom makes one; that needs CAP_SYS_ADMIN. What it is used for later does not.
func openRoom() (*room, error) {
	r := &room{jobs: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go onOwnThread(func() {
		err := r.enter()
		ready <- err
		for {
			select {
			case job := <-r.jobs:
				job()
			case <-r.ended:
				return
			}
		}
	}, make(chan struct{}))
	if err := <-ready; err != nil {
		r.close()
		return nil, fmt.Errorf("make a network namespace (needs CAP_SYS_ADMIN at the start): %w", err)
	}
	return r, nil
}

// onOwnThread runs f on a thread that ends with it. The main thread cannot end, and is
// passed over.
func onOwnThread(f func(), locked chan<- struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		elsewhere := make(chan struct{})
		go onOwnThread(f, elsewhere)
		<-elsewhere // while this one holds the main thread, the next gets another
		runtime.UnlockOSThread()
		return
	}
	close(locked)
	f() // returning while locked ends the thread
}

func (r *room) enter() (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if r.file, err = os.Open(threadNamespace); err != nil {
		return err
	}
	r.route, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	return err
}

// do runs f on the thread; errClosed if the room is closed: connections may still be made
// then.
func (r *room) do(f func() error) error {
	result := make(chan error)
	select {
	case r.jobs <- func() { result <- f() }:
		return <-result
	case <-r.ended:
		return errClosed
	}
}

func (r *room) close() {
	close(r.ended)
	if r.route != nil {
		r.route.Close()
	}
	if r.file != nil {
		r.file.Close()
	}
}

const (
	// roomLink is the name of the link in the room, outerLink the pattern of the names of
	// the other end, of which the kernel takes the first that is free: that of a daemon
	// before may be going.
	roomLink  = "eth0"
	outerLink = "shunt-probe%d"
	// tcpReuse lets a port be used again while its last connection waits for stray
	// segments, as timestamps tell them apart (Documentation/networking/ip-sysctl.rst).
	tcpReuse = "/proc/sys/net/ipv4/tcp_tw_reuse"
)

// connect links the room to the namespace of the handle, and has all its packets go
// there. It returns the index of that end.
func (r *room) connect(outside *netlink.Handle) (index int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outerLink
	err = outside.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: roomLink, PeerNamespace: netlink.NsFd(r.file.Fd())})
	if err != nil {
		return 0, fmt.Errorf("add a veth pair: %w", err)
	}
	inner, err := r.route.LinkByName(roomLink)
	if err != nil {
		return 0, fmt.Errorf("find the link in the network namespace: %w", err)
	}
	outer := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: inner.Attrs().ParentIndex}}
	defer func() {
		if err != nil {
			err = errors.Join(err, outside.LinkDel(outer))
		}
	}()
	loopback, err := r.route.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("find lo in the network namespace: %w", err)
	}
	err = r.do(func() error {
		return errors.Join(os.WriteFile(tcpReuse, []byte("1"), 0), setFeatures(roomLink))
	})
	if err != nil {
		return 0, fmt.Errorf("set up the network namespace: %w", err)
	}
	const noAddress = 1 // kernel: include/uapi/linux/if_link.h, IN6_ADDR_GEN_MODE_NONE
	for _, err := range []error{
		outside.LinkSetIP6AddrGenMode(outer, noAddress),
		r.route.LinkSetIP6AddrGenMode(inner, noAddress),
		// Packets need no neighbour then: the fast path takes them all, and what it passes
		// is for another host.
		r.route.LinkSetARPOff(inner),
		r.route.LinkSetUp(loopback), r.route.LinkSetUp(inner), outside.LinkSetUp(outer),
	} {
		if err != nil {
			return 0, fmt.Errorf("set up the link to the network namespace: %w", err)
		}
	}
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		route := &netlink.Route{LinkIndex: inner.Attrs().Index, Dst: ipNet(all), Scope: netlink.SCOPE_LINK}
		if all.Addr().Is6() {
			route.Scope = netlink.SCOPE_UNIVERSE
		}
		err := r.route.RouteReplace(route)
		if err != nil && !(all.Addr().Is6() && errors.Is(err, unix.EOPNOTSUPP)) { // a kernel without IPv6
			return 0, fmt.Errorf("route %s in the network namespace: %w", all, err)
		}
	}
	return outer.Index, nil
}

// setFeatures has a veth send whole checksums, which the fast path takes for such, and
// take in what XDP redirects to it, which GRO brings about (kernel: drivers/net/veth.c,
// veth_set_features).
func setFeatures(name string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open a socket for ethtool: %w", err)
	}
	defer e.Close()
	if err := e.Change(name, map[string]bool{"tx-checksum-ip-generic": false, "rx-gro": true}); err != nil {
		return fmt.Errorf("set features of %s: %w", name, err)
	}
	return nil
}

// add gives the room an address; one that is there stays.
func (r *room) add(a netip.Addr) error {
	loopback, err := r.route.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in the network namespace: %w", err)
	}
	address := &netlink.Addr{IPNet: ipNet(host(a))}
	if a.Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	if err := r.route.AddrReplace(loopback, address); err != nil {
		return fmt.Errorf("add %s to the network namespace: %w", a, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
