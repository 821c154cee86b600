package xdp

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/probe"
	"github.com/shunt-lb/shunt/director"
)

// probing is how the director itself connects to servers as a client does: in a room of
// its own, which has the host's address towards the server, and all of whose packets
// come in by the fast path. Each connection has an entry before its first packet, which
// names the server. What a server by nat answers finds the way back by the entry; what
// others answer, from the virtual address, the program of package probe hands over.
//
// The room is made at the start, while that may be done, and all else when it is first
// used: a director without such checks has no link more.
type probing struct {
	d    *Dataplane
	room *room
	// problem says why there is no room.
	problem error

	// mu guards all below; it is locked before Dataplane.mu or not together with it.
	mu     sync.Mutex
	closed bool
	// index is that of the link's outer end; 0: nothing is set up.
	index int
	// answers takes what comes from virtual addresses by the interfaces that it is attached
	// to, by their indexes; nil: noAnswers says why not.
	answers   *probe.Program
	attached  map[int]probe.Attached
	looked    time.Time // at what others may have done to it and the link
	noAnswers error
	closers   []io.Closer
	own       map[netip.Addr]bool // addresses of the room
	probes    map[uint16]*probed  // by the port of the room's that they have
	next      uint16              // port to try first
	refused   uint64
	trouble   string // why it could not be set up, as was logged last; "": it could
}

// probed is a connection of the room's. After its end it is kept for a while, so that
// the segments that end it on the wire still reach their ends.
type probed struct {
	v6      bool
	entry   bpf.KernelRemoveArgs
	answers *probe.Answers // nil: not awaited
	ending  *time.Timer
}

// Probing says what the director's own connections to servers take.
type Probing struct {
	Ports   int    // in use: of connections, and of such as have just ended
	Refused uint64 // connections refused because all ports were in use
}

// Probing returns what DialServer takes now.
func (d *Dataplane) Probing() Probing {
	p := d.probing
	p.mu.Lock()
	defer p.mu.Unlock()
	return Probing{Ports: len(p.probes), Refused: p.refused}
}

func openProbing(d *Dataplane) *probing {
	p := &probing{d: d, attached: map[int]probe.Attached{}, own: map[netip.Addr]bool{}, probes: map[uint16]*probed{}, next: probe.FirstPort}
	if p.room, p.problem = openRoom(); p.problem != nil {
		d.opts.Log.Info("no checks of servers by the way of clients' packets", "err", p.problem)
	}
	return p
}

// sweep removes what a daemon that was killed has left on the interfaces.
func (p *probing) sweep() {
	for _, index := range p.d.interfaceIndices() {
		if err := probe.Sweep(p.d.links, index); err != nil {
			p.d.opts.Log.Warn("what checks by the way of clients' packets have left: harmless, and replaced by the next such check", "err", err)
		}
	}
}

// take returns a port of the room's that has the address, and what it takes to hand
// back servers' answers: the link, and the program for those from virtual addresses.
func (p *probing) take(own netip.Addr) (port uint16, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, errClosed
	}
	if p.problem != nil {
		return 0, fmt.Errorf("%w: %w", director.ErrUnsupported, p.problem)
	}
	if p.index == 0 {
		err = p.setUp()
	} else {
		err = p.follow()
	}
	if err = p.unable(err); err != nil {
		return 0, err
	}
	if !p.own[own] {
		if err := p.room.add(own); err != nil {
			return 0, err
		}
		p.own[own] = true
	}
	for range 1 << 16 {
		port = p.next
		if p.next++; p.next == 0 {
			p.next = probe.FirstPort
		}
		if p.probes[port] == nil {
			p.probes[port] = new(probed)
			return port, nil
		}
	}
	p.refused++
	return 0, fmt.Errorf("all %d ports for connections to servers are in use: %w", len(p.probes), director.ErrFull)
}

// unable logs an error of setting up, once for all in a row, and has callers know that it
// is no server's. Called with mu held.
func (p *probing) unable(err error) error {
	if err == nil {
		p.trouble = ""
		return nil
	}
	if p.trouble != err.Error() {
		p.trouble = err.Error()
		p.d.opts.Log.Warn("no checks of servers by the way of clients' packets: with via: virtual they fail, without it they go to the servers' own addresses", "err", err)
	}
	return fmt.Errorf("%w: %w", director.ErrUnsupported, err)
}

// setUp makes the link and runs the programs on it and on the plane's interfaces. Called
// with mu held.
func (p *probing) setUp() (err error) {
	d := p.d
	p.index, err = p.room.connect(d.links)
	if err != nil {
		return fmt.Errorf("set up connections to servers: %w", err)
	}
	err = d.namespace.do(func() error {
		link, err := d.plane.AttachOwn(p.index, d.opts.mode())
		if err != nil {
			return err
		}
		p.closers = append(p.closers, link)
		return nil
	})
	if err == nil {
		err = p.setUpAnswers()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set up connections to servers: %w", err), p.takeDown())
	}
	return nil
}

// setUpAnswers has the answers from virtual addresses handed over. A kernel that cannot
// have that is no error: servers by nat are connected to without. Called with mu held.
func (p *probing) setUpAnswers() (err error) {
	if p.answers, err = probe.Load(); err == nil {
		err = p.attach(true)
	}
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	p.setNoAnswers(err)
	return p.closeAnswers()
}

// lookEvery is the least time between two looks at what others did to what is set up.
const lookEvery = time.Second

// follow has what is set up fit the host as it is now. Called with mu held.
func (p *probing) follow() error {
	now := time.Now()
	look := now.Sub(p.looked) >= lookEvery
	if look {
		p.looked = now
		if err := p.raise(); err != nil {
			return fmt.Errorf("set up connections to servers: %w", err)
		}
	}
	if p.answers == nil {
		return nil
	}
	return p.attach(look)
}

// raise sets the link up if somebody else has set it down, which would look as if no
// server answered. One that is not there is setUpAnew's. Called with mu held.
func (p *probing) raise() error {
	link, err := p.d.links.LinkByIndex(p.index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil || link.Attrs().RawFlags&unix.IFF_UP != 0 {
		return err
	}
	p.d.opts.Log.Warn("the link for checks by the way of clients' packets was set down by somebody else: set up again", "link", link.Attrs().Name)
	return p.d.links.LinkSetUp(link)
}

// attach attaches answers to the interfaces that the plane has now: one that went and
// came back has another index, and others may have taken it off, which look finds. One
// that is not there does not keep it from the others. Called with mu held.
func (p *probing) attach(look bool) error {
	p.d.mu.Lock()
	indices := p.d.interfaceIndices()
	p.d.mu.Unlock()
	for index, a := range p.attached {
		if !slices.Contains(indices, index) || look && !a.Holds() {
			_ = a.Close() // it is gone
			delete(p.attached, index)
		}
	}
	for _, index := range indices {
		if p.attached[index] != nil {
			continue
		}
		var a probe.Attached
		err := p.d.namespace.do(func() (err error) {
			a, err = p.answers.Attach(p.d.links, index)
			return err
		})
		switch {
		case err == nil:
			p.attached[index] = a
		case errors.Is(err, ebpf.ErrNotSupported):
			return err
		case !errors.Is(err, unix.ENODEV):
			return fmt.Errorf("set up connections to servers: %w", err)
		}
	}
	return nil
}

func (p *probing) closeAnswers() error {
	var errs []error
	for _, a := range p.attached {
		errs = append(errs, a.Close())
	}
	if p.answers != nil {
		errs = append(errs, p.answers.Close())
	}
	p.answers = nil
	clear(p.attached)
	return errors.Join(errs...)
}

// setNoAnswers notes why answers from virtual addresses are not handed over. Called with
// mu held.
func (p *probing) setNoAnswers(why error) {
	p.noAnswers = why
	p.d.opts.Log.Warn("no checks of servers by dr and tunnel by the way of clients' packets: with via: virtual they fail, without it they go to the servers' own addresses", "err", why)
}

// setUpAnew makes the link anew if somebody else has removed it; false if it is there.
// Without it the room leads nowhere, which is no fault of the servers'.
func (p *probing) setUpAnew() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.index != 0 {
		if _, err := p.d.links.LinkByIndex(p.index); !errors.As(err, new(netlink.LinkNotFoundError)) {
			return false
		}
		p.d.opts.Log.Warn("the link for checks by the way of clients' packets was removed by somebody else: made anew")
		if err := p.takeDown(); err != nil {
			p.d.opts.Log.Warn("take down connections to servers", "err", err)
		}
	}
	return true
}

// takeDown is setUp's opposite. Called with mu held.
func (p *probing) takeDown() error {
	errs := []error{p.closeAnswers()}
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i].Close())
	}
	if p.index != 0 {
		if link, err := p.d.links.LinkByIndex(p.index); err == nil {
			errs = append(errs, p.d.links.LinkDel(link))
		}
	}
	p.closers, p.index = nil, 0
	return errors.Join(errs...)
}

// await has what the server of the connection at the port answers come to the room.
func (p *probing) await(port uint16, a probe.Answers) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	if p.index == 0 {
		return unix.ENETUNREACH // by setUpAnew meanwhile
	}
	if p.answers == nil {
		return fmt.Errorf("%w: %w", director.ErrUnsupported, p.noAnswers)
	}
	if err := p.answers.Await(a, p.index); err != nil {
		return err
	}
	p.probes[port].answers = &a
	return nil
}

// note notes the entry that the connection at the port has.
func (p *probing) note(port uint16, v6 bool, entry bpf.KernelRemoveArgs) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.probes[port]; e != nil {
		e.v6, e.entry = v6, entry
	}
}

// endLater ends the connection at the port after a while.
func (p *probing) endLater(port uint16, after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.probes[port]; e != nil {
		e.ending = time.AfterFunc(after, func() { p.end(port, e) })
	}
}

// end takes back what was set up for the connection at the port.
func (p *probing) end(port uint16, e *probed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probes[port] != e {
		return // by close
	}
	if err := p.release(e); err != nil {
		p.d.opts.Log.Warn("end a connection to a server", "port", port, "err", err)
	}
	delete(p.probes, port)
}

// endNow is end of whatever has the port.
func (p *probing) endNow(port uint16) {
	p.mu.Lock()
	e := p.probes[port]
	p.mu.Unlock()
	if e != nil {
		p.end(port, e)
	}
}

// release removes the connection's entry, and awaits nothing for it. Called with mu held.
func (p *probing) release(e *probed) error {
	var errs []error
	if e.answers != nil && p.answers != nil {
		errs = append(errs, p.answers.Forget(*e.answers))
	}
	if e.entry != (bpf.KernelRemoveArgs{}) {
		err := p.d.removeEntry(e.v6, e.entry, silently)
		if !errors.Is(err, bpf.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// close ends all connections and the room.
func (p *probing) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for port, e := range p.probes {
		if e.ending != nil {
			e.ending.Stop()
		}
		errs = append(errs, p.release(e))
		delete(p.probes, port)
	}
	errs = append(errs, p.takeDown())
	if p.room != nil {
		p.room.close()
	}
	return errors.Join(errs...)
}
