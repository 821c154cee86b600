package labtest

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestPrepare takes real servers that have nothing but their addresses: check names what
// is wrong, prepare mends it, clients are served, and undo puts back all that was there.
func TestPrepare(t *testing.T) {
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 3, VIPs: []netip.Addr{}})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	var hosts []realHost
	for _, s := range lab.Servers {
		hosts = append(hosts, realHost{s.Namespace, t.TempDir(), t})
	}
	direct, tunnelled, translated := hosts[0], hosts[1], hosts[2]
	ok(t, translated.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.2.0.99")))
	far := netip.MustParseAddr("192.0.2.11")
	for _, h := range hosts {
		for knob, value := range map[string]string{"all/arp_ignore": "0", "all/arp_announce": "0", "eth0/rp_filter": "1"} {
			ok(t, h.Sysctl("net/ipv4/conf/"+knob, value))
		}
		for _, vip := range []netip.Addr{vip4, far} { // replies do not go by the director
			ok(t, h.AddRouteFrom(vip, netip.MustParsePrefix("10.1.0.0/16"), "eth0"))
		}
		ok(t, h.AddRouteFrom(vip6, netip.MustParsePrefix("fd00:1::/64"), "eth0"))
	}
	config := filepath.Join(t.TempDir(), "shunt.yaml")
	writeFile(t, config, fmt.Sprintf(`
services:
  - {name: near4, listen: "tcp://%s:80", servers: [{address: 10.2.0.11, method: dr}]}
  - {name: near6, listen: "tcp://[%s]:80", servers: [{address: "fd00:2::b", method: dr}]}
  - {name: behind, listen: "tcp://192.0.2.12:80", servers: [{address: 10.2.0.13, method: nat}]}
  - {name: far, listen: "tcp://%s:80", servers: [{address: 10.2.0.12, method: tunnel, tunnel: {type: ipip}}]}
`, vip4, vip6, far))
	d := startDaemon(t, lab, "--config", config)

	pins := filepath.Join(directortest.Bpffs(t), "agent")
	dr := []string{"--method", "dr", "--vip", vip4.String(), "--vip", vip6.String()}
	ipip := []string{"--method", "ipip", "--vip", far.String(), "--director", "10.2.0.1", "--pin-dir", pins}
	nat := []string{"--method", "nat", "--director", "10.2.0.1"}
	is := func() []string { return []string{direct.is(), tunnelled.is(), translated.is()} }
	before := is()

	const arp, strict = "eth0: arp_ignore is 0: ", "eth0: rp_filter is strict"
	direct.check(dr, 1, arp, "eth0: arp_announce is 0: ", strict, "192.0.2.10: it is not on this host", "2001:db8::10: it is not on this host")
	tunnelled.check(ipip, 1, strict, "192.0.2.11: it is not on this host", "decapsulation: it does not run")
	translated.check(nat, 1, "clients 0.0.0.0/0: they are answered by 10.2.0.99, not by the director")
	if said := direct.run(append([]string{"prepare", "--dry-run"}, dr...), 0); strings.Count(said, "would set ") != 7 {
		t.Errorf("a dry run says:\n%s", said)
	}
	if diff := cmp.Diff(before, is()); diff != "" {
		t.Errorf("a check changes the host (-before +after)\n%s", diff)
	}
	direct.run(append([]string{"prepare", "--state", direct.state()}, dr...), 0)
	tunnelled.run(append([]string{"prepare", "--state", tunnelled.state()}, ipip...), 0)
	translated.run(append([]string{"prepare", "--route", "--state", translated.state()}, nat...), 0)
	translated.check(append(nat, "--port", "80"), 0, "no problems found")
	direct.check(append(dr, "--port", "80"), 0, "no problems found", "firewall rules were not looked at")
	direct.check(append(dr, "--port", "81"), 1, "port 81/tcp: nobody listens on it at 192.0.2.10")
	tunnelled.check(append(ipip, "--port", "80"), 0, "eth0: its MTU of 1500 leaves clients' packets 1480 octets", "no problems found")
	if said := direct.run(append([]string{"prepare", "--state", direct.state()}, dr...), 0); said != "nothing to change: the host is prepared\n" {
		t.Errorf("a second time:\n%s", said)
	}
	for i, vip := range []netip.Addr{vip4, vip6, far, netip.MustParseAddr("192.0.2.12")} {
		want := lab.Servers[max(i-1, 0)].Name
		if by, err := (job{address: netip.AddrPortFrom(vip, 80), size: 100_000}).run(lab.Client); err != nil || by != want {
			t.Errorf("%s: answered by %q, %v, want %s", vip, by, err, want)
		}
	}
	direct.run([]string{"undo", "--state", direct.state()}, 0)
	tunnelled.run([]string{"undo", "--state", tunnelled.state()}, 0)
	translated.run([]string{"undo", "--state", translated.state()}, 0)
	if diff := cmp.Diff(before, is()); diff != "" {
		t.Errorf("undo does not put back what was there (-before +after)\n%s", diff)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if conn, err := lab.Client.Dial(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(vip4, 80)); err == nil {
		t.Errorf("%s is served after undo", conn.RemoteAddr())
		_ = conn.Close()
	}
	if said := direct.run([]string{"undo", "--state", direct.state()}, 0); said != "nothing to undo\n" {
		t.Errorf("undo a second time:\n%s", said)
	}
	d.noFaults(t)
}

// realHost is one that shunt-agent is run on.
type realHost struct {
	*directortest.Namespace

	folder string
	t      *testing.T
}

func (h realHost) state() string { return filepath.Join(h.folder, "lib", "prepared.json") }

// run runs the agent and returns what it says.
func (h realHost) run(args []string, code int) string {
	h.t.Helper()
	text, err := h.Command(h.t.Context(), filepath.Join(binaries, "shunt-agent"), args...).CombinedOutput()
	got := 0
	if exit, isExit := err.(*exec.ExitError); isExit {
		got = exit.ExitCode()
	} else if err != nil {
		h.t.Fatal(err)
	}
	if got != code {
		h.t.Errorf("%s in %s: exit code %d, want %d:\n%s", strings.Join(args, " "), h.Name, got, code, text)
	}
	return string(text)
}

// check runs check, which must say these things.
func (h realHost) check(args []string, code int, want ...string) {
	h.t.Helper()
	said := h.run(append([]string{"check"}, args...), code)
	for _, w := range want {
		if !strings.Contains(said, w) {
			h.t.Errorf("check in %s does not say %q:\n%s", h.Name, w, said)
		}
	}
}

// is all that prepare could change of the host.
func (h realHost) is() string {
	h.t.Helper()
	text, err := h.Command(h.t.Context(), "sh", "-c",
		`grep . /proc/sys/net/ipv[46]/conf/*/* /proc/sys/net/ipv4/ip_forward 2>/dev/null | grep -v stable_secret; ip address; ip -d link; ip route show table all; ip -6 route show table all; ip rule`).Output()
	ok(h.t, err)
	return string(text)
}
