package bench

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
)

// peerFlows is how many UDP flows the peers are sent: few enough for nf_conntrack
// of a machine with 1 GB, which tracks 8192 and would make each anew.
const peerFlows = 1 << 12

// Peer is what a way of forwarding takes of the whole machine, a packet, from
// the generator to the sink.
type Peer struct {
	Name string  `json:"name"`
	NS   float64 `json:"ns"` // median of the rounds; instructions in the guest
	// Net is without the generator: with a drop at the director's entry.
	Net      float64 `json:"net"`
	Rounds   int     `json:"rounds"`
	Received float64 `json:"received"` // share of the packets sent, the least of the rounds
}

// Peers sends UDP frames of 64 octets of IP through client, director and server
// in namespaces of their own, two veths in all, known flows only: the director
// drops them, Shunt rewrites them (NAT), or the kernel's nft does. It needs the
// nft program. A packet that Shunt sends ends in an XDP program, one that the
// kernel sends in a tc program: each where it comes cheapest.
func Peers(rounds, packets int) ([]Peer, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	lab, err := newLab()
	if err != nil {
		return nil, fmt.Errorf("build the peers' lab: %w", err)
	}
	defer lab.close()
	var peers []Peer
	for _, way := range []struct {
		name  string
		setUp func() (func() error, error)
	}{
		{"peers/drop/udp4", lab.drop},
		{"peers/shunt-nat/udp4", lab.shunt},
		{"peers/nft-dnat/udp4", lab.nft},
	} {
		p, err := lab.measure(way.name, way.setUp, rounds, packets)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.name, err)
		}
		p.Net = p.NS
		if len(peers) > 0 {
			p.Net -= peers[0].NS
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// lab is three namespaces in a row. Its methods run on one thread, which they
// move from one to the other.
type lab struct {
	*harness
	origin                   netns.NsHandle
	client, director, server netns.NsHandle
	c0, d0, d1, s0           netlink.Link
	plan                     BenchPlan
}

func newLab() (l *lab, err error) {
	l = &lab{origin: netns.None(), client: netns.None(), director: netns.None(), server: netns.None()}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.origin, err = netns.Get(); err != nil {
		return l, err
	}
	for _, n := range []*netns.NsHandle{&l.client, &l.server, &l.director} {
		if *n, err = netns.New(); err != nil {
			return l, err
		}
	}
	// The thread is in the director's now.
	if l.c0, l.d0, err = pair("c0", "d0", l.client); err != nil {
		return l, err
	}
	if l.s0, l.d1, err = pair("s0", "d1", l.server); err != nil {
		return l, err
	}
	for _, a := range []struct {
		link    netlink.Link
		address string
	}{{l.d0, "192.0.2.254/24"}, {l.d1, "198.51.100.254/24"}} {
		address, err := netlink.ParseAddr(a.address)
		if err == nil {
			err = netlink.AddrAdd(a.link, address)
		}
		if err != nil {
			return l, err
		}
	}
	for i := range uint32(servers) {
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: l.d1.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: offset(family4.servers, i).AsSlice(), HardwareAddr: l.s0.Attrs().HardwareAddr,
		}); err != nil {
			return l, err
		}
	}
	// The clients are behind d0.
	if err := netlink.RouteAdd(&netlink.Route{
		LinkIndex: l.d0.Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: family4.clients.AsSlice(), Mask: net.CIDRMask(8, 32)},
	}); err != nil {
		return l, fmt.Errorf("add the clients' route: %w", err)
	}
	// Of the thread's namespace.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return l, err
	}
	if l.harness, err = newHarness(nil, 1, false); err != nil {
		return l, err
	}
	w := &world{family: family4, virtual: family4.virtual, protocol: udp, connections: peerFlows}
	l.plan = newPlan(w, toService, 0, random)
	copy(l.plan.Start[:], l.d0.Attrs().HardwareAddr)
	return l, l.Outgoing.Set(uint32(l.c0.Attrs().Index))
}

// pair makes a veth with one end in the calling thread's namespace, the other in
// far, both up; it returns their state after that.
func pair(farName, nearName string, far netns.NsHandle) (farLink, nearLink netlink.Link, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nearName
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: farName, PeerNamespace: netlink.NsFd(far)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("add veth %s: %w", nearName, err)
	}
	there, err := netlink.NewHandleAt(far, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	defer there.Close()
	if nearLink, err = netlink.LinkByName(nearName); err != nil {
		return nil, nil, err
	}
	if farLink, err = there.LinkByName(farName); err != nil {
		return nil, nil, err
	}
	return farLink, nearLink, errors.Join(netlink.LinkSetUp(nearLink), there.LinkSetUp(farLink))
}

func (l *lab) close() {
	if l.harness != nil {
		l.harness.Close()
	}
	if l.origin.IsOpen() {
		// A thread that cannot go back ends with its goroutine's lock on it.
		_ = netns.Set(l.origin)
	}
	for _, n := range []*netns.NsHandle{&l.client, &l.director, &l.server, &l.origin} {
		if n.IsOpen() {
			n.Close()
		}
	}
}

// drop has the director's entry be the sink.
func (l *lab) drop() (func() error, error) { return l.attach(l.director, l.d0, l.SinkXdp) }

// shunt has the fast path forward.
func (l *lab) shunt() (func() error, error) {
	coll, err := load(worldOptions{connections4: peerFlows, connections6: 1, refresh: forever, control: []string{bpf.KernelProgShuntRoot}})
	if err != nil {
		return nil, err
	}
	hop := bpf.KernelHop{Ifindex: uint32(l.d1.Attrs().Index), Mtu: 1500}
	copy(hop.DestinationMac[:], l.s0.Attrs().HardwareAddr)
	copy(hop.SourceMac[:], l.d1.Attrs().HardwareAddr)
	_, err = newWorld(coll, family4, udp, bpf.KernelMethodMETHOD_NAT, peerFlows)
	p := putter{coll: coll, err: err}
	p.put(bpf.KernelMapHops, 1, &hop)
	p.put(bpf.KernelMapPorts, hop.Ifindex, hop.Ifindex)
	if p.err != nil {
		coll.Close()
		return nil, p.err
	}
	return l.together(
		func() (func() error, error) {
			return l.attach(l.director, l.d0, coll.Programs[bpf.KernelProgShuntRoot])
		},
		func() (func() error, error) { return l.attach(l.server, l.s0, l.SinkXdp) },
		func() (func() error, error) { return func() error { coll.Close(); return nil }, nil },
	)
}

// nft has the kernel forward: DNAT with the same service and servers.
func (l *lab) nft() (func() error, error) {
	var targets []string
	for i := range uint32(servers) {
		targets = append(targets, fmt.Sprintf("%d : %s", i, offset(family4.servers, i)))
	}
	rules := fmt.Sprintf("table ip bench {\n chain in {\n type nat hook prerouting priority -100;\n"+
		" ip daddr %s udp dport %d dnat to numgen inc mod %d map { %s } : %d\n }\n}\n",
		family4.virtual, virtualPort, servers, strings.Join(targets, ", "), serverPort)
	return l.together(
		func() (func() error, error) {
			load := exec.Command("nft", "-f", "-")
			load.Stdin = strings.NewReader(rules)
			if text, err := load.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("nft: %w: %s", err, text)
			}
			return func() error { return exec.Command("nft", "delete", "table", "ip", "bench").Run() }, nil
		},
		func() (func() error, error) { return func() error { return setGRO("d0", 0) }, setGRO("d0", 1) },
		l.sinkInTC,
	)
}

// together sets up one after the other and returns what takes all down again.
func (l *lab) together(steps ...func() (func() error, error)) (func() error, error) {
	var undo []func() error
	down := func() (err error) {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	for _, step := range steps {
		back, err := step()
		if err != nil {
			return nil, errors.Join(err, down())
		}
		undo = append(undo, back)
	}
	return down, nil
}

// attach attaches a program to an interface in the namespace.
func (l *lab) attach(where netns.NsHandle, iface netlink.Link, program *ebpf.Program) (func() error, error) {
	if err := netns.Set(where); err != nil {
		return nil, err
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: iface.Attrs().Index, Flags: link.XDPDriverMode})
	if err := errors.Join(err, netns.Set(l.director)); err != nil {
		return nil, err
	}
	return attached.Close, nil
}

// sinkInTC has packets end where s0 hands them to the stack.
func (l *lab) sinkInTC() (func() error, error) {
	there, err := netlink.NewHandleAt(l.server, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	index := l.s0.Attrs().Index
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	err = there.QdiscAdd(qdisc)
	if err == nil {
		err = there.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL,
			},
			Fd: l.SinkTc.FD(), Name: "sink", DirectAction: true,
		})
	}
	if err != nil {
		there.Close()
		return nil, fmt.Errorf("attach the sink to s0: %w", err)
	}
	return func() error {
		defer there.Close()
		return there.QdiscDel(qdisc)
	}, nil
}

// measure sends known flows; the first run makes them known.
func (l *lab) measure(name string, setUp func() (func() error, error), rounds, packets int) (p Peer, err error) {
	p = Peer{Name: name, Rounds: rounds, Received: 1}
	takeDown, err := setUp()
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, takeDown()) }()
	var costs []float64
	for round := -1; round < rounds; round++ {
		n := packets
		if round < 0 {
			n = peerFlows
		}
		cost, received, err := l.send(n)
		if err != nil {
			return p, err
		}
		if round >= 0 {
			costs, p.Received = append(costs, cost), min(p.Received, received)
		}
	}
	if p.Received < 0.99 {
		return p, fmt.Errorf("only %.1f %% of the packets arrived", 100*p.Received)
	}
	p.NS = median(costs)
	return p, nil
}

// send sends packets from c0 and returns the time each took, until the last
// arrived, and which share arrived.
func (l *lab) send(packets int) (ns, received float64, err error) {
	if err := errors.Join(l.Now.Set(&l.plan), l.Arrived.Set(&BenchArrivals{}), netns.Set(l.client)); err != nil {
		return 0, 0, err
	}
	start, err := monotonic()
	if err == nil {
		_, err = l.BenchGenerate.Run(&ebpf.RunOptions{
			Data: make([]byte, frameSize), Repeat: uint32(packets), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: 64,
		})
	}
	if err := errors.Join(err, netns.Set(l.director)); err != nil {
		return 0, 0, fmt.Errorf("send: %w", err)
	}
	var arrived BenchArrivals
	if err := errors.Join(l.Arrived.Get(&arrived), l.Now.Get(&l.plan)); err != nil {
		return 0, 0, err
	}
	if arrived.Packets == 0 {
		return math.NaN(), 0, errors.New("no packet arrived")
	}
	return float64(int64(arrived.Last)-start) / float64(packets), float64(arrived.Packets) / float64(packets), nil
}

func monotonic() (int64, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano(), err
}

// setGRO switches generic receive offload, which has a veth take frames from the
// other end (kernel: drivers/net/veth.c, veth_xdp_xmit).
func setGRO(name string, on uint32) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	value := struct{ command, data uint32 }{unix.ETHTOOL_SGRO, on}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return fmt.Errorf("switch GRO of %s: %w", name, errno)
	}
	return nil
}
