package bench

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// firstFullNAT is the index of the first service of full NAT; others are below it, but
// for those of restrained.
const firstFullNAT = 17

// servers is how many servers the service has; the wrapper counts on it.
const servers = 4

const (
	virtualPort = 80
	serverPort  = 8080
	loopback    = 1 // the interface that test runs come in from
	forever     = 1 << 29
)

// family is what differs between IPv4 and IPv6.
type family struct {
	v6      bool
	name    string // "4", "6"
	virtual netip.Addr
	servers netip.Addr // the first
	clients netip.Addr // the first
	others  netip.Addr // an address that is not ours
	local   netip.Addr // what stands in for clients by full NAT
}

var (
	family4 = family{
		name: "4", virtual: netip.MustParseAddr("192.0.2.1"), servers: netip.MustParseAddr("198.51.100.16"),
		clients: netip.MustParseAddr("11.0.0.0"), others: netip.MustParseAddr("203.0.113.9"),
		local: netip.MustParseAddr("198.51.100.1"),
	}
	family6 = family{
		v6: true, name: "6", virtual: netip.MustParseAddr("2001:db8::1"), servers: netip.MustParseAddr("2001:db8:5::10"),
		clients: netip.MustParseAddr("2001:db8:c::"), others: netip.MustParseAddr("2001:db8:9::9"),
		local: netip.MustParseAddr("2001:db8:5::1"),
	}
)

// world is one service of a loaded fast path.
type world struct {
	*ebpf.Collection
	family      family
	virtual     netip.Addr
	protocol    uint8
	method      bpf.KernelMethod
	connections uint32
	index       uint32 // of the service
}

// firstServer is the index of the service's first server.
func (w *world) firstServer() uint32 { return 1 + (w.index-1)*servers }

// worldOptions say what a fast path is loaded for.
type worldOptions struct {
	connections4 uint32 // the tables are sized for as many
	connections6 uint32
	// refresh is after how many ticks without a packet a connection's last-seen
	// is written. 0: with every packet; a run is longer than the plane's second,
	// so that others take forever.
	refresh uint32
	// How many there is room for; 0: 64, 128 and 256.
	services, servers, words uint32
	control                  []string // control programs that are wanted, too: loading takes its time
}

// groups is how many groups bpf.Open gives a table of so many connections.
func groups(connections uint32) uint32 {
	const slots = uint64(bpf.KernelTableShapeSLOTS)
	return uint32(max(1, (uint64(connections)*5+slots-1)/slots))
}

// goneOnTo are the programs that measured packets need behind the main one, by the slot in a set.
var goneOnTo = map[bpf.KernelSlot]string{
	bpf.KernelSlotSLOT_SETTLE:   bpf.KernelProgShuntSettle,
	bpf.KernelSlotSLOT_ADMIT:    bpf.KernelProgShuntAdmit,
	bpf.KernelSlotSLOT_CREATE:   bpf.KernelProgShuntCreate,
	bpf.KernelSlotSLOT_ICMP:     bpf.KernelProgShuntIcmp,
	bpf.KernelSlotSLOT_FRAGMENT: bpf.KernelProgShuntFragment,
}

// load loads the fast path over maps of its own, without a service.
func load(o worldOptions) (*ebpf.Collection, error) {
	spec, err := bpf.LoadKernel()
	if err != nil {
		return nil, err
	}
	groups4, groups6 := groups(o.connections4), groups(o.connections6)
	services, servers, words := max(64, o.services), max(128, o.servers), max(256, o.words)
	for name, entries := range map[string]uint32{
		bpf.KernelMapConnections4: groups4, bpf.KernelMapConnections6: groups6,
		bpf.KernelMapServiceIndex: services, bpf.KernelMapServices: services, bpf.KernelMapTimeouts: services,
		bpf.KernelMapLimits: services, bpf.KernelMapServiceStates: services,
		bpf.KernelMapServers: servers, bpf.KernelMapLoads: servers, bpf.KernelMapRecounts: servers,
		bpf.KernelMapServerTraffic: servers, bpf.KernelMapWords: words, bpf.KernelMapDestinations: 64, bpf.KernelMapMatches: 64,
		bpf.KernelMapTunnels:          1 + benchTunnel,
		bpf.KernelMapVirtualAddresses: 64,
		bpf.KernelMapFragments:        64,
	} {
		spec.Maps[name].MaxEntries = entries
	}
	var weak uint8
	if runtime.GOARCH != "amd64" {
		weak = 1
	}
	for name, value := range map[string]any{
		"groups4": groups4, "groups6": groups6, "tick_shift": uint32(6), "refresh_ticks": o.refresh,
		"seeds": seeds(2), "slot_set": uint32(bpf.KernelSlotSLOT_SETS), "weakly_ordered": weak,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	wanted := []string{bpf.KernelProgShuntMain}
	for _, name := range goneOnTo {
		wanted = append(wanted, name)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		return !slices.Contains(wanted, name) && !slices.Contains(o.control, name)
	})
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the fast path: %w", err)
	}
	settings := bpf.KernelSettings{AbiVersion: 1}
	for i := range settings.Timeout {
		settings.Timeout[i] = forever
	}
	p := putter{coll: coll}
	p.put(bpf.KernelMapHops, 1, &bpf.KernelHop{
		DestinationMac: [6]uint8{2, 0, 0, 0, 0, 7}, SourceMac: [6]uint8{2, 0, 0, 0, 0, 1}, Ifindex: loopback, Mtu: 1500,
	})
	p.put(".data.settings", 0, &settings)
	p.put(bpf.KernelMapOptions, 0, &bpf.KernelPacketOptions{FragmentTicks: forever})
	p.put(bpf.KernelMapSlots, uint32(bpf.KernelSlotSLOT_MAIN), coll.Programs[bpf.KernelProgShuntMain])
	for slot, name := range goneOnTo {
		p.put(bpf.KernelMapSlots, uint32(bpf.KernelSlotSLOT_SETS+slot), coll.Programs[name])
	}
	if p.err != nil {
		coll.Close()
		return nil, fmt.Errorf("configure the fast path: %w", p.err)
	}
	return coll, nil
}

// newWorld adds a service, its servers and their next hop, as the control plane
// does; one of each kind. So many connections are to be made.
func newWorld(coll *ebpf.Collection, f family, protocol uint8, method bpf.KernelMethod, connections uint32) (*world, error) {
	w := &world{Collection: coll, family: f, virtual: f.virtual, protocol: protocol, method: method, connections: connections, index: 1}
	if f.v6 {
		w.index += 4
	}
	if protocol == udp {
		w.index += 2
	}
	switch method {
	case bpf.KernelMethodMETHOD_NAT:
	case bpf.KernelMethodMETHOD_FULLNAT:
		w.index += firstFullNAT - 1
		w.virtual = offset(f.virtual, firstFullNAT)
	case bpf.KernelMethodMETHOD_TUNNEL:
		w.index += firstTunnel - 1
		w.virtual = offset(f.virtual, firstTunnel)
	default:
		w.index++
		w.virtual = offset(f.virtual, 1)
	}
	if err := w.configure(); err != nil {
		return nil, fmt.Errorf("configure a service: %w", err)
	}
	return w, nil
}

// isNAT says whether replies come back through the fast path and are rewritten.
func (w *world) isNAT() bool {
	return w.method == bpf.KernelMethodMETHOD_NAT || w.method == bpf.KernelMethodMETHOD_FULLNAT
}

func (w *world) main() *ebpf.Program { return w.Programs[bpf.KernelProgShuntMain] }

func (w *world) configure() error {
	var filter bpf.KernelFilter
	if err := w.Maps[".data.filter"].Lookup(uint32(0), &filter); err != nil {
		return err
	}
	bit := bpf.FilterBit(w.virtual)
	filter.VirtualAddress[bit/32] |= 1 << (bit % 32)
	key := bpf.KernelServiceKey{
		Address: bpf.Address(w.virtual), Port: bpf.Port(virtualPort), Protocol: w.protocol, Family: 4,
	}
	if w.family.v6 {
		key.Family = 6
	}
	list := 1 + (w.index-1)*2*servers // its first word
	service := bpf.KernelService{
		Schedule: [2]bpf.KernelSchedule{{List: list, Servers: servers, Scheduler: uint8(bpf.KernelSchedulerSCHEDULER_RR)}},
		Key:      key, Life: uint8(bpf.KernelLifecycleLIFE_LIVE),
	}
	p := putter{coll: w.Collection}
	for i := uint32(0); i < servers; i++ {
		address := offset(w.family.servers, i)
		if w.isNAT() {
			bit := bpf.FilterBit(address)
			filter.ServerAddress[bit/32] |= 1 << (bit % 32)
		}
		p.put(bpf.KernelMapServers, w.firstServer()+i, w.server(address))
		p.put(bpf.KernelMapWords, list+2*i, w.firstServer()+i)
		p.put(bpf.KernelMapWords, list+2*i+1, uint32(1))
	}
	if w.method == bpf.KernelMethodMETHOD_FULLNAT {
		p.put(bpf.KernelMapLocals, bpf.FirstLocal(w.family.v6), &bpf.KernelLocalAddress{Address: bpf.Address(w.family.local), Offered: 1})
		var options bpf.KernelPacketOptions
		if err := w.Maps[bpf.KernelMapOptions].Lookup(uint32(0), &options); err != nil {
			return err
		}
		options.Locals4, options.Locals6, options.LocalFirst, options.LocalLast = 1, 1, 1024, 65535
		p.put(bpf.KernelMapOptions, 0, &options)
	}
	p.put(bpf.KernelMapServices, w.index, &service)
	p.put(".data.filter", 0, &filter)
	if p.err == nil {
		p.err = w.Maps[bpf.KernelMapServiceIndex].Put(&key, w.index)
	}
	return p.err
}

func (w *world) server(address netip.Addr) *bpf.KernelServer {
	port := uint16(serverPort)
	if !w.isNAT() {
		port = virtualPort
	}
	wire := func(a netip.Addr, port uint16) []byte {
		return binary.BigEndian.AppendUint16(a.AsSlice(), port)
	}
	return &bpf.KernelServer{
		Hop: 1, Tunnel: benchTunnel, Service: w.index, Life: uint8(bpf.KernelLifecycleLIFE_LIVE), Method: uint8(w.method),
		Port: bpf.Port(port), VirtualPort: bpf.Port(virtualPort),
		DeltaL4: bpf.Delta(wire(w.virtual, virtualPort), wire(address, port)),
		DeltaIp: bpf.Delta(w.virtual.AsSlice(), address.AsSlice()),
		Weight:  1, LastWeight: 1, OfferedWeight: 1,
		Address: bpf.Address(address), VirtualAddress: bpf.Address(w.virtual),
	}
}

// putter writes map elements until the first error.
type putter struct {
	coll *ebpf.Collection
	err  error
}

func (p *putter) put(name string, index uint32, value any) {
	if p.err != nil {
		return
	}
	if err := p.coll.Maps[name].Put(index, value); err != nil {
		p.err = fmt.Errorf("map %s: %w", name, err)
	}
}

// lastWord is the last four octets of an address as a number.
func lastWord(a netip.Addr) uint32 {
	b := a.AsSlice()
	return binary.BigEndian.Uint32(b[len(b)-4:])
}

// offset is the address that is n after a, in its last four octets.
func offset(a netip.Addr, n uint32) netip.Addr {
	b := a.AsSlice()
	binary.BigEndian.PutUint32(b[len(b)-4:], lastWord(a)+n)
	sum, _ := netip.AddrFromSlice(b) // of the length it had
	return sum
}
