package xdp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest/differential"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// differentialServers is how many servers a recorded case has at most.
const differentialServers = 40

// TestDifferential replays what the kernel's IPVS was seen to do: the same
// services, servers and packets give the same choices and the same counts.
func TestDifferential(t *testing.T) {
	r := newDifferentialRig(t)
	for _, c := range differential.Recorded(t) {
		t.Run(c.Name, func(t *testing.T) { r.compare(t, c) })
	}
}

// TestDifferentialInOneGuest draws cases and runs each on the kernel's IPVS and on
// the fast path, both in the kernel this runs on.
func TestDifferentialInOneGuest(t *testing.T) {
	ipvs.Guest(t)
	first := differential.Setting(t, differential.SeedEnv, rand.IntN(1_000_000_000))
	count := differential.Setting(t, differential.DrawnEnv, inOneGuest)
	t.Logf("cases of the seeds %d to %d", first, first+count-1)
	var mu sync.Mutex
	var cases []differential.Case
	t.Run("kernel", func(t *testing.T) {
		for seed := first; seed < first+count; seed++ {
			drawn := withoutThresholds(differential.Drawn(seed))
			t.Run(drawn.Name, func(t *testing.T) {
				t.Parallel()
				c := differential.Kernel(t, drawn)
				mu.Lock()
				defer mu.Unlock()
				cases = append(cases, c)
			})
		}
	})
	r := newDifferentialRig(t)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { r.compare(t, c) })
	}
}

// withoutThresholds takes the servers' thresholds out of a case. The guest's kernel,
// 6.1.192 when this was seen, sets and ends overload by another rule than 6.1.176,
// the reference: by an edit, too. Cases with thresholds are compared with that.
func withoutThresholds(c differential.Case) differential.Case {
	c.Events = slices.Clone(c.Events)
	for i := range c.Events {
		c.Events[i].Upper, c.Events[i].Lower = 0, 0
	}
	return c
}

// inOneGuest is how many cases that is: QEMU is slow.
const inOneGuest = 40

// differentialRig runs cases on one data plane, one after another.
type differentialRig struct {
	*rig
	flows   differential.Flows
	service director.Service
	// known are the servers of the case, by number.
	known map[int]netip.AddrPort
}

// newDifferentialRig makes the servers of all cases neighbors, so that each has
// its next hop at once, as IPVS takes it to have.
func newDifferentialRig(t *testing.T) *differentialRig {
	r := &differentialRig{rig: newRig(t, Options{ICMPRate: 1_000_000_000})}
	for _, own := range []string{"10.0.255.1/16", "fd00:2::ffff:1/64"} {
		if err := r.ns.AddAddress("eth0", netip.MustParsePrefix(own)); err != nil {
			t.Fatal(err)
		}
	}
	link, err := r.ns.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for n := range differentialServers {
		for _, v6 := range []bool{false, true} {
			address := differential.Case{IPv6: v6}.ServerAddress(n).Addr()
			mac := ipvs.ServerMAC(address)
			err := r.ns.Netlink().NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac[:],
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// compare fails the test if the fast path does not answer as the kernel did.
func (r *differentialRig) compare(t *testing.T, c differential.Case) {
	t.Helper()
	if d := differential.FastPathDifference(c, r.run(t, c)); d != "" {
		t.Errorf("the fast path: %s\nof:\n%s", d, differential.Script(c))
	}
}

// run runs the case and returns it with the fast path's answers.
func (r *differentialRig) run(t *testing.T, c differential.Case) differential.Case {
	t.Helper()
	parent := r.t
	r.t = t
	defer func() { r.t = parent }()
	r.flows, r.known, r.service = differential.NewFlows(), map[int]netip.AddrPort{}, c.Service()
	r.must(director.AddService{Service: r.service})
	defer r.clear()
	events := slices.Clone(c.Events)
	for i := range events {
		e := &events[i]
		e.Answer = ""
		switch e.Verb {
		case differential.Add:
			r.known[e.Server] = c.ServerAddress(e.Server)
			r.must(director.AddServer{Key: r.service.Key, Server: c.Server(*e)})
		case differential.Edit:
			r.must(director.EditServer{Key: r.service.Key, Server: c.Server(*e)})
		case differential.Remove:
			r.must(director.RemoveServer{Key: r.service.Key, Address: c.ServerAddress(e.Server)})
			if c.ExpireNoDest {
				r.sweeps(untilEnded) // what the kernel does at once
			}
		case differential.Send, differential.Reply:
			e.Answer = r.packet(c, *e)
		case differential.Wait:
			r.wait(e.Wait)
		case differential.Count:
			e.Answer = r.count()
		}
		r.flows.Note(*e)
	}
	c.Events = events
	return c
}

// clear takes the service and all that is left of it away.
func (r *differentialRig) clear() {
	r.t.Helper()
	if _, err := r.Kill(r.t.Context(), director.ConnectionFilter{}); err != nil {
		r.t.Fatal(err)
	}
	r.must(director.RemoveService{Key: r.service.Key})
	r.sweeps(untilEnded)
}

// untilEnded is how many sweeps end all whose time is over: the first leaves a template
// that has just lost its last connection, and the second does if it is the one in
// templateSweeps that compares what the first has counted under it.
const untilEnded = 3

func (r *differentialRig) sweeps(n int) {
	r.t.Helper()
	for range n {
		if err := r.sweep(context.Background()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// packet runs a packet through the loaded program and says what became of it.
func (r *differentialRig) packet(c differential.Case, e differential.Event) string {
	r.t.Helper()
	packet, ok := r.flows.Packet(c, e)
	if !ok {
		return ""
	}
	packet.Source, packet.Destination = bpftest.ClientMAC, bpftest.DirectorOutside
	out := make([]byte, 2048)
	options := ebpf.RunOptions{Data: packet.Bytes(), DataOut: out}
	action, err := r.plane.ShuntRoot.Run(&options)
	if err != nil {
		r.t.Fatal(err)
	}
	if e.Verb == differential.Reply {
		return ""
	}
	if verdict := bpftest.Action(action); verdict == bpftest.TX || verdict == bpftest.Redirect {
		return r.answer(options.DataOut)
	}
	return differential.Nothing
}

// answer says where a frame that was sent goes.
func (r *differentialRig) answer(sent []byte) string {
	frame := ipvs.Frame{Bytes: sent}
	copy(frame.To[:], sent)
	if frame.IsPortUnreachable() {
		return differential.Refused
	}
	for n, address := range r.known {
		if frame.To == ipvs.ServerMAC(address.Addr()) {
			return strconv.Itoa(n)
		}
	}
	return fmt.Sprintf("a frame to %x", frame.To)
}

// wait lets the time pass second by second: what comes to its end first must not meet
// what ends later ended, too. A template that is over has its time prolonged if it has
// a connection, although that is over before the wait is (ip_vs_conn_expire).
func (r *differentialRig) wait(d time.Duration) {
	r.t.Helper()
	for ; d > 0; d -= time.Second {
		r.age(min(d, time.Second))
		r.sweeps(1)
	}
	r.sweeps(untilEnded - 1)
}

// age lets time pass for all connections and templates.
func (r *differentialRig) age(d time.Duration) {
	r.t.Helper()
	ticks := r.plane.Clock.Ticks(d)
	for i := range r.plane.Connections4.MaxEntries() {
		var group bpf.KernelGroup4
		r.edit(r.plane.Connections4, i, &group, func() {
			for s := range group.Slots {
				if group.Slots[s].Recipe != 0 {
					group.Slots[s].Seen -= ticks
				}
			}
		})
	}
	for i := range r.plane.Connections6.MaxEntries() {
		var group bpf.KernelGroup6
		r.edit(r.plane.Connections6, i, &group, func() {
			for s := range group.Slots {
				if group.Slots[s].Recipe != 0 {
					group.Slots[s].Seen -= ticks
				}
			}
		})
	}
}

func (r *differentialRig) edit(table *ebpf.Map, index uint32, value any, change func()) {
	r.t.Helper()
	if err := table.Lookup(index, value); err != nil {
		r.t.Fatal(err)
	}
	change()
	if err := table.Put(index, value); err != nil {
		r.t.Fatal(err)
	}
}

// count returns the counts of the service's servers, last added first.
func (r *differentialRig) count() string {
	r.t.Helper()
	stats, err := r.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for _, service := range stats.Services {
		if service.Key != r.service.Key {
			continue
		}
		for _, server := range slices.Backward(service.Servers) {
			n := -1
			for known, address := range r.known {
				if address == server.Server.Address {
					n = known
				}
			}
			list = append(list, fmt.Sprintf("%d:%d/%d/%d", n, server.Active, server.Inactive, server.Templates))
		}
	}
	return strings.Join(list, " ")
}
