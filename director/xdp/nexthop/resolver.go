package nexthop

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Hop says where packets to an address leave and how their Ethernet header
// reads. It is comparable.
type Hop struct {
	Interface           int     // index of the interface they leave by
	Source, Destination [6]byte // that interface's and the neighbour's address
	MTU                 int     // bytes of an IP packet; the lesser of link's and route's
}

// Resolution is what is known about an address: a Hop or why there is none.
type Resolution struct {
	Hop    Hop
	Reason string // in words for the operator; empty: Hop is good
	// Source is the address that the host itself would send from there; invalid: not known.
	Source netip.Addr
	// Pending: the neighbour has been asked for and has not answered yet.
	Pending bool
}

// Options of New.
type Options struct {
	// Interfaces are the indexes of the interfaces that packets may leave by.
	Interfaces []int
	// Changed is called by Run, one call at a time and without a lock held,
	// whenever the resolution of a watched address is another than the last
	// one that Watch returned or Changed was given. It may come before the
	// Watch that it follows returned, and once more after Unwatch: a caller
	// that holds its own lock during Watch and Unwatch and takes it in
	// Changed sees all of them in order. Default: nobody is told.
	Changed func(netip.Addr, Resolution)
	// Log gets what an operator should see. Default: nothing is logged.
	Log *slog.Logger

	// receiveBuffer is the size of the event socket's buffer in bytes: tests
	// make it overflow. Default: 8 MiB, used only as far as needed.
	receiveBuffer int
}

func (o Options) withDefaults() Options {
	if o.Changed == nil {
		o.Changed = func(netip.Addr, Resolution) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.receiveBuffer == 0 {
		o.receiveBuffer = 8 << 20
	}
	return o
}

// Resolver resolves watched addresses. Its methods are safe for concurrent use;
// Run may run once at a time.
type Resolver struct {
	opts    Options
	events  *eventSocket
	routes  *netlink.Handle          // asks for routes, writes neighbours
	dumps   map[int]*nl.SocketHandle // reads links and neighbours
	closing atomic.Bool

	mu         sync.Mutex
	attached   map[int]struct{} // of Options.Interfaces
	links      map[int]link
	neighbours neighbourTable // of attached interfaces
	watches    map[netip.Addr]*watch
	holds      map[neighbourKey]*hold
	managed    bool // the kernel takes NTF_EXT_MANAGED
	stale      bool // routes may have changed since they were asked for
	recheck    bool // a hold waits for its neighbour to be asked for again
	reread     bool // other interfaces: neighbours must be read anew
}

// watch is a watched address.
type watch struct {
	addr  netip.Addr
	refs  int
	route route
	state Resolution
}

// New opens netlink sockets in the network namespace of the calling thread
// (lock it to its goroutine if it is not the process's) and reads links and
// neighbours. All later work happens in that namespace, from whatever thread.
// The caller runs Run and closes the Resolver.
func New(opts Options) (*Resolver, error) {
	r := &Resolver{
		opts:     opts.withDefaults(),
		dumps:    map[int]*nl.SocketHandle{},
		attached: map[int]struct{}{},
		watches:  map[netip.Addr]*watch{},
		holds:    map[neighbourKey]*hold{},
		managed:  true,
	}
	if len(opts.Interfaces) == 0 {
		return nil, errors.New("follow next hops: no interfaces given")
	}
	for _, index := range opts.Interfaces {
		r.attached[index] = struct{}{}
	}
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("follow next hops: %w", err), r.Close())
	}
	for _, index := range opts.Interfaces {
		if _, found := r.links[index]; !found {
			return nil, errors.Join(fmt.Errorf("follow next hops: there is no interface with index %d", index), r.Close())
		}
	}
	return r, nil
}

// open subscribes before it reads, so that no change falls in between.
func (r *Resolver) open() (err error) {
	if r.events, err = openEvents(r.opts.receiveBuffer); err != nil {
		return err
	}
	if r.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open a netlink socket for routes: %w", err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open a netlink socket for neighbours: %w", err)
	}
	r.dumps[unix.NETLINK_ROUTE] = &nl.SocketHandle{Socket: socket}
	return r.readAll()
}

// Watch starts resolving an address and returns what is known now, which may be
// that its neighbour is being asked for; Changed tells the rest. Watching an
// address again counts, and returns its present resolution. A link-local IPv6
// address needs its interface as zone.
func (r *Resolver) Watch(addr netip.Addr) Resolution {
	addr = addr.Unmap()
	r.mu.Lock()
	defer r.mu.Unlock()
	w, found := r.watches[addr]
	if !found {
		w = &watch{addr: addr}
		r.watches[addr] = w
		r.update(w)
		w.state = r.evaluate(w)
	}
	w.refs++
	return w.state
}

// Unwatch undoes one Watch. After the last one the neighbour is the kernel's
// again, to forget as it likes. Unwatching what is not watched does nothing.
func (r *Resolver) Unwatch(addr netip.Addr) {
	addr = addr.Unmap()
	r.mu.Lock()
	defer r.mu.Unlock()
	w, found := r.watches[addr]
	if !found {
		return
	}
	if w.refs--; w.refs == 0 {
		delete(r.watches, addr)
		r.release(w)
	}
}

// SetInterfaces replaces the interfaces that packets may leave by. Run finds out
// what that changes and tells it.
func (r *Resolver) SetInterfaces(indices []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attached = make(map[int]struct{}, len(indices))
	for _, index := range indices {
		r.attached[index] = struct{}{}
	}
	for key := range r.holds {
		if !r.isAttached(key.iface) {
			delete(r.holds, key)
		}
	}
	r.reread = true
	r.events.interrupt()
}

// Failed reports whether frames to a link-layer address on an interface are
// lost as far as the host knows: the interface is down or gone, or a neighbour
// that last had this address stopped answering and no other neighbour has it.
func (r *Resolver) Failed(iface int, mac [6]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.links[iface].up || r.neighbours.failed(iface, mac)
}

// MTU returns how many bytes an IP packet by the interface may have, 0 if it is not known.
func (r *Resolver) MTU(iface int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.links[iface].mtu
}

// Close ends Run and closes the sockets. Neighbours are left as they are, kept
// resolved by the kernel: packets flow on without us. Closing twice is harmless.
func (r *Resolver) Close() error {
	if r.closing.Swap(true) {
		return nil
	}
	var err error
	if r.events != nil {
		err = r.events.close()
	}
	if r.routes != nil {
		r.routes.Close()
	}
	for _, handle := range r.dumps {
		handle.Close()
	}
	return err
}

// evaluate says what is known about an address from what was read before.
func (r *Resolver) evaluate(w *watch) Resolution {
	l, found := r.links[w.route.iface]
	switch {
	case w.route.problem != "":
		if w.route.lost && found && !l.up {
			return Resolution{Reason: fmt.Sprintf("interface %s is down", l.name)}
		}
		return Resolution{Reason: w.route.problem}
	case !found:
		return Resolution{Reason: fmt.Sprintf("interface %d is gone", w.route.iface)}
	case !r.isAttached(w.route.iface):
		return Resolution{Reason: fmt.Sprintf("route leaves by %s, which is not one of director.interfaces", l.name)}
	case !l.up:
		return Resolution{Reason: fmt.Sprintf("interface %s is down", l.name)}
	case !l.ethernet:
		return Resolution{Reason: fmt.Sprintf("interface %s has no Ethernet address", l.name)}
	}

	key := w.route.neighbour(w.addr)
	n := r.neighbours.get(key)
	if n.usable() {
		return Resolution{Hop: Hop{
			Interface: w.route.iface, Source: l.mac, Destination: n.mac, MTU: w.route.limit(l.mtu),
		}, Source: w.route.source}
	}
	who := key.addr.String()
	if w.route.gateway.IsValid() {
		who = "gateway " + who
	}
	if n.failed {
		return Resolution{Reason: fmt.Sprintf("no answer from %s on %s (neighbour failed)", who, l.name)}
	}
	if h := r.holds[key]; h != nil && h.problem != "" {
		return Resolution{Reason: fmt.Sprintf("resolving %s on %s: %s", who, l.name, h.problem), Pending: true}
	}
	return Resolution{Reason: fmt.Sprintf("resolving %s on %s", who, l.name), Pending: true}
}

func (r *Resolver) isAttached(iface int) bool {
	_, found := r.attached[iface]
	return found
}
