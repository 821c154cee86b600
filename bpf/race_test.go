package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
)

// racer sends packets of a few clients to services with servers of their own.
type racer struct {
	plane    *bpf.Plane
	services []*bpftest.Service
	packets  [][]racePacket // by client
	random   *rand.Rand
	v6       bool
	fault    string // the first wrong packet
}

// racePacket is a frame made beforehand: making one takes longer than running it.
type racePacket struct {
	bpftest.Packet
	frame   []byte
	service int
	isReply bool
}

const (
	raceClients = 160     // more than there is room for
	hotClients  = 4       // half of the packets are theirs: both CPUs meet at them
	raceRounds  = 200_000 // on each CPU; on one CPU there is less to meet
	raceLocal   = 2000    // the first client's port, and the first that stands in for one
	racePorts   = 16
)

// Two CPUs insert, follow, evict, expire, sweep and remove the same connections
// in a table that is too small for them. No packet goes to a server of another
// service, no reply comes from another service's address, and what is left in the
// end is consistent.
func TestRace(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(families[flag(v6)].name, func(t *testing.T) { testRace(t, v6, func(*bpftest.Service) {}) })
		// Of two ports, and of two addresses.
		t.Run(families[flag(v6)].name+"/wide", func(t *testing.T) {
			testRace(t, v6, func(s *bpftest.Service) {
				if s.Listen == families[flag(v6)].virtual {
					s.LastPort = s.Listen.Port() + 1
				} else {
					s.Prefix = s.Listen.Addr().BitLen() - 1
				}
			})
		})
		// Both take ports from a pool that is too small for the clients of one server.
		t.Run(families[flag(v6)].name+"/full NAT", func(t *testing.T) {
			testRace(t, v6, func(s *bpftest.Service) { s.Servers[0].Method, s.Servers[1].Method = fullNAT, fullNAT })
		})
	}
}

func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}

func testRace(t *testing.T, v6 bool, change func(*bpftest.Service)) {
	f := bpftest.New(t, bpftest.Options{Connections: 64, CountConnections: true})
	services := raceServices(f, v6, change)
	f.SetLocals(raceLocal, raceLocal+racePorts-1, families[flag(v6)].localAddress())
	packets := racePackets(services, v6)
	f.Events()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpus := allowedCPUs(set)
	var wait sync.WaitGroup
	rounds := raceRounds
	if len(cpus) == 1 {
		rounds /= 10
	}
	racers := make([]*racer, 2)
	for i := range racers {
		racers[i] = &racer{
			plane: f.Plane, services: services, packets: packets, random: rand.New(rand.NewPCG(uint64(i), 7)), v6: v6,
		}
		wait.Go(func() { racers[i].run(cpus[i%len(cpus)], rounds) })
	}
	wait.Wait()
	for i, r := range racers {
		if r.fault != "" {
			t.Errorf("racer %d: %s", i, r.fault)
		}
	}
	events := f.Events()
	t.Log(events)
	for _, name := range []string{"fault-map", "fault-server"} {
		if events[name] != 0 {
			t.Errorf("%s: %d", name, events[name])
		}
	}
	happens := []string{"evicted", "expired-hit", "killed", "killed-forwarded"}
	if services[0].Servers[0].Method == fullNAT {
		happens = append(happens, "collision-avoided")
	}
	for _, name := range happens {
		if events[name] == 0 {
			t.Errorf("%s never happened: the race is not what it should be", name)
		}
	}
	var servers []*bpftest.Server
	for _, s := range services {
		servers = append(servers, s.Servers...)
	}
	diffPairs(t, f)
	diffLoads(t, f, servers...)
	diffStrays(t, f)
	if len(f.Entries()) == 0 {
		t.Error("the table is empty")
	}
	// All that is left can be removed: nothing is claimed for ever.
	f.AgeBy(bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED] * 2)
	f.ChangeSettings(func(s *bpf.KernelSettings) { setTimeouts(s, 0) })
	f.Sweep()
	if left := f.Entries(); len(left) != 0 {
		t.Errorf("%d keys cannot be removed: %+v", len(left), left[0])
	}
	diffLoads(t, f, servers...)
}

// A slot whose id and recipe are of different generations was reused while it was
// read: its recipe is not followed. TestRace does not meet that for sure.
func TestReusedSlotIsNotFollowed(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		f.EditRecipes(func(recipe uint64) uint64 {
			generation := recipe&uint64(bpf.KernelMasksGENERATION_MASK) + 1
			return recipe&^uint64(bpf.KernelMasksGENERATION_MASK) | generation
		})
		run(t, f, s.reply().Bytes(), passed(s.reply().Bytes()), one("stale-read", "no-service"))
		if s.protocol == bpftest.TCP {
			p := s.request()
			p.Flags = "A"
			run(t, f, p.Bytes(), dropped, one("stale-read", "midstream"))
		}
		if left := f.Entries(); len(left) != 0 {
			t.Errorf("shown: %+v", left)
		}
	})
}

// A claimed connection is another CPU's to finish: its packets wait, then drop.
func TestClaimedConnectionIsLeftAlone(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{Connections: 64})
	eachScene(t, f, func(t *testing.T, s *scene) {
		s.establish(t)
		const busy = uint64(1) << bpf.KernelRecipeLayoutRECIPE_BUSY
		f.EditRecipes(func(recipe uint64) uint64 {
			if recipe>>bpf.KernelRecipeLayoutRECIPE_REPLY&1 == 0 {
				recipe |= busy
			}
			return recipe
		})
		run(t, f, s.request().Bytes(), dropped, one("busy"))
		f.AgeBy(2 * bpftest.Timeouts[bpf.KernelConnStateSTATE_ESTABLISHED])
		if removed := f.Sweep(); removed != 0 {
			t.Errorf("the sweep removed %d claimed connections", removed)
		}
		f.EditRecipes(func(recipe uint64) uint64 { return recipe &^ busy })
		if removed := f.Sweep(); removed != 1 {
			t.Errorf("the sweep removed %d connections, want 1", removed)
		}
		diffLoads(t, f, s.service.Servers...)
	})
}

// raceServices are two services, of two NAT servers and one DR server each; change
// edits each before it is applied.
func raceServices(f *bpftest.Fixture, v6 bool, change func(*bpftest.Service)) []*bpftest.Service {
	a := families[flag(v6)]
	hop := f.AddHop(bpftest.Link{Interface: loopback, Source: bpftest.DirectorInside, Destination: bpftest.ServerMAC})
	var services []*bpftest.Service
	for i, listen := range []netip.AddrPort{a.virtual, a.secondVirtual} {
		s := &bpftest.Service{Listen: listen}
		for j := range 3 {
			s.Servers = append(s.Servers, &bpftest.Server{Address: raceServer(a, i, j), Weight: 1, Hop: hop})
		}
		s.Servers[2].Method = dr
		s.Servers[2].Address = netip.AddrPortFrom(s.Servers[2].Address.Addr(), listen.Port())
		change(s)
		services = append(services, f.Apply(s))
	}
	return services
}

// raceServer's last octet says the service and the number.
func raceServer(a family, service, number int) netip.AddrPort {
	b := a.server.Addr().AsSlice()
	b[len(b)-1] = byte(0x10*(service+1) + number)
	address, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(address, a.server.Port())
}

// loopback is an interface in every namespace: the racers are not in the
// fixture's.
const loopback = 1

// allowedCPUs are the numbers in a set.
func allowedCPUs(set unix.CPUSet) (cpus []int) {
	for i := range 1024 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}

// run does its rounds on a CPU, on a thread that ends with it.
func (r *racer) run(cpu, rounds int) {
	runtime.LockOSThread() // never unlocked: the affinity goes with the thread
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		r.fault = err.Error()
		return
	}
	for i := 0; i < rounds && r.fault == ""; i++ {
		if err := r.step(i); err != nil {
			r.fault = fmt.Sprintf("round %d: %v", i, err)
		}
	}
}

func (r *racer) step(i int) error {
	switch {
	case i%5000 == 4999:
		// Everything, or nothing, is expired from now on.
		timeout := uint32(math.MaxUint32)
		if r.random.IntN(3) > 0 {
			timeout = 1000
		}
		watching := uint32(r.random.IntN(2))
		return r.plane.ChangeSettings(func(s *bpf.KernelSettings) {
			setTimeouts(s, timeout)
			s.Watching = watching
		})
	case i%400 == 399:
		return r.plane.Sweep(r.v6, &bpf.KernelSweepArgs{Groups: 64})
	case i%16 == 15:
		return r.remove()
	}
	return r.packet()
}

func setTimeouts(s *bpf.KernelSettings, ticks uint32) {
	for i := range s.Timeout {
		s.Timeout[i] = ticks
	}
}

// raceClient is the address of the n-th client.
func raceClient(n int, v6 bool) netip.AddrPort {
	a := families[flag(v6)]
	b := a.client.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	address, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(address, uint16(raceLocal+n))
}

// racePackets returns, by client, its packets to each service and those of each
// NAT server to it.
func racePackets(services []*bpftest.Service, v6 bool) [][]racePacket {
	all := make([][]racePacket, raceClients)
	for n := range all {
		client := raceClient(n, v6)
		add := func(service int, isReply bool, from, to netip.AddrPort, flags ...string) {
			for _, f := range flags {
				p := racePacket{service: service, isReply: isReply, Packet: bpftest.Packet{
					Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: from, To: to, Flags: f,
				}}
				p.frame = p.Bytes()
				all[n] = append(all[n], p)
			}
		}
		for i, s := range services {
			add(i, false, client, s.Listen, "S", "S", "S", "S", "A", "A", "FA", "R")
			for _, server := range s.Servers[:2] {
				to := client
				if server.Method == fullNAT {
					to = netip.AddrPortFrom(families[flag(v6)].localAddress(), uint16(raceLocal+n%racePorts))
				}
				add(i, true, server.Address, to, "SA", "A", "FA", "R")
			}
		}
	}
	return all
}

func (r *racer) client() int {
	if r.random.IntN(2) == 0 {
		return r.random.IntN(hotClients)
	}
	return r.random.IntN(raceClients)
}

func (r *racer) remove() error {
	client, s := raceClient(r.client(), r.v6), r.services[r.random.IntN(2)]
	err := r.plane.RemoveConnection(r.v6, &bpf.KernelRemoveArgs{
		Client: bpf.Address(client.Addr()), ClientPort: bpf.Port(client.Port()),
		VirtualAddress: bpf.Address(s.Listen.Addr()), VirtualPort: bpf.Port(s.Listen.Port()), Protocol: bpftest.TCP,
		WithResets: uint8(r.random.IntN(2)),
	})
	if errors.Is(err, bpf.ErrNotFound) || errors.Is(err, unix.EAGAIN) {
		return nil // the other racer has it
	}
	return err
}

// packet sends one packet of one client or server and looks where it went.
func (r *racer) packet() error {
	ofClient := r.packets[r.client()]
	p := &ofClient[r.random.IntN(len(ofClient))]
	got, err := bpftest.Run(r.plane.ShuntRoot, loopback, p.frame)
	if err != nil || got.Action == bpftest.Drop || got.Action == bpftest.Pass && p.isReply {
		return err
	}
	if got.Action != bpftest.TX {
		return fmt.Errorf("%v -> %v: %v", p.From, p.To, got.Action)
	}
	if err := bpftest.Verify(got.Packet); err != nil {
		return err
	}
	listen := r.services[p.service].Listen
	from, to := endpoints(got.Packet)
	if from == p.To && to == p.From {
		return nil // reset: the connection was killed
	}
	isFull := r.services[p.service].Servers[0].Method == fullNAT
	if p.isReply {
		isClients := to == p.To || isFull && to == raceClient(int(to.Port()-raceLocal), r.v6)
		if from != listen || !isClients {
			return fmt.Errorf("reply %v -> %v of service %v left as %v -> %v", p.From, p.To, listen, from, to)
		}
		return nil
	}
	octets := to.Addr().AsSlice()
	isOwn := int(octets[len(octets)-1]>>4) == p.service+1 && to.Port() == families[0].server.Port()
	isFrom := from == p.From
	if isFull && isOwn {
		isFrom = from.Addr() == families[flag(r.v6)].localAddress() && from.Port()-raceLocal < racePorts
	}
	if !isFrom || !isOwn && to != listen {
		return fmt.Errorf("%v -> %v left as %v -> %v", p.From, p.To, from, to)
	}
	return nil
}

// endpoints returns an untagged TCP packet's source and destination.
func endpoints(frame []byte) (from, to netip.AddrPort) {
	source, length, ports := 14+12, 4, 14+20
	if frame[14]>>4 == 6 {
		source, length, ports = 14+8, 16, 14+40
	}
	address := func(at int) netip.Addr {
		a, _ := netip.AddrFromSlice(frame[at : at+length])
		return a
	}
	return netip.AddrPortFrom(address(source), binary.BigEndian.Uint16(frame[ports:])),
		netip.AddrPortFrom(address(source+length), binary.BigEndian.Uint16(frame[ports+2:]))
}

// diffStrays holds that each group's count of its overflow is what is in there.
func diffStrays(t *testing.T, f *bpftest.Fixture) {
	t.Helper()
	const first = int(bpf.KernelTableShapeSETS * bpf.KernelTableShapeWAYS)
	check := func(group, counted uint32, recipes []uint64) {
		var there uint32
		for _, recipe := range recipes[first:] {
			if recipe != 0 {
				there++
			}
		}
		if there != counted {
			t.Errorf("group %d counts %d strays and has %d", group, counted, there)
		}
	}
	for i := range f.Plane.Connections4.MaxEntries() {
		var g bpf.KernelGroup4
		if err := f.Plane.Connections4.Lookup(i, &g); err != nil {
			t.Fatal(err)
		}
		var recipes []uint64
		for _, s := range g.Slots {
			recipes = append(recipes, s.Recipe)
		}
		check(i, g.Strays, recipes)
	}
	for i := range f.Plane.Connections6.MaxEntries() {
		var g bpf.KernelGroup6
		if err := f.Plane.Connections6.Lookup(i, &g); err != nil {
			t.Fatal(err)
		}
		var recipes []uint64
		for _, s := range g.Slots {
			recipes = append(recipes, s.Recipe)
		}
		check(i, g.Strays, recipes)
	}
}
