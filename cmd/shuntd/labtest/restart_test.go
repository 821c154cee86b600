package labtest

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// load is requests that go on until they are stopped: on connections that stay,
// and on new ones.
type load struct {
	done atomic.Uint64 // requests answered
	stop chan struct{}
	wait sync.WaitGroup
}

func (p pair) startLoad(t *testing.T) *load { return p.startPacedLoad(t, 0) }

// startPacedLoad is startLoad with a pause before each new connection: those that have
// ended stay in the table for two minutes.
func (p pair) startPacedLoad(t *testing.T, pause time.Duration) *load {
	t.Helper()
	l := &load{stop: make(chan struct{})}
	repeat := func(request func() error) {
		l.wait.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := request(); err != nil {
					t.Error(err)
					return
				}
				l.done.Add(1)
			}
		})
	}
	for range 4 {
		repeat(mustOpen(t, p.lab.Client, p.vip).ask)
		repeat(func() error {
			time.Sleep(pause)
			_, err := job{service: "web", address: p.vip, size: 5000}.run(p.lab.Client)
			return err
		})
	}
	return l
}

// more waits for further requests.
func (l *load) more(t *testing.T, count uint64) {
	t.Helper()
	target := l.done.Load() + count
	await(t, "requests", func() bool { return l.done.Load() >= target || t.Failed() })
}

func (l *load) end() {
	close(l.stop)
	l.wait.Wait()
}

// pairings returns which server each of the connections is paired with.
func (d *daemon) pairings(t *testing.T, calls []*call) []string {
	t.Helper()
	all := map[string]string{}
	for _, c := range read[[]api.Connection](t, d, "conn", "list") {
		all[c.Client+" "+c.Virtual] = strings.Join([]string{c.Client, c.Virtual, c.Server, c.Method, c.State}, " ")
	}
	var pairs []string
	for _, c := range calls {
		pairs = append(pairs, all[c.local()+" "+c.conn.RemoteAddr().String()])
	}
	return pairs
}

func TestKilledAndRestartedUnderLoad(t *testing.T) {
	t.Parallel()
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			p := startPair(t, method)
			var held []*call
			for range 20 {
				held = append(held, mustOpen(t, p.lab.Client, p.vip))
			}
			before := p.d.pairings(t, held)
			if slices.Contains(before, "") {
				t.Fatalf("the table lacks connections: %q", before)
			}
			configuration := p.d.configuration(t)
			l := p.startLoad(t)
			for range 2 {
				l.more(t, 50)
				p.d.kill()
				l.more(t, 50)
				p.d.start(t)
			}
			l.more(t, 50)
			l.end()
			if !strings.Contains(p.d.log.String(), "adopted") {
				t.Error("the new daemon adopted nothing")
			}
			if after := p.d.pairings(t, held); !slices.Equal(before, after) {
				t.Errorf("pairings before %q, after %q", before, after)
			}
			if after := p.d.configuration(t); after != configuration {
				t.Errorf("configuration before:\n%safter:\n%s", configuration, after)
			}
			for _, c := range held {
				if err := c.ask(); err != nil {
					t.Error(err)
				}
			}
			p.d.noFaults(t)
			if total, _ := p.d.counters(t, "web"); total.In.Packets < l.done.Load() {
				t.Errorf("the director counted %d packets for %d requests: they bypassed it", total.In.Packets, l.done.Load())
			}
		})
	}
}

func TestStoppedDaemonLeavesTrafficFlowing(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	c := p.on(t, 0)
	before, _ := p.d.counters(t, "web")
	p.d.stop(t)
	if !strings.Contains(p.d.log.String(), "stopping: traffic flows on") {
		t.Errorf("it said:\n%s", p.d.log)
	}
	if err := c.ask(); err != nil {
		t.Error(err)
	}
	p.requests(t, 50)
	p.d.start(t)
	after, _ := p.d.counters(t, "web")
	if got := after.Connections - before.Connections; got == 0 || got > 50 {
		t.Errorf("the fast path counted %d connections for 50 requests without a daemon", got)
	}
	if err := c.ask(); err != nil {
		t.Error(err)
	}
	p.d.noFaults(t)
}

// nothingLeft wants no pins, no programs on the interfaces, no VIP.
func nothingLeft(t *testing.T, lab *directortest.Lab, d *daemon) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(d.pins)); err != nil || len(entries) > 0 {
		t.Errorf("pins are left: %v, %v", entries, err)
	}
	for _, name := range lab.DirectorLinks {
		l, err := lab.Director.Netlink().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
			t.Errorf("%s has an XDP program still", name)
		}
	}
	for _, vip := range []netip.Addr{vip4, vip6} {
		if hasAddress(t, lab.Director, "lo", vip) {
			t.Errorf("lo has %s still", vip)
		}
	}
}

func hasAddress(t *testing.T, ns *directortest.Namespace, link string, addr netip.Addr) bool {
	t.Helper()
	l, err := ns.Netlink().LinkByName(link)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := ns.Netlink().AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(addr.AsSlice()) })
}

func TestDetach(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"shunt", "shuntd_after_a_stop", "shuntd_after_a_kill"} {
		t.Run(by, func(t *testing.T) {
			lab := startLab(t, directortest.TwoArmed)
			d := startDaemon(t, lab)
			d.do(t, "service add tcp://192.0.2.10:80\nservice add udp://[2001:db8::10]:53")
			if !hasAddress(t, lab.Director, "lo", vip4) || !hasAddress(t, lab.Director, "lo", vip6) {
				t.Error("lo has not the virtual addresses")
			}
			if by == "shunt" {
				d.do(t, "detach")
				d.wait(t)
			} else {
				if by == "shuntd_after_a_kill" {
					d.kill()
				} else {
					d.stop(t)
				}
				if r := d.offline(t, "detach", "--pin-dir", d.pins); r.code != 0 {
					t.Fatalf("shuntd detach: %d: %s", r.code, r.stderr)
				}
			}
			nothingLeft(t, lab, d)
			if r := d.offline(t, "detach", "--pin-dir", d.pins); r.code != 0 || !strings.Contains(r.stderr, "nothing to detach") {
				t.Errorf("detaching again: %d: %s", r.code, r.stderr)
			}
		})
	}
}

// A running daemon's data plane is not taken away behind its back.
func TestDetachRefusesWhileADaemonRuns(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	r := p.d.offline(t, "detach", "--pin-dir", p.d.pins)
	if r.code != 1 || !strings.Contains(r.stderr, "another shuntd") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
	p.requests(t, 2)
}

// offline runs a command of shuntd to its end.
func (d *daemon) offline(t *testing.T, args ...string) result {
	t.Helper()
	return execute(t, d.as(d.ns.Command(t.Context(), filepath.Join(binaries, "shuntd"), args...)))
}

// An expired connection is dead to the fast path while no daemon sweeps, and
// leaves the table when one is back.
func TestExpiryDoesNotNeedTheDaemon(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2})
	if _, err := lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab)
	vip := netip.AddrPortFrom(vip4, 53)
	d.do(t, "timeouts --udp 1s\nservice add udp://192.0.2.10:53 --name dns --scheduler rr")
	for _, s := range lab.Servers {
		d.do(t, "server add dns "+s.Addr4.String()+" --method nat")
	}
	d.stop(t)
	from := netip.AddrPortFrom(lab.ClientAddrs4[0], 5000)
	ask := func() string {
		name, err := lab.Client.QueryUDP(t.Context(), from, vip, 1, limit)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	first := ask()
	<-time.After(2500 * time.Millisecond) // the timeout, a second in which last-seen may be late, and two ticks
	// Were the entry alive, the same client would go to the same server.
	if second := ask(); second == first {
		t.Errorf("the expired connection was followed to %s", second)
	}
	d.start(t)
	await(t, "expired connections leave", func() bool { return d.connections(t) == 0 })
	if total, _ := d.counters(t, "dns"); total.Connections != 2 {
		t.Errorf("the director counted %d connections, want 2", total.Connections)
	}
	for _, s := range read[api.Service](t, d, "service", "show", "dns").Servers {
		if s.Active+s.Inactive != 0 {
			t.Errorf("server %s has %d+%d connections left", s.Address, s.Active, s.Inactive)
		}
	}
	d.noFaults(t)
}
