package conformance

import (
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// guePort is where the servers take GUE.
const guePort = 6080

// unwrap has the servers take what comes by such tunnels: by the devices that each
// namespace has where the modules are loaded (ipip, ip6_tunnel, ip_gre, fou). Those
// take no checksum of GRE: one for the director alone does (kernel:
// net/ipv4/ip_tunnel.c, ip_tunnel_rcv).
func (b *bench) unwrap(o realserver.TunnelOptions) {
	b.Helper()
	if !b.Features().Tunnels {
		return
	}
	if b.Features().Plane == director.PlaneXDP {
		b.decapsulate()
		return
	}
	for _, s := range b.lab.Servers {
		for _, device := range []string{"tunl0", "ip6tnl0", "gre0"} {
			b.ip(s, "link", "set", device, "up")
		}
		if !strings.Contains(b.ip(s, "fou", "show"), strconv.Itoa(guePort)) {
			b.ip(s, "fou", "add", "port", strconv.Itoa(guePort), "gue")
		}
		const summed = "summed"
		if there := strings.Contains(b.ip(s, "link", "show"), summed); there {
			b.ip(s, "link", "delete", summed)
		}
		if o.Type == realserver.TunnelGRE && o.Checksum == realserver.TunnelChecksumOn {
			from, _, _ := strings.Cut(b.ip(s, "route", "get", "192.0.2.254"), " dev ")
			_, from, _ = strings.Cut(from, " via ")
			b.ip(s, "link", "add", summed, "type", "gre", "local", s.Addr4.String(), "remote", from, "icsum")
			b.ip(s, "link", "set", summed, "up")
		}
	}
}

// decapsulate has the servers do so by our own program, as shunt-agent's: kernels that
// XDP runs on need not have those modules.
func (b *bench) decapsulate() {
	b.Helper()
	if *b.decapsulates {
		return
	}
	*b.decapsulates = true
	if _, err := b.lab.Decapsulate(decap.Config{Ports: []uint16{guePort}}); err != nil {
		b.Fatal(err)
	}
}

// ip runs it at the server and returns what it prints.
func (b *bench) ip(s *directortest.Server, args ...string) string {
	b.Helper()
	out, err := s.Command(b.Context(), "ip", args...).Output()
	if err != nil {
		b.Fatalf("ip %s at %s: %v", strings.Join(args, " "), s.Name, err)
	}
	return string(out)
}
