package role

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver/agent"
)

// ErrNoRoute is of a host that no interface is named of, and none can be found.
var ErrNoRoute = errors.New("find the interface that directors' packets come by: no route leads to directors or elsewhere")

// snapshot is the host as it was read.
type snapshot struct {
	links  []linkState
	locals []netip.Prefix // that local routes beside those of addresses are for
	routes []route        // of the main table
	// knob reads a setting below net/ipv4/conf; ok is false if there is none.
	knob func(iface, name string) (value int, ok bool)
	// decap is what runs, wanted what a role with tunnels has to have.
	decap  decap.State
	wanted decapsulation
	// listening are sockets by "tcp" and "udp"; read for a role that has ports.
	listening map[string][]netip.AddrPort
}

type linkState struct {
	name      string
	index     int
	mtu       int
	own       bool // of the host alone: loopback or dummy
	loopback  bool
	up        bool
	addresses []netip.Prefix
}

// look reads what the role's judges want, and fills in the role's interfaces.
func look(r *Role) (*snapshot, error) {
	s := &snapshot{knob: readKnob}
	if err := s.readLinks(); err != nil {
		return nil, err
	}
	if err := s.readRoutes(); err != nil {
		return nil, err
	}
	if r.has(DR) || r.tunnels() {
		if err := s.interfaces(r); err != nil {
			return nil, err
		}
	}
	if r.tunnels() {
		if err := s.readDecap(r); err != nil {
			return nil, err
		}
	}
	if len(r.Ports) > 0 {
		return s, s.readListeners()
	}
	return s, nil
}

// dump repeats a list that changed while it was read (netlink.ErrDumpInterrupted).
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 5 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

func (s *snapshot) readLinks() error {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list the host's interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		state := linkState{
			name: a.Name, index: a.Index, mtu: a.MTU, loopback: a.Flags&net.FlagLoopback != 0, up: a.Flags&net.FlagUp != 0,
		}
		state.own = state.loopback || l.Type() == "dummy"
		addresses, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			return fmt.Errorf("list the addresses of %s: %w", a.Name, err)
		}
		for _, address := range addresses {
			if p, ok := prefixOf(address.IPNet); ok {
				state.addresses = append(state.addresses, p)
			}
		}
		s.links = append(s.links, state)
	}
	return nil
}

func (s *snapshot) readRoutes() error {
	list := func(filter netlink.Route, mask uint64) ([]netlink.Route, error) {
		return dump(func() ([]netlink.Route, error) { return netlink.RouteListFiltered(netlink.FAMILY_ALL, &filter, mask) })
	}
	local, err := list(netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return fmt.Errorf("list the host's local routes: %w", err)
	}
	for _, l := range local {
		if p, ok := prefixOf(l.Dst); ok && !p.IsSingleIP() {
			s.locals = append(s.locals, p)
		}
	}
	main, err := list(netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return fmt.Errorf("list the host's routes: %w", err)
	}
	for _, m := range main {
		if r, ok := s.routeOf(m); ok {
			s.routes = append(s.routes, r)
		}
	}
	return nil
}

// routeOf is a route of netlink's; false if it leads nowhere.
func (s *snapshot) routeOf(m netlink.Route) (route, bool) {
	to, ok := prefixOf(m.Dst)
	if !ok {
		return route{}, false
	}
	r := route{to: to, metric: m.Priority}
	hops := []*netlink.NexthopInfo{{LinkIndex: m.LinkIndex, Gw: m.Gw, Via: m.Via}}
	if len(m.MultiPath) > 0 {
		hops = m.MultiPath
	}
	for _, hop := range hops {
		gateway := hop.Gw
		if via, ok := hop.Via.(*netlink.Via); ok {
			gateway = via.Addr
		}
		if a, ok := netip.AddrFromSlice(gateway); ok {
			r.gateways = append(r.gateways, a.Unmap())
		}
		for _, l := range s.links {
			if l.index == hop.LinkIndex && r.iface == "" {
				r.iface = l.name
			}
		}
	}
	return r, true
}

// interfaces fills in the role's, and wants them to be there.
func (s *snapshot) interfaces(r *Role) error {
	for _, name := range r.Interfaces {
		if s.link(name) == nil {
			return fmt.Errorf("%w: %q", agent.ErrNoInterface, name)
		}
	}
	if len(r.Interfaces) > 0 {
		return nil
	}
	var towards []netip.Prefix
	for _, p := range r.Directors {
		towards = append(towards, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	if len(towards) == 0 {
		towards = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	for _, p := range towards {
		best, found := s.best(p)
		if link := s.link(best.iface); found && link != nil && !link.own && !slices.Contains(r.Interfaces, best.iface) {
			r.Interfaces = append(r.Interfaces, best.iface)
		}
	}
	if len(r.Interfaces) == 0 {
		return ErrNoRoute
	}
	return nil
}

func (s *snapshot) readDecap(r *Role) error {
	var err error
	if s.decap, err = decap.Read(r.PinDir); err != nil {
		return err
	}
	c, err := agent.Decap{Virtual: r.VIPs, From: r.Directors}.Config()
	if err != nil {
		return err
	}
	s.wanted = decapsulationOf(c)
	for _, t := range r.types() {
		s.wanted.Types = append(s.wanted.Types, t.String())
	}
	for _, name := range r.Interfaces {
		s.wanted.Interfaces = append(s.wanted.Interfaces, decapInterface{Name: name})
	}
	s.wanted.Ports = r.GUEPorts
	if len(s.wanted.Ports) == 0 {
		s.wanted.Ports = []uint16{decap.DefaultPort}
	}
	return nil
}

// States of sockets that take what comes from anyone (kernel:
// include/net/tcp_states.h); a UDP socket that is bound and not connected is in TCP_CLOSE.
const (
	stateClose  = 7  // TCP_CLOSE
	stateListen = 10 // TCP_LISTEN
)

// readListeners reads the calling thread's namespace: /proc/net is the main thread's.
func (s *snapshot) readListeners() error {
	proc, err := procfs.NewFS("/proc/thread-self")
	if err != nil {
		return fmt.Errorf("list the host's sockets: %w", err)
	}
	s.listening = map[string][]netip.AddrPort{}
	add := func(network string, want, state uint64, ip net.IP, port uint64) {
		if a, ok := netip.AddrFromSlice(ip); ok && state == want {
			s.listening[network] = append(s.listening[network], netip.AddrPortFrom(a.Unmap(), uint16(port)))
		}
	}
	//lint:ignore SA1019 /proc has them where the kernel's module for netlink's (tcp_diag) is missing
	for _, read := range []func() (procfs.NetTCP, error){proc.NetTCP, proc.NetTCP6} {
		sockets, err := read()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // A host without IPv6 has not the second.
			return fmt.Errorf("list the host's TCP sockets: %w", err)
		}
		for _, l := range sockets {
			add("tcp", stateListen, l.St, l.LocalAddr, l.LocalPort)
		}
	}
	for _, read := range []func() (procfs.NetUDP, error){proc.NetUDP, proc.NetUDP6} {
		sockets, err := read()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("list the host's UDP sockets: %w", err)
		}
		for _, l := range sockets {
			add("udp", stateClose, l.St, l.LocalAddr, l.LocalPort)
		}
	}
	return nil
}

// link returns the interface of a name; nil: there is none.
func (s *snapshot) link(name string) *linkState {
	for i := range s.links {
		if s.links[i].name == name {
			return &s.links[i]
		}
	}
	return nil
}

func (s *snapshot) loopback() *linkState {
	for i := range s.links {
		if s.links[i].loopback {
			return &s.links[i]
		}
	}
	return nil
}

// has reports whether an interface has the address.
func (s *snapshot) has(a netip.Addr) bool {
	return slices.ContainsFunc(s.links, func(l linkState) bool {
		return slices.ContainsFunc(l.addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// effective is what counts of a setting that is the greater of conf.all and the
// interface's (kernel: Documentation/networking/ip-sysctl.rst).
func (s *snapshot) effective(iface, name string) (int, bool) {
	all, ok := s.knob("all", name)
	own, hasOwn := s.knob(iface, name)
	return max(all, own), ok && hasOwn
}

func readKnob(iface, name string) (int, bool) {
	text, err := os.ReadFile(filepath.Join("/proc/sys", knobPath(iface, name)))
	if err != nil {
		return 0, false
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return value, err == nil
}

// knobPath is a setting's path below /proc/sys: names of interfaces may have dots.
func knobPath(iface, name string) string { return "net/ipv4/conf/" + iface + "/" + name }

// prefixOf is the address as it is, with its length; false: there is none.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}
