package xdp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// stressTime is how long TestStress goes on, unless SHUNT_STRESS says another time.
const stressTime = 5 * time.Second

// Tables that are too small for what two CPUs begin, prove, end and time out in them
// are swept, listed, counted, killed in and resized meanwhile. No packet of a client
// that is proven goes astray; nothing is counted wrongly; and what is left can go.
func TestStress(t *testing.T) {
	last := stressTime
	if text := os.Getenv("SHUNT_STRESS"); text != "" {
		var err error
		if last, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SHUNT_STRESS: %v", err)
		}
	} else if bpftest.Rounds(4) < 4 {
		last /= 2
	}
	r := newStressRig(t)
	ctx, stop := context.WithTimeout(t.Context(), last)
	defer stop()
	var wait sync.WaitGroup
	crowds := make([]*crowd, 2)
	for i, cpu := range []int{0, runtime.NumCPU() - 1} {
		crowds[i] = r.newCrowd(byte(i))
		wait.Go(func() { crowds[i].run(ctx, cpu) })
	}
	counts := r.operate(ctx)
	wait.Wait()
	for _, c := range crowds {
		t.Logf("%d packets, %d proven, %d of them on their way, %d began anew, %d packets sent once more", c.packets, c.proven, c.sent, c.again, c.retried)
		if c.proven == 0 || c.sent == 0 {
			t.Error("no client was proven: nothing was looked at")
		}
	}
	t.Logf("%d sweeps, %d lists, %d counts, %d checks, %d resizes; %d killed, %d reset",
		counts.sweeps, counts.lists, counts.counts, counts.checks, counts.resizes, counts.killed, counts.reset)
	r.settled()
}

// stressRig has a service by NAT, one by DR, one that is wide and one with templates.
type stressRig struct {
	*stateRig
	root *ebpf.Program // as interfaces have it: resizes replace the plane's
}

func newStressRig(t *testing.T) *stressRig {
	t.Helper()
	r := &stressRig{stateRig: newStateRig(t, Options{MaxConnections: stressSmall, MaxConnectionsIPv6: stressSmall})}
	var err error
	if r.root, err = r.plane.ShuntRoot.Clone(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.root.Close() })
	// Idle for a moment, and over: but for what is established.
	err = r.plane.ChangeSettings(func(s *bpf.KernelSettings) {
		for _, state := range conntrack.States() {
			if state != conntrack.Established {
				s.Timeout[state] = 0
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Connections that there is room for: resizes go from one to the other.
const (
	stressSmall = 300
	stressLarge = 700
)

// operations are how often what was done.
type operations struct {
	sweeps, lists, counts, checks, resizes int
	killed, reset                          uint64
}

// operate does all that an operator and the daemon do, until the context ends.
func (r *stressRig) operate(ctx context.Context) (o operations) {
	var wait sync.WaitGroup
	again := func(n *int, pause time.Duration, do func() error) {
		wait.Go(func() {
			for ; ctx.Err() == nil; *n++ {
				if err := do(); err != nil && ctx.Err() == nil {
					r.t.Error(err)
					return
				}
				_ = sleep(ctx, pause)
			}
		})
	}
	again(&o.sweeps, time.Second, func() error {
		if err := r.sweep(ctx); !errors.Is(err, errCarrying) {
			return err
		}
		return nil
	})
	again(&o.lists, 5*time.Millisecond, func() error {
		for _, err := range r.Connections(ctx, director.ConnectionFilter{}) {
			if err != nil && !errors.Is(err, errExchanged) {
				return err
			}
		}
		return nil
	})
	again(&o.counts, 5*time.Millisecond, func() error {
		_, err := r.Count(ctx, director.ConnectionFilter{}, director.CountByServer)
		return err
	})
	again(&o.checks, 5*time.Millisecond, func() error {
		faults, err := r.Check(ctx)
		if len(faults) > 0 {
			r.t.Errorf("faults: %+v", faults)
		}
		return err
	})
	var kills int
	again(&kills, 50*time.Millisecond, func() error {
		end, total := r.Kill, &o.killed
		if kills%2 == 1 {
			end, total = r.Reset, &o.reset
		}
		v6 := kills / 2 % 2
		filter := director.ConnectionFilter{Client: wildClients[v6]}
		n, err := end(ctx, filter)
		*total += n
		if err != nil && (errors.Is(err, errExchanged) || strings.Contains(err.Error(), "changed at every one")) {
			return nil
		}
		return err
	})
	for size := uint64(stressLarge); ctx.Err() == nil; size = stressSmall + stressLarge - size {
		for _, prefix := range wildClients { // the small one has room for what packets begin meanwhile, and no more
			if _, err := r.Kill(ctx, director.ConnectionFilter{Client: prefix}); err != nil && !errors.Is(err, errExchanged) && ctx.Err() == nil {
				r.t.Log(err) // some changed at every try
			}
		}
		if _, err := r.Resize(ctx, size, size); err == nil {
			o.resizes++
		} else if ctx.Err() == nil && !errors.Is(err, director.ErrInvalid) { // too many for the small one
			r.t.Error(err)
		}
		_ = sleep(ctx, 200*time.Millisecond)
	}
	wait.Wait()
	return o
}

// wildClients are those that are killed.
var wildClients = [2]netip.Prefix{netip.MustParsePrefix("198.18.0.0/16"), netip.MustParsePrefix("2001:db8:bad::/48")}

// settled holds, when all is still, that nothing is wrong, and that all can go.
func (r *stressRig) settled() {
	r.t.Helper()
	if found := r.faults(); len(found) > 0 {
		r.t.Errorf("in the end: %v", found)
	}
	for _, name := range []string{"fault-map", "fault-server"} {
		if n := r.event(name); n > 0 {
			r.t.Errorf("%s: %d", name, n)
		}
	}
	for _, name := range []string{"expired-hit", "killed", "carried"} {
		if n := r.event(name); n == 0 {
			r.t.Errorf("%s never happened: the stress is not what it should be", name)
		} else {
			r.t.Logf("%s: %d", name, n)
		}
	}
	r.t.Logf("evicted: %d, carry-lost: %d, insert-race: %d, stale-read: %d, busy: %d, table-full: %d", r.event("evicted"), r.event("carry-lost"), r.event("insert-race"), r.event("stale-read"), r.event("busy"), r.event("table-full"))
	for range 3 {
		d := differentialRig{rig: r.rig}
		d.age(time.Hour)
		r.sweepNow()
	}
	for _, v6 := range []bool{false, true} {
		for e, err := range r.plane.Entries(v6) {
			if r.t.Errorf("left: %+v, %v", e, err); err != nil {
				return
			}
		}
	}
	if found := r.faults(); len(found) > 0 {
		r.t.Errorf("empty: %v", found)
	}
}

// crowd is the clients of one CPU: a few of its own, that it proves and looks after,
// and wild ones, which both CPUs have.
type crowd struct {
	*stressRig
	random                                *rand.Rand
	own                                   []*regular
	wild                                  [][]byte
	packets, proven, sent, again, retried int
}

// regular is a client that goes on: its frames, made beforehand.
type regular struct {
	client, virtual netip.AddrPort
	syn, data       []byte
	server          netip.AddrPort // that has it; zero: none yet
}

const (
	regulars  = 24 // of a CPU, in each family
	wildFrame = 3000
)

func (r *stressRig) newCrowd(number byte) *crowd {
	c := &crowd{stressRig: r, random: rand.New(rand.NewPCG(uint64(number), 9))}
	for v6, services := range r.services {
		for i := range byte(regulars) {
			// By NAT: their proof is the server's number.
			virtual := services[[]int{ofNAT, ofWide, ofPersistence}[i%3]].Key.Address
			text := fmt.Sprintf(stateFamilies[v6].client, 200+int(number), 1+i)
			client := netip.AddrPortFrom(netip.MustParseAddr(text), 5000+uint16(i))
			p := bpftest.Packet{Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: client, To: virtual, Protocol: bpftest.TCP}
			own := &regular{client: client, virtual: virtual}
			p.Flags, p.Seq = "S", 1000
			own.syn = p.Bytes()
			p.Flags, p.Seq, p.Ack = "A", 1001, serverNumber+1
			own.data = p.Bytes()
			c.own = append(c.own, own)
		}
		c.addWild(v6, services)
	}
	return c
}

const serverNumber = 77000

func (c *crowd) addWild(v6 int, services []director.Service) {
	for range wildFrame {
		host := 1 + c.random.IntN(120)
		if c.random.IntN(2) == 0 {
			host = 1 + host%4 // both CPUs meet at these
		}
		b := wildClients[v6].Addr().AsSlice()
		b[len(b)-1] = byte(host)
		address, _ := netip.AddrFromSlice(b)
		client := netip.AddrPortFrom(address, uint16(3000+host%3))
		service := services[c.random.IntN(len(services))]
		p := bpftest.Packet{
			Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: client, To: service.Key.Address,
			Protocol: uint8(service.Key.Protocol), Seq: 1000, Ack: serverNumber + uint32(c.random.IntN(16)/15),
		}
		p.Flags = []string{"S", "S", "S", "A", "A", "FA", "R"}[c.random.IntN(7)]
		if server := service.Servers[c.random.IntN(2)]; c.random.IntN(3) == 0 {
			p.From, p.To, p.Flags, p.Seq = server.Address, client, []string{"SA", "A", "FA", "RA"}[c.random.IntN(4)], serverNumber
		}
		c.wild = append(c.wild, p.Bytes())
	}
}

// run sends until the context ends, on a thread of its own that ends with it.
func (c *crowd) run(ctx context.Context, cpu int) {
	runtime.LockOSThread() // never unlocked: the affinity goes with the thread
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		c.t.Error(err)
		return
	}
	for ctx.Err() == nil {
		var err error
		if c.random.IntN(4) == 0 {
			err = c.attend(c.own[c.random.IntN(len(c.own))])
		} else {
			_, _, err = c.pass(c.wild[c.random.IntN(len(c.wild))])
		}
		if err != nil {
			c.t.Error(err)
			return
		}
	}
}

// pass sends a frame; the frame that leaves, nil if none does.
func (c *crowd) pass(frame []byte) ([]byte, bpftest.Action, error) {
	c.packets++
	options := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 512)}
	action, err := c.root.Run(&options)
	if a := bpftest.Action(action); err != nil || a != bpftest.TX && a != bpftest.Redirect {
		return nil, a, err
	}
	return options.DataOut, bpftest.Action(action), bpftest.Verify(options.DataOut)
}

// attend has a client go on: its packets go where they went before. One without a
// connection begins it and proves itself.
func (c *crowd) attend(own *regular) error {
	if own.server.IsValid() {
		out, action, err := c.pass(own.data)
		for try := 0; err == nil && out == nil && try < 3; try++ { // it comes over, or another CPU's is the claim
			c.retried++
			time.Sleep(time.Millisecond)
			out, action, err = c.pass(own.data)
		}
		if err != nil {
			return err
		}
		if out == nil {
			return fmt.Errorf("%s -> %s, proven and with server %s: %v", own.client, own.virtual, own.server, action)
		}
		if _, to := endsOf(out); to != own.server {
			return fmt.Errorf("%s -> %s, proven and with server %s: sent to %s", own.client, own.virtual, own.server, to)
		}
		c.sent++
		return nil
	}
	out, _, err := c.pass(own.syn)
	if err != nil || out == nil {
		return err
	}
	_, server := endsOf(out)
	if server == own.client {
		return fmt.Errorf("%s -> %s: answered", own.client, own.virtual)
	}
	reply := bpftest.Packet{
		Source: bpftest.ServerMAC, Destination: bpftest.DirectorInside, From: server, To: own.client,
		Protocol: bpftest.TCP, Flags: "SA", Seq: serverNumber, Ack: 1001,
	}
	if out, _, err = c.pass(reply.Bytes()); err != nil || out == nil {
		c.again++ // given up for another
		return err
	}
	if from, _ := endsOf(out); from != own.virtual {
		return fmt.Errorf("%s: reply of %s left from %s", own.client, own.virtual, from)
	}
	if out, _, err = c.pass(own.data); err != nil || out == nil {
		c.again++
		return err
	}
	if _, to := endsOf(out); to != server {
		return fmt.Errorf("%s: began with %s, proves itself to %s", own.client, server, to)
	}
	own.server = server
	c.proven++
	return nil
}
