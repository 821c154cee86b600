package labtest

import (
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// A daemon that stands still for longer than any of its intervals, as on a machine
// that is short of CPU time, and goes on: traffic has not noticed, and what expired
// meanwhile leaves the table. A suspended machine's clocks stand still with it.
func TestDaemonStandsStill(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	if _, err := p.lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	p.d.do(t, "timeouts --udp 1s\nservice add udp://192.0.2.10:53 --name dns --scheduler rr")
	for _, s := range p.lab.Servers {
		p.d.do(t, "server add dns "+s.Addr4.String()+" --method nat")
	}
	var held []*call
	for range 4 {
		held = append(held, mustOpen(t, p.lab.Client, p.vip))
	}
	before := p.d.pairings(t, held)
	if err := p.d.process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	from, dns := netip.AddrPortFrom(p.lab.ClientAddrs4[0], 5000), netip.AddrPortFrom(vip4, 53)
	if _, err := p.lab.Client.QueryUDP(t.Context(), from, dns, 1, limit); err != nil {
		t.Error(err)
	}
	for range 11 { // seconds: longer than every interval of the daemon's but reviews of destinations
		<-time.After(time.Second)
		for _, c := range held {
			if err := c.ask(); err != nil {
				t.Error(err)
			}
		}
		p.requests(t, 2)
	}
	if err := p.d.process.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.requests(t, 2)
	await(t, "what expired leaves", func() bool { return p.d.connections(t, "--service", "dns") == 0 })
	for i, pair := range p.d.pairings(t, held) {
		if pair != before[i] {
			t.Errorf("a connection that was %q is %q", before[i], pair)
		}
	}
	for _, c := range held {
		if err := c.ask(); err != nil {
			t.Error(err)
		}
	}
	p.d.noFaults(t)
}
