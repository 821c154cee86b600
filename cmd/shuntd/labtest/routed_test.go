package labtest

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/director/directortest"
)

// way is a method with its options.
type way struct {
	name, method, tunnel string // the last in words of the configuration
	overhead             int    // octets between outer IP header and packet
}

var ways = []way{
	{name: "nat", method: nat},
	{name: "dr", method: dr},
	{name: fullnat, method: fullnat},
	{name: "ipip", method: "tunnel", tunnel: "type: ipip"},
	{name: "gue", method: "tunnel", tunnel: "type: gue, port: 6080", overhead: 12},
	{name: "gue-full", method: "tunnel", tunnel: "type: gue, port: 6080, checksum: full", overhead: 12},
	{name: "gre", method: "tunnel", tunnel: "type: gre", overhead: 4},
	{name: "gre-full", method: "tunnel", tunnel: "type: gre, checksum: full", overhead: 8},
}

func (w way) isTunnel() bool { return w.tunnel != "" }

// keepsClient says whether servers see the client's address.
func (w way) keepsClient() bool { return w.method != fullnat }

// locals are the addresses that stand in for clients' by full NAT. Those of IPv4 are in
// the servers' network, where the director answers ARP for what is on its lo. Neighbour
// discovery answers for the interface's own only: those of IPv6 are routed to the director.
var locals = []string{"10.2.0.64/31", "fd00:6::/127"}

// target is a service of one server in one way.
type target struct {
	way
	name   string
	vip    netip.AddrPort
	server *directortest.Server
	at     netip.AddrPort // its address
	isFar  bool
}

// isPlain says that the server is on the director's link, and of the clients' family.
func (o target) isPlain() bool { return !o.isFar && o.vip.Addr().Is4() == o.at.Addr().Is4() }

// headers is how many octets the tunnel adds.
func (o target) headers() int {
	switch {
	case !o.isTunnel():
		return 0
	case o.at.Addr().Is4():
		return 20 + o.overhead
	}
	return 40 + o.overhead
}

// routed is a routed lab with a daemon and services in all ways, of TCP and UDP.
type routed struct {
	lab     *directortest.Lab
	d       *daemon
	targets []target
	ports   int // of the client that were used
}

// routing is what a routed lab is like.
type routing struct {
	clients int // addresses of the client; 0: 1
	// forwarding is the director's. It has to route errors of its own to clients of
	// tunnels, whose packets do not come back by it.
	forwarding directortest.Switch
	settings   string                        // more of the director, in lines of the configuration
	among      func(target) bool             // which targets there are; nil: all
	prepare    func(*directortest.Lab) error // what comes before the daemon; nil: nothing
	unwrap     func(*directortest.Lab) error // has servers take packets out of tunnels; nil: by the agent's program
}

func startRouted(t *testing.T, options routing) *routed {
	t.Helper()
	r := &routed{lab: directortest.Start(t, directortest.Topology{Shape: directortest.Routed, Clients: options.clients, Forwarding: options.forwarding})}
	var services strings.Builder
	for _, w := range ways {
		for _, vip := range []netip.Addr{vip4, vip6} {
			for i, server := range r.lab.Servers {
				for _, address := range []netip.Addr{server.Addr4, server.Addr6} {
					r.offer(&services, w, vip, server, address, i == len(r.lab.Servers)-1, options.among)
				}
			}
		}
	}
	if options.unwrap == nil {
		options.unwrap = func(lab *directortest.Lab) error {
			_, err := lab.Decapsulate(decap.Config{})
			return err
		}
	}
	for _, step := range []func(*directortest.Lab) error{options.prepare, options.unwrap} {
		if step == nil {
			continue
		}
		if err := step(r.lab); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "shunt.yaml")
	text := "director:\n  icmp-rate: 100000\n  fullnat: {addresses: [\"" + strings.Join(locals, `", "`) + "\"]}\n" + options.settings + "services:\n" + services.String()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.d = startDaemon(t, r.lab, "--config", path)
	return r
}

// offer adds a service, if there is such a one and it is among those wanted.
func (r *routed) offer(services *strings.Builder, w way, vip netip.Addr, server *directortest.Server, address netip.Addr, isFar bool, among func(target) bool) {
	port := uint16(8000 + len(r.targets))
	o := target{way: w, vip: netip.AddrPortFrom(vip, port), server: server, at: netip.AddrPortFrom(address, port), isFar: isFar}
	if w.method == nat || w.method == fullnat {
		o.at = netip.AddrPortFrom(address, port+1000)
	}
	o.name = w.name + family(vip)
	switch {
	case vip.Is4() != address.Is4() && !w.isTunnel(), isFar && w.method == dr:
		return
	case vip.Is4() != address.Is4():
		o.name += "-on-" + family(address)
	}
	if isFar {
		o.name += "-far"
	}
	if among != nil && !among(o) {
		return
	}
	r.targets = append(r.targets, o)
	tunnel := ""
	if w.isTunnel() {
		tunnel = "tunnel: {" + w.tunnel + "}, "
	}
	for _, protocol := range []string{"tcp", "udp"} {
		fmt.Fprintf(services, "  - {name: %s-%s, listen: \"%s://%s\", scheduler: rr, method: %s, servers: [{%saddress: \"%s\"}]}\n",
			protocol, o.name, protocol, o.vip, w.method, tunnel, o.at)
	}
}

func family(addr netip.Addr) string {
	if addr.Is4() {
		return "4"
	}
	return "6"
}

// client is the i-th address of the client for a target.
func (r *routed) client(o target, i int) netip.Addr {
	if o.vip.Addr().Is4() {
		return r.lab.ClientAddrs4[i]
	}
	return r.lab.ClientAddrs6[i]
}

// serve starts a web server where each target has its own.
func (r *routed) serve(t *testing.T) {
	t.Helper()
	for _, o := range r.targets {
		web, err := o.server.StartWeb(netip.AddrPortFrom(netip.IPv6Unspecified(), o.at.Port()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = web.Close() })
	}
}

// fetch has the i-th client send or get a body over a connection of its own, which must
// be whole within the limit, and returns the answer's header.
func (r *routed) fetch(t *testing.T, o target, i int, size int64, upload bool) http.Header {
	t.Helper()
	r.ports++
	j := job{
		service: o.name, from: netip.AddrPortFrom(r.client(o, i), uint16(20_000+r.ports)), address: o.vip, size: size, upload: upload,
	}
	start := time.Now()
	header, err := j.do(r.lab.Client)
	if err != nil {
		t.Errorf("%s: %v after %s\n%s", o.name, err, time.Since(start), r.d.shunt(t, "drops"))
		return http.Header{}
	}
	if got := header.Get(directortest.HeaderServer); got != o.server.Name {
		t.Errorf("%s: answered by %s, want %s", o.name, got, o.server.Name)
	}
	return header
}

// between runs what is to change the director's packet events, and returns by how much.
func (r *routed) between(t *testing.T, run func()) map[string]uint64 {
	t.Helper()
	before := r.d.events(t)
	run()
	after := r.d.events(t)
	for name := range after {
		after[name] -= before[name]
	}
	return after
}

// learnedMTU is the MTU that a namespace has learned of a path; 0: none.
func learnedMTU(t *testing.T, n *directortest.Namespace, to, from netip.Addr) (mtu int) {
	t.Helper()
	out, err := n.Command(t.Context(), "ip", "route", "get", to.String(), "from", from.String()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, after, found := strings.Cut(string(out), " mtu "); found {
		_, _ = fmt.Sscan(after, &mtu) // stays 0
	}
	return mtu
}

// forget has a namespace forget what it has learned of paths.
func forget(t *testing.T, n *directortest.Namespace) {
	t.Helper()
	for _, of := range []string{"-4", "-6"} {
		if out, err := n.Command(t.Context(), "ip", of, "route", "flush", "cache").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// restartWith starts the daemon again, with a configuration.
func (d *daemon) restartWith(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.stop(t)
	args := d.args
	d.args = append(slices.Clone(args), "--config", path)
	d.start(t)
	d.args = args
}
