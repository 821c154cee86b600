package xdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/vip"
	"github.com/shunt-lb/shunt/director/xdp/nexthop"
)

// Dataplane is the XDP data plane.
type Dataplane struct {
	opts     Options
	plane    *bpf.Plane
	resolver *nexthop.Resolver
	vips     *vip.Host
	// links finds interfaces in the namespace that Open was called in.
	links     *netlink.Handle
	namespace namespace
	// probing is how the director itself connects to servers.
	probing *probing
	// background runs the resolver from Open to Close.
	background *errgroup.Group
	stop       context.CancelFunc
	// gate is closed while connections come over to other tables; it is entered before mu
	// is locked. carries are the runs that bring them over, until lifetime ends.
	gate     tableGate
	carries  sync.WaitGroup
	lifetime context.Context
	endLife  context.CancelFunc

	// exchange is held, exclusively and together with mu, while the plane's tables and
	// programs are replaced, and shared by whoever uses the plane without mu: see use.
	exchange sync.RWMutex

	// capturing is held while packets are captured, before exchange.
	capturing sync.Mutex

	// mu guards all below and the maps' contents that are user space's.
	mu    sync.Mutex
	model *model
	words *arena
	hops  *hopTable
	// tunnels are how packets to servers of method tunnel are wrapped.
	tunnels *tunnelTable
	access  *accessSets
	// matches is how packets find services of several addresses or ports.
	matches  *matchTable
	locals   *localTable
	echoes   *echoTable
	sweeps   sweepState
	carrying carryState
	// watching is who is told what becomes of connections.
	watching watching
	// destinations is what the sweep knows of lblc's and lblcr's memory.
	destinations destinationsState
	// migrations are services that are to migrate when they are added.
	migrations map[director.ServiceKey]bool
	closed     bool
	// interfaces the fast path is to run on.
	interfaces []attachment
	// resolved is closed and replaced whenever a server's reachability changed.
	resolved chan struct{}
}

var (
	_ director.Dataplane = (*Dataplane)(nil)
	_ director.Loader    = (*Dataplane)(nil)
	_ director.Table     = (*Dataplane)(nil)
	_ director.Table     = (*Dataplane)(nil)
)

// attachment is an interface the fast path runs on.
type attachment struct {
	index int
	name  string
	mode  bpf.Mode
	// problem says why the fast path is not on it, as far as the last sweep saw;
	// empty if it is.
	problem string
}

// Open loads the fast path or adopts an earlier daemon's, and attaches it. It
// must be called in the network namespace it is to work in; all later work
// happens in that one. The caller runs Run and Close.
func Open(ctx context.Context, opts Options) (_ *Dataplane, err error) {
	opts = opts.withDefaults()
	if opts.PinDir == "" {
		return nil, errNoPinDir
	}
	interfaces, err := findInterfaces(opts.Interfaces)
	if err != nil {
		return nil, err
	}
	plane, err := bpf.Open(opts.PinDir, opts.limits())
	if err != nil {
		return nil, err
	}
	d := &Dataplane{opts: opts, plane: plane, resolved: make(chan struct{}), migrations: map[director.ServiceKey]bool{}}
	d.lifetime, d.endLife = context.WithCancel(context.Background())
	if plane.Carrying() {
		d.opts.Log.Info("connections come over from tables that an earlier daemon has left", "pins", opts.PinDir)
		d.carrying.active = true
		d.gate.shut = make(chan struct{})
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if plane.Adopted {
		d.opts.Log.Info("adopted the pinned maps of an earlier daemon", "pins", opts.PinDir)
		d.opts.tellKept(plane.Limits)
	}
	if err := d.writeSettings(); err != nil {
		return nil, err
	}
	if d.namespace, err = openNamespace(); err != nil {
		return nil, err
	}
	d.probing = openProbing(d)
	if d.vips, err = vip.Open(); err != nil {
		return nil, err
	}
	if d.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open a netlink socket for interfaces: %w", err)
	}
	if err := d.startResolver(interfaces); err != nil {
		return nil, err
	}
	if err := d.adoptState(); err != nil {
		return nil, err
	}
	if err := d.adoptLocals(); err != nil {
		return nil, err
	}
	if err := d.attach(interfaces); err != nil {
		return nil, err
	}
	d.probing.sweep()
	return d, nil
}

// errNoPinDir: whose data plane is meant must be said.
var errNoPinDir = fmt.Errorf("no directory for the pins is given: %w", director.ErrInvalid)

// sameSize says whether a table of has connections is what want asks for: sizes
// are rounded up to whole groups.
func sameSize(want, has uint64) bool { return has >= want && has < want+bpf.Granularity }

func findInterfaces(names []string) ([]net.Interface, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("no interface to attach to: name at least one: %w", director.ErrInvalid)
	}
	found := make([]net.Interface, 0, len(names))
	for _, name := range names {
		iface, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("interface %q: %w: there is none of that name here", name, director.ErrNotFound)
		}
		found = append(found, *iface)
	}
	return found, nil
}

// writeSettings carries the options the fast path reads; the timeouts of new
// maps are the defaults, adopted ones stay.
func (d *Dataplane) writeSettings() error {
	return d.plane.ChangeSettings(func(s *bpf.KernelSettings) {
		d.setOptions(s)
		if !d.plane.Adopted {
			putTimeouts(s, d.plane.Clock, conntrack.DefaultTimeouts())
		}
	})
}

func (d *Dataplane) setOptions(s *bpf.KernelSettings) {
	s.Midstream = uint32(bpf.KernelMidstreamMIDSTREAM_DROP)
	if d.opts.MidstreamReset {
		s.Midstream = uint32(bpf.KernelMidstreamMIDSTREAM_RESET)
	}
	s.Watching = 0 // also if an earlier process was
	if len(d.watching.watchers) > 0 {
		s.Watching = 1
	}
	s.IcmpPerTick = 0
	if d.opts.ICMPRate > 0 {
		s.IcmpPerTick = max(1, uint32(float64(d.opts.ICMPRate)*d.plane.Clock.Tick().Seconds()))
	}
}

func (d *Dataplane) startResolver(interfaces []net.Interface) (err error) {
	indices := make([]int, len(interfaces))
	for i := range interfaces {
		indices[i] = interfaces[i].Index
	}
	d.resolver, err = nexthop.New(nexthop.Options{Interfaces: indices, Changed: d.resolutionChanged, Log: d.opts.Log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.background = new(errgroup.Group)
	d.background.Go(func() error { return d.resolver.Run(ctx) })
	return nil
}

// attach attaches to the interfaces and takes the fast path off those that are
// not named any more.
func (d *Dataplane) attach(interfaces []net.Interface) error {
	wanted := map[int]bool{}
	for i := range interfaces {
		iface := &interfaces[i]
		wanted[iface.Index] = true
		mode, err := d.plane.Attach(iface, d.opts.mode())
		if err != nil {
			return errors.Join(err, d.detachNew())
		}
		if mode != d.opts.mode() {
			d.opts.Log.Warn("interface stays attached as it was; shunt detach and a restart change it", "interface", iface.Name, "mode", mode)
		}
		d.interfaces = append(d.interfaces, attachment{index: iface.Index, name: iface.Name, mode: mode})
		d.opts.Log.Info("attached", "interface", iface.Name, "mode", mode)
	}
	attached, err := d.plane.Attached()
	if err != nil {
		return err
	}
	for _, index := range attached {
		if !wanted[index] {
			d.opts.Log.Info("detached: not named any more", "ifindex", index)
			if err := d.plane.DetachInterface(index); err != nil {
				return err
			}
		}
	}
	return nil
}

// detachNew undoes a first start that could not attach everywhere: nothing is
// left behind. A restart leaves traffic alone.
func (d *Dataplane) detachNew() error {
	if d.plane.Adopted {
		return nil
	}
	d.closed = true
	return errors.Join(d.closeHelpers(), d.plane.Remove())
}

// IsNew reports whether Open made the tables, and did not adopt an earlier
// daemon's.
func (d *Dataplane) IsNew() bool { return !d.plane.Adopted }

// MaxConnections returns what the tables are sized for: as configured, or, of
// adopted ones, what the whole groups they have come to.
func (d *Dataplane) MaxConnections() (v4, v6 uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.plane.Limits.Connections4, d.plane.Limits.Connections6
}

// MemoryBytes returns what the connection tables occupy.
func (d *Dataplane) MemoryBytes() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.plane.Memory()
}

// Close releases the handles; traffic flows on.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed {
		return nil
	}
	return errors.Join(d.closeHelpers(), d.plane.Close())
}

// closeHelpers ends the watchers and the resolver, which must not be waited for with
// mu held.
func (d *Dataplane) closeHelpers() error {
	var errs []error
	d.endLife()
	d.carries.Wait()
	// A capture ends with the lifetime, and none begins any more.
	d.capturing.Lock()
	d.endWatching(errClosed)
	if d.stop != nil {
		d.stop()
		errs = append(errs, d.background.Wait(), d.resolver.Close())
	}
	if d.probing != nil {
		errs = append(errs, d.probing.close())
	}
	if d.vips != nil {
		d.vips.Close()
	}
	if d.links != nil {
		d.links.Close()
	}
	d.namespace.close()
	return errors.Join(errs...)
}

// Detach removes everything Shunt has in the kernel: programs, maps with all
// connections, virtual addresses. The Dataplane is closed then.
func (d *Dataplane) Detach(context.Context) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return errors.New("detach: the data plane is closed")
	}
	d.closed = true
	addresses := d.model.managedAddresses()
	errs := []error{d.locals.remove()}
	d.mu.Unlock()

	for _, a := range addresses {
		errs = append(errs, d.vips.Remove(a))
	}
	for _, a := range d.watched() {
		d.resolver.Unwatch(a)
	}
	return errors.Join(append(errs, d.closeHelpers(), d.plane.Remove())...)
}

// watched returns the addresses whose next hops are followed.
func (d *Dataplane) watched() []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	var addrs []netip.Addr
	for _, s := range d.model.servers {
		if s.watched {
			addrs = append(addrs, s.address.Addr())
		}
	}
	return addrs
}
