package labtest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// echoes fails the test unless echo requests are answered as wanted; it returns how many
// were sent.
func echoes(t *testing.T, n *directortest.Namespace, to netip.Addr, want bool) uint64 {
	t.Helper()
	sizes, patience := []int{0, 1, 1452}, "10" // seconds; it ends with the answer
	if !want {
		sizes, patience = sizes[2:], "0.2"
	}
	for _, size := range sizes {
		r := execute(t, n.Command(t.Context(), "ping", "-n", "-q", "-c", "1", "-W", patience, "-s", fmt.Sprint(size), to.String()))
		if r.code > 1 || r.code == 0 != want { // 1: no answer came
			t.Errorf("ping of %d octets to %s: exit code %d, an answer wanted: %t\n%s%s", size, to, r.code, want, r.stdout, r.stderr)
		}
	}
	return uint64(len(sizes))
}

// TestPing asks virtual addresses for an echo in every setting, those of a service with
// and without a server to offer. What is not ours is never answered by the data plane.
func TestPing(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.Routed, Forwarding: directortest.On})
	d := startDaemon(t, lab)
	with, without := [2]netip.Addr{host(vip4, 21), host(vip6, 0x21)}, [2]netip.Addr{host(vip4, 22), host(vip6, 0x22)}
	for i := range with {
		// On no interface of the director: its stack has no answer.
		for _, vip := range []netip.Addr{with[i], without[i]} {
			to := netip.AddrPortFrom(vip, 80)
			d.do(t, fmt.Sprintf("service add tcp://%s --vip external\nserver add tcp://%s %s --method nat", to, to, lab.Servers[0].Addr(vip)))
		}
		d.do(t, fmt.Sprintf("server edit tcp://%s %s --weight 0", netip.AddrPortFrom(without[i], 80), netip.AddrPortFrom(lab.Servers[0].Addr(without[i]), 80)))
	}
	for _, mode := range []struct {
		echo          string
		with, without bool
		counted       [2]string // as which event
	}{
		{"service", true, false, [2]string{"echo", "echo-dropped"}},
		{"always", true, true, [2]string{"echo", "echo"}},
		{"stack", false, false, [2]string{"icmp", "icmp"}},
	} {
		t.Run(mode.echo, func(t *testing.T) {
			d.restartWith(t, "director: {echo: "+mode.echo+"}\n")
			for i := range with {
				for k, to := range []netip.Addr{with[i], without[i]} {
					before := d.events(t)[mode.counted[k]]
					sent := echoes(t, lab.Client, to, []bool{mode.with, mode.without}[k])
					if got := d.events(t)[mode.counted[k]] - before; got < sent || got != sent && mode.echo != "stack" { // which forwards it, to come again
						t.Errorf("%s: %d requests counted as %s, want %d", to, got, mode.counted[k], sent)
					}
				}
				before := d.events(t)
				echoes(t, lab.Client, own(with[i]), true)
				echoes(t, lab.Client, lab.Servers[0].Addr(with[i]), true)
				if mode.echo == "always" {
					echoes(t, lab.Client, host(with[i], 99), false) // routed to the director, and nobody's
				}
				if now := d.events(t); now["echo"] != before["echo"] || now["echo-dropped"] != before["echo-dropped"] {
					t.Errorf("what is not ours was answered or dropped: %v, before %v", nonzero(now), nonzero(before))
				}
			}
		})
	}
	d.noFaults(t, "echo-dropped")
}

// TestTraceroute follows the way to services by every kind of probe. The director is a
// hop, which answers from the virtual address, and the last is the server, or the
// director where that answers itself.
func TestTraceroute(t *testing.T) {
	t.Parallel()
	r := startRouted(t, routing{})
	r.serve(t)
	for _, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			router, vip := "10.1.0.1", o.vip.Addr().String()
			if o.vip.Addr().Is6() {
				router = "fd00:1::1"
			}
			hops := 3
			if o.isFar && !o.isTunnel() {
				hops = 4 // the router before it sees the packet itself
			}
			for _, probe := range []struct {
				kind []string
				hops int
			}{
				{[]string{"-T", "-p", fmt.Sprint(o.vip.Port())}, hops}, // the server's SYN-ACK
				{[]string{"-U", "-p", fmt.Sprint(o.vip.Port())}, hops}, // its port unreachable: nobody listens by UDP
				{[]string{"-I"}, 2}, // the data plane's echo
			} {
				got := traceroute(t, r.lab.Client, r.client(o, 0), o.vip.Addr(), probe.kind...)
				if len(got) != probe.hops || got[0] != router || got[1] != vip || got[len(got)-1] != vip || slices.Contains(got, "*") {
					t.Errorf("%s shows %q, want %d hops, first %s, then %s, which is the last too\n%s",
						probe.kind, got, probe.hops, router, vip, r.d.shunt(t, "drops"))
				}
			}
		})
	}
	r.d.noFaults(t)
}

// traceroute returns the hops, "*" for those that did not answer.
func traceroute(t *testing.T, n *directortest.Namespace, from, to netip.Addr, kind ...string) []string {
	t.Helper()
	args := append(kind, "-n", "-q", "1", "-m", "6", "-w", "10", "-s", from.String(), to.String())
	r := execute(t, n.Command(t.Context(), "traceroute", args...))
	if r.code != 0 {
		t.Fatalf("traceroute %s: exit code %d: %s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	var hops []string
	for line := range strings.Lines(r.stdout) {
		if words := strings.Fields(line); len(words) > 1 && words[0] != "traceroute" {
			hops = append(hops, words[1])
		}
	}
	return hops
}
