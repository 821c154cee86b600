package ipvs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// export/apply is the identity on the kernel: what a director applied is written as
// a file, the kernel is emptied, and a director that knows nothing applies the file.
func TestGuestExportApply(t *testing.T) {
	r := newRig(t)
	d := r.direct(t, &directortest.Store{}, director.State{})
	force := director.Request{Who: "the test", Force: true}
	services, servers := 0, 0
	for seed := range uint64(12) {
		state := drawState(rand.New(rand.NewPCG(seed, 0)))
		// Onto what the seed before left: edits, as well as additions.
		if _, err := d.Apply(t.Context(), force, state); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		before := r.shown(t)
		text, err := config.Format(d.State())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		r.script(t, "-C", "--set 1 2 3")
		if gone := r.shown(t); strings.Contains(gone, "\n-A ") || !strings.HasSuffix(gone, ": 1 2 3\n") {
			t.Fatalf("seed %d: the kernel was not emptied:\n%s", seed, gone)
		}
		parsed, err := config.Parse("export.yaml", text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		r = openIn(t, r.ns)
		d = r.direct(t, &directortest.Store{}, director.State{})
		if _, err := d.Apply(t.Context(), force, parsed.State); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		if diff := cmp.Diff(before, r.shown(t)); diff != "" {
			t.Fatalf("seed %d: ipvsadm (-before +after):\n%s\nof\n%s", seed, diff, text)
		}
		// And before was what had been drawn.
		r.holds(t, state.Services...)
		services += strings.Count(before, "\n-A ")
		servers += strings.Count(before, "\n-a ")
	}
	t.Logf("seeds 0 to 11: %d services, %d servers", services, servers)
	if services != 12*9 || servers < 150 {
		t.Error("the draws are too small")
	}
}

// shown is all that ipvsadm tells of the configuration; a process costs dearly in
// the guest, so one reads the command lines.
func (r *rig) shown(t *testing.T) string {
	t.Helper()
	cmd := r.ns.Command(t.Context(), "ipvsadm", "-R")
	cmd.Stdin = strings.NewReader("-L -n --thresholds\n-L -n --tun-info\n-L -n\n-S -n\n-L --timeout\n")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("ipvsadm -R: %v: %s", err, errs.String())
	}
	return string(out)
}

// drawState draws services that have all that the kernel can hold, in its
// schedulers.
func drawState(r *rand.Rand) director.State {
	seconds := func(limit int) time.Duration { return time.Duration(1+r.IntN(limit)) * time.Second }
	state := director.State{Timeouts: conntrack.Timeouts{TCP: seconds(90000), TCPFin: seconds(900), UDP: seconds(900)}}
	for n := range 9 {
		is4 := r.IntN(2) == 0
		s := director.Service{Key: drawKey(r, n, is4), VIP: director.VIPExternal}
		s.Scheduler = director.Schedulers()[r.IntN(13)] // the last one, twos, came after the guest's kernel
		s.Flags = director.SchedulerFlags{Fallback: r.IntN(2) == 0, Port: r.IntN(2) == 0, Third: r.IntN(2) == 0}
		if r.IntN(4) == 0 {
			s.Name = fmt.Sprintf("service-%d", n)
		}
		if r.IntN(2) == 0 || s.Key.AnyPort() {
			s.Persistence = director.Persistence{Timeout: seconds(100_000), Prefix: uint8(1 + r.IntN(int(s.Key.FullPrefix())))}
			if s.Key.Protocol == conntrack.UDP && r.IntN(2) == 0 {
				s.Persistence.Engine = director.EngineSIP
			}
			if is4 && r.IntN(5) == 0 {
				s.Persistence.Prefix = 0
			}
		}
		s.OnePacket = (s.Key.IsMark() || s.Key.Protocol == conntrack.UDP) && r.IntN(2) == 0
		for range r.IntN(5) {
			if server := drawServer(r, s.Key, is4); s.Server(server.Address) < 0 {
				s.Servers = append(s.Servers, server)
			}
		}
		state.Services = append(state.Services, s)
	}
	return state.Normalize()
}

// drawKey draws that of the service n, which has a port or mark of its own.
func drawKey(r *rand.Rand, n int, is4 bool) director.ServiceKey {
	host, unspecified := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + n)}), netip.IPv4Unspecified()
	if !is4 {
		host, unspecified = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(1 + n)}), netip.IPv6Unspecified()
	}
	port := uint16(80 + n)
	if r.IntN(5) == 0 {
		port = 0
	}
	kind := r.IntN(4)
	if kind == 3 {
		return director.ServiceKey{Mark: r.Uint32()&^15 + uint32(n) + 16, Address: netip.AddrPortFrom(unspecified, 0)}
	}
	protocol := []conntrack.Protocol{conntrack.TCP, conntrack.UDP, conntrack.SCTP}[kind]
	return director.ServiceKey{Protocol: protocol, Address: netip.AddrPortFrom(host, port)}
}

func drawServer(r *rand.Rand, service director.ServiceKey, is4 bool) realserver.Server {
	server := realserver.Server{Weight: uint32(r.IntN(10))}
	if r.IntN(4) == 0 {
		server.Weight = uint32(r.Int32())
	}
	if r.IntN(2) == 0 {
		server.Upper = r.Uint32() >> r.IntN(32)
		server.Lower = uint32(r.Uint64N(uint64(server.Upper) + 1))
	}
	methods := []realserver.Method{realserver.NAT, realserver.DR, realserver.Local, realserver.Tunnel, realserver.Tunnel}
	server.Method = methods[r.IntN(len(methods))]
	if server.Method == realserver.Tunnel {
		is4 = is4 != (r.IntN(3) == 0) // tunnels alone mix families
		server.Tunnel.Type = realserver.TunnelType(r.IntN(3))
		switch server.Tunnel.Type {
		case realserver.TunnelGUE:
			server.Tunnel.Port, server.Tunnel.Checksum = uint16(1+r.IntN(65535)), realserver.TunnelChecksum(r.IntN(3))
		case realserver.TunnelGRE:
			server.Tunnel.Checksum = realserver.TunnelChecksum(r.IntN(2))
		}
	}
	port := service.Address.Port()
	if server.Method == realserver.NAT && !service.AnyPort() || service.IsMark() {
		port = uint16(8080 + r.IntN(3))
	}
	host := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(9))})
	if !is4 {
		host = netip.AddrFrom16([16]byte{0xfd, 15: byte(1 + r.IntN(9))})
	}
	server.Address = netip.AddrPortFrom(host, port)
	return server
}
