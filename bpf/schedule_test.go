package bpf_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/director/directortest"
)

// The loaded program chooses what a kernel's IPVS was seen to choose, changes
// between connections included.
func TestGoldenSchedules(t *testing.T) {
	f := bpftest.New(t, bpftest.Options{})
	var hops []uint32
	for _, c := range directortest.AllGolden(t) {
		t.Run(c.Name, func(t *testing.T) {
			if diff := cmp.Diff(c.Chosen, chosen(t, f, &hops, c)); diff != "" {
				t.Errorf("chosen (-kernel +program):\n%s", diff)
			}
		})
	}
}

// golden is a case on its way through the program.
type golden struct {
	*selection
	directortest.GoldenCase
	servers map[int]*bpftest.Server // by the case's numbers
	open    []goldenConnection
}

type goldenConnection struct {
	client, virtual netip.AddrPort
	server          int
}

// chosen returns the servers of the case's connections.
func chosen(t *testing.T, f *bpftest.Fixture, hops *[]uint32, c directortest.GoldenCase) []int {
	t.Helper()
	var flags bpf.KernelServiceFlags
	if c.Flags().Port {
		flags |= bpf.KernelServiceFlagsSERVICE_HASH_PORT
	}
	if c.Flags().Fallback {
		flags |= bpf.KernelServiceFlagsSERVICE_FALLBACK
	}
	g := &golden{
		selection:  newSelection(t, f, hops, c.Scheduler, c.Family == "ipv6", flags),
		GoldenCase: c, servers: map[int]*bpftest.Server{},
	}
	g.service.Listen, g.service.Prefix = c.Virtual(0), 0
	if len(c.Virtuals) > 0 {
		g.service.Prefix = 24
	}
	if p := c.Service(t).Persistence; p.Timeout != 0 {
		g.service.Flags |= bpf.KernelServiceFlagsSERVICE_PERSISTENT
		g.service.ClientPrefix = int(p.Prefix)
		g.service.Timeouts = map[bpf.KernelConnState]time.Duration{bpf.KernelConnStateSTATE_TEMPLATE: p.Timeout}
	}
	for i, weight := range c.Weights {
		g.add(i, weight)
		f.Apply(g.service) // one by one, as ipvsadm did
	}
	var chosen []int
	for k := range c.Chosen {
		for _, step := range c.Steps {
			if step.At == k {
				g.change(step)
			}
		}
		chosen = append(chosen, g.connect(k))
	}
	return chosen
}

func (g *golden) add(i int, weight uint32) {
	server := g.server(i, weight)
	server.Address = g.Server(i)
	if i < len(g.Upper) {
		server.Upper, server.Lower = g.Upper[i], g.Lower[i]
	}
	g.servers[i] = server
	g.service.Servers = slices.Insert(g.service.Servers, 0, server)
}

func (g *golden) change(step directortest.GoldenStep) {
	g.t.Helper()
	switch step.Op {
	case "add":
		g.add(step.Server, step.Weight)
	case "del":
		gone := g.servers[step.Server]
		g.service.Servers = slices.DeleteFunc(g.service.Servers, func(s *bpftest.Server) bool { return s == gone })
	case "weight":
		g.servers[step.Server].Weight = step.Weight
	case "close":
		for _, c := range g.open {
			if c.server == step.Server {
				g.finish(c.client, c.virtual)
			}
		}
	default:
		g.t.Fatalf("unknown step %q", step.Op)
	}
	g.Apply(g.service)
}

// connect opens connection k, and closes it if the case says so; the number of its
// server, -1: none.
func (g *golden) connect(k int) int {
	g.t.Helper()
	client, virtual := g.Client(k), g.Virtual(k)
	if client.Port() == 0 {
		client = netip.AddrPortFrom(client.Addr(), uint16(10000+k))
	}
	server := g.selection.open(client, virtual)
	if server == nil {
		return -1
	}
	number := -1
	for i, s := range g.servers {
		if s == server {
			number = i
		}
	}
	switch g.Mode {
	case "open":
		g.open = append(g.open, goldenConnection{client, virtual, number})
	case "closed":
		g.finish(client, virtual)
	default:
		g.t.Fatalf("unknown mode %q", g.Mode)
	}
	return number
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
