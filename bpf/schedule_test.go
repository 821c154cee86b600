package bpf_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director/directortest"
)

// The loaded program chooses what a kernel's IPVS was seen to choose, changes
// between connections included. Persistence is not the fast path's yet: cases
// with it are left out.
func TestGoldenSchedules(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for scheduler, cases := range map[bpf.KernelScheduler][]directortest.GoldenCase{
		bpf.KernelSchedulerSCHEDULER_RR:  directortest.Golden(t, "rr"),
		bpf.KernelSchedulerSCHEDULER_WRR: directortest.Golden(t, "wrr"),
		bpf.KernelSchedulerSCHEDULER_SH:  directortest.Golden(t, "sh"),
		bpf.KernelSchedulerSCHEDULER_MH:  directortest.Golden(t, "mh"),
	} {
		for _, c := range cases {
			if c.PersistTimeout != 0 {
				continue
			}
			t.Run(c.Name, func(t *testing.T) {
				if diff := cmp.Diff(c.Chosen, chosen(t, f, scheduler, c)); diff != "" {
					t.Errorf("chosen (-kernel +program):\n%s", diff)
				}
			})
		}
	}
}

// chosen returns the servers of the case's connections.
func chosen(t *testing.T, f *bpftest.Fixture, scheduler bpf.KernelScheduler, c directortest.GoldenCase) []int {
	t.Helper()
	f.T(t).Clear()
	hop := f.AddHop(serverLink(f.Outside))
	service := &bpftest.Service{Listen: families[0].virtual, Scheduler: scheduler}
	if c.Family == "ipv6" {
		service.Listen = families[1].virtual
	}
	if c.Flags().Port {
		service.Flags |= bpf.KernelServiceFlagsSERVICE_HASH_PORT
	}
	if c.Flags().Fallback {
		service.Flags |= bpf.KernelServiceFlagsSERVICE_FALLBACK
	}
	byIndex := map[int]*bpftest.Server{}
	add := func(i int, weight uint32) {
		byIndex[i] = &bpftest.Server{Address: c.Server(i), Weight: weight, Hop: hop}
		service.Servers = slices.Insert(service.Servers, 0, byIndex[i])
	}
	for i, weight := range c.Weights {
		add(i, weight)
		f.Apply(service) // one by one, as ipvsadm did
	}
	var chosen []int
	for k := range c.Chosen {
		for _, step := range c.Steps {
			if step.At != k {
				continue
			}
			switch step.Op {
			case "add":
				add(step.Server, step.Weight)
			case "del":
				gone := byIndex[step.Server]
				service.Servers = slices.DeleteFunc(service.Servers, func(s *bpftest.Server) bool { return s == gone })
			case "weight":
				byIndex[step.Server].Weight = step.Weight
			default:
				t.Fatalf("unknown step %q", step.Op)
			}
			f.Apply(service)
		}
		client := c.Client(k)
		if client.Port() == 0 {
			client = netip.AddrPortFrom(client.Addr(), uint16(10000+k))
		}
		chosen = append(chosen, connect(t, f, service.Listen, client, c))
	}
	return chosen
}

// connect opens and closes a connection; the number of its server, -1: none.
func connect(t *testing.T, f *bpftest.Fixture, vip, client netip.AddrPort, c directortest.GoldenCase) int {
	t.Helper()
	p := bpftest.Packet{
		Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: client, To: vip, Flags: "S",
	}
	got := f.Run(p.Bytes())
	if f.Events()["no-server"] == 1 {
		return -1
	}
	if got.Action != bpftest.TX {
		t.Fatalf("%v", got.Action)
	}
	if err := f.Plane.RemoveConnection(vip.Addr().Is6(), &bpf.KernelRemoveArgs{
		Client: bpf.Address(client.Addr()), ClientPort: bpf.Port(client.Port()),
		VirtualAddress: bpf.Address(vip.Addr()), VirtualPort: bpf.Port(vip.Port()), Protocol: bpftest.TCP,
	}); err != nil {
		t.Fatal(err)
	}
	to := destination(got.Packet)
	for i := range len(c.Weights) + len(c.Steps) {
		if c.Server(i).Addr() == to {
			return i
		}
	}
	t.Fatalf("sent to %v", to)
	return 0
}

// destination returns an untagged IP packet's destination.
func destination(frame []byte) netip.Addr {
	b := frame[14+16 : 14+20]
	if frame[14]>>4 == 6 {
		b = frame[14+24 : 14+40]
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Servers without a next hop are scheduled as if of weight 0, and again when
// they have one.
func TestUnreachableServerIsNotScheduled(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	for _, scheduler := range []bpf.KernelScheduler{
		bpf.KernelSchedulerSCHEDULER_RR, bpf.KernelSchedulerSCHEDULER_WRR,
	} {
		s := newScene(t, f, families[0], bpftest.TCP, nat, nat)
		s.service.Scheduler = scheduler
		first := s.service.Servers[0]
		hop, client := first.Hop, 0
		count := func() int {
			f.Apply(s.service)
			before := f.Traffic(first).Connections
			for range 10 {
				client++
				f.Run(s.requestOf(client).Bytes())
			}
			return int(f.Traffic(first).Connections - before)
		}
		for i, want := range []int{5, 0, 5} {
			first.Hop = hop * uint32((i+1)%2)
			if got := count(); got != want {
				t.Errorf("scheduler %d, step %d: %d of 10 connections, want %d", scheduler, i, got, want)
			}
		}
	}
}
