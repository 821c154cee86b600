package config_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/realserver"
)

func TestFormat(t *testing.T) {
	state := reference().State
	state.Services[1].Servers = nil
	state.Services[3].Name = "123"
	for i := range state.Services {
		state.Services[i].Health = director.Health{} // TestCheckAlone and the drawn states have it
	}
	got, err := config.Format(state, "revision 12 of\x1b d1\nby root ", "")
	if err != nil {
		t.Fatal(err)
	}
	const want = `# revision 12 of  d1
# by root
#

director:
  connections: {timeouts: {tcp: 15m, tcp-fin: 2m, udp: 5m}}

services:
  - name: mail
    listen: tcp://192.0.2.10:25
    scheduler: rr
    method: nat
    servers:
      - {address: 10.0.0.21}
      - {address: 10.0.0.22}

  - name: web
    listen: tcp://192.0.2.10:80
    scheduler: wlc
    access: {allow: [10.0.0.0/8, 198.51.100.7/32], deny: [10.66.0.0/16]}
    persistence: {timeout: 5m, prefix: 24}
    timeouts: {tcp: 1h, tcp-fin: 30s, udp: 1m}
    limits: {rate: 5000, connections: 200000, source: {prefix: 24, rate: 50, connections: 1000}}
    guard: auto
    mss: 1400
    servers: []

  - listen: tcp://192.0.2.128/28:8000-8999
    scheduler: wlc
    servers:
      - {address: 10.0.0.21, method: dr}
      - {address: 10.0.0.22, method: tunnel, tunnel: {type: gue, port: 6080, checksum: full}}

  - name: "123"
    listen: udp://[2001:db8::53]:53
    scheduler: mh
    flags: [mh-fallback, mh-port]
    vip: external
    one-packet: true
    method: dr
    servers:
      - {address: 2001:db8:1::1}
      - {address: 2001:db8:1::2}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

func TestFormatIPVS(t *testing.T) {
	cfg, err := config.Load("testdata/reference-ipvs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Format(cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	const want = `director:
  sync:
    - {role: master, interface: eth1, id: 7, max-length: 1400}
    - {role: backup, interface: eth1, id: 7, group: ff02::81, port: 8849, ttl: 4}

services:
  - name: diameter
    listen: sctp://192.0.2.20:3868
    scheduler: wrr
    flags: [flag-3]
    servers:
      - {address: 10.0.0.31, method: tunnel, tunnel: {type: gue, port: 5555, checksum: remote}}
      - {address: 10.0.0.32, method: tunnel, tunnel: {type: gre, checksum: full}}
      - {address: 10.0.0.33, method: tunnel, tunnel: {type: gue, port: 5556}}
      - {address: 10.0.0.34, method: dr}

  - listen: fwmark://7
    scheduler: wlc
    persistence: {timeout: 10m, engine: sip}
    one-packet: true
    method: nat
    servers:
      - {address: 10.0.0.41}
      - {address: 10.0.0.42:5062}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	// What all servers share stands at the service.
	state := director.State{Services: cfg.State.Services[:1], Sync: []director.SyncDaemon{}}
	state.Services[0].Servers = []realserver.Server{cfg.State.Services[0].Servers[1], cfg.State.Services[0].Servers[1]}
	state.Services[0].Servers[1].Address = netip.MustParseAddrPort("10.0.0.35:3868")
	got, err = config.Format(state)
	const shared = `director:
  sync: []

services:
  - name: diameter
    listen: sctp://192.0.2.20:3868
    scheduler: wrr
    flags: [flag-3]
    method: tunnel
    tunnel: {type: gre, checksum: full}
    servers:
      - {address: 10.0.0.32}
      - {address: 10.0.0.35}
`
	if diff := cmp.Diff(shared, string(got)); diff != "" || err != nil {
		t.Errorf("shared: %v (-want +got):\n%s", err, diff)
	}
}

func TestFormatEmpty(t *testing.T) {
	got, err := config.Format(director.State{})
	if err != nil || string(got) != "services: []\n" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = config.Format(director.State{Services: []director.Service{{Name: "web"}}})
	if !errors.Is(err, director.ErrInvalid) || !strings.HasPrefix(err.Error(), "write configuration: ") {
		t.Errorf("invalid state: %v", err)
	}
}

// states draws valid states of a data plane, or, for none, what any text may be
// about.
func states(t *rapid.T, plane director.Features) director.State {
	address := func(v4 bool, label string) netip.Addr {
		if n := byte(rapid.IntRange(1, 250).Draw(t, label)); v4 {
			return netip.AddrFrom4([4]byte{10, 0, 0, n})
		} else {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 9: n, 15: n % 8})
		}
	}
	port := rapid.Uint16Range(1, 1<<16-1)
	timeout := func(label string) time.Duration {
		return time.Duration(rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 7200), rapid.IntRange(1, 744*3600)).Draw(t, label)) * time.Second
	}
	state := director.State{Timeouts: conntrack.Timeouts{TCP: timeout("tcp"), TCPFin: timeout("tcp-fin"), UDP: timeout("udp")}}
	if plane.Sync {
		state.Sync = syncDaemons(t)
	}
	for range rapid.IntRange(0, 6).Draw(t, "services") {
		v4 := rapid.Bool().Draw(t, "v4")
		vip := address(v4, "vip")
		s := director.Service{
			Key: director.ServiceKey{
				Protocol: rapid.SampledFrom(protocols(plane)).Draw(t, "protocol"),
				Address:  netip.AddrPortFrom(vip, port.Draw(t, "port")),
			},
			Scheduler: rapid.SampledFrom(director.Schedulers()).Draw(t, "scheduler"),
			VIP:       rapid.SampledFrom([]director.VIPOwner{director.VIPManaged, director.VIPExternal}).Draw(t, "owner"),
			Name: rapid.OneOf(
				rapid.Just(""), rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,30}`),
				rapid.SampledFrom([]string{"null", "True", "no", "1e3", "0x1F", "0b1", "0o7", "1_000", "2026-01-01", "1.5", "7", "0.", "n", "Y", "1.inf", "127.0.0.1"}),
			).Draw(t, "name"),
		}
		if plane.Timeouts {
			s.Timeouts = conntrack.Timeouts{TCP: timeout("own tcp"), TCPFin: timeout("own tcp-fin"), UDP: timeout("own udp")}
		}
		if plane.Rules {
			s.Rules = director.Rules{
				ExpireNoDestConn: rapid.Bool().Draw(t, "nodest"), ExpireQuiescentTemplate: rapid.Bool().Draw(t, "quiescent"),
			}
			if s.Key.Protocol == conntrack.TCP {
				s.Rules.SloppyTCP = rapid.Bool().Draw(t, "sloppy")
				s.Rules.ConnReuse = rapid.SampledFrom([]director.ReuseMode{director.ReuseClosed, director.ReuseNever, director.ReuseFinWait}).Draw(t, "reuse")
			}
		}
		if s.Key.Protocol == conntrack.UDP {
			s.OnePacket = rapid.Bool().Draw(t, "one-packet")
		}
		if rapid.Bool().Draw(t, "persistent") {
			s.Persistence = director.Persistence{
				Timeout: time.Duration(rapid.IntRange(1, 744*3600).Draw(t, "persistence")) * time.Second,
				Prefix:  uint8(rapid.IntRange(1, vip.BitLen()).Draw(t, "persistence prefix")),
			}
			if plane.Engines && rapid.Bool().Draw(t, "engine") {
				s.Persistence.Engine = director.EngineSIP
			}
		}
		if plane.Limits {
			s.Limits = limits(t, s)
		}
		if plane.Guard && s.Key.Protocol == conntrack.TCP {
			s.Guard = guards(t)
		}
		if plane.MSS && s.Key.Protocol == conntrack.TCP && rapid.Bool().Draw(t, "clamped") {
			s.MSS = rapid.Uint16Range(director.MinMSSIPv6, 65535).Draw(t, "mss")
		}
		switch last := port.Draw(t, "last port"); rapid.IntRange(0, 3).Draw(t, "ports") {
		case 0:
			if plane.Ranges && last > s.Key.Address.Port() {
				s.Key.LastPort = last
			}
		case 1:
			if s.Persistence.Timeout != 0 {
				s.Key.Address = netip.AddrPortFrom(vip, 0)
			}
		}
		switch wide := rapid.IntRange(0, 3).Draw(t, "wide") == 0; {
		case wide && plane.Marks:
			s.MSS = 0
			s.Key = director.MarkKey(rapid.Uint32Range(1, 1<<32-1).Draw(t, "mark"), vip)
		case wide && plane.Ranges:
			s.Key.Bits = uint8(rapid.IntRange(vip.BitLen()-4, vip.BitLen()-1).Draw(t, "vip bits"))
			s.Key.Address = netip.AddrPortFrom(s.Key.Prefix().Masked().Addr(), s.Key.Address.Port())
		}
		if rapid.Bool().Draw(t, "flags") {
			s.Flags = director.SchedulerFlags{
				Port: rapid.Bool().Draw(t, "port flag"), Fallback: rapid.Bool().Draw(t, "fallback flag"), Third: rapid.Bool().Draw(t, "third flag"),
			}
		}
		seen := make(map[netip.Prefix]bool)
		prefixes := func(label string) (list []netip.Prefix) {
			for range rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 20)).Draw(t, label) {
				addr := address(v4, label)
				p, err := addr.Prefix(rapid.IntRange(0, addr.BitLen()).Draw(t, "bits"))
				if err == nil && !seen[p] {
					seen[p] = true
					list = append(list, p)
				}
			}
			return list
		}
		if plane.Access {
			s.Access = director.Access{Allow: prefixes("allow"), Deny: prefixes("deny")}
		}
		sameTunnel := rapid.Bool().Draw(t, "same tunnel")
		for range rapid.IntRange(0, 5).Draw(t, "servers") {
			server := realserver.Server{
				Method: rapid.SampledFrom(methods(plane)).Draw(t, "method"),
				Weight: rapid.Uint32Range(0, plane.MaxWeight).Draw(t, "weight"),
			}
			if s.OnePacket && server.Method == realserver.FullNAT {
				server.Method = realserver.NAT
			}
			if server.Upper = rapid.Uint32Range(0, realserver.MaxThreshold).Draw(t, "upper"); server.Upper > 0 {
				server.Lower = rapid.Uint32Range(0, server.Upper).Draw(t, "lower")
			}
			server.Address = netip.AddrPortFrom(address(v4, "server"), s.Key.Address.Port())
			if s.Key.AnyPort() {
				server.Address = netip.AddrPortFrom(server.Address.Addr(), 0)
			}
			switch {
			case server.Method == realserver.Tunnel && sameTunnel:
				server.Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555}
			case server.Method == realserver.Tunnel:
				server.Tunnel = tunnels(t)
				if state.Sync == nil && rapid.Bool().Draw(t, "mixed") {
					server.Address = netip.AddrPortFrom(address(!v4, "other server"), server.Address.Port())
				}
			}
			if server.Method.Rewrites() || s.Key.IsMark() {
				server.Address = netip.AddrPortFrom(server.Address.Addr(), port.Draw(t, "server port"))
			}
			if s.Server(server.Address) < 0 && (plane.OwnAddresses || server.Method == realserver.Local || !s.Key.Prefix().Contains(server.Address.Addr())) {
				s.Servers = append(s.Servers, server)
			}
		}
		if rapid.Bool().Draw(t, "healthy") {
			s.Health = healths(t, s)
			if !plane.Passive {
				s.Health.Passive = director.Passive{}
			}
		}
		if slices.ContainsFunc(state.Services, func(o director.Service) bool { return o.Name == s.Name }) {
			s.Name = ""
		}
		if state.Service(s.Key) < 0 {
			state.Services = append(state.Services, s)
		}
	}
	return state.Normalize()
}

func protocols(plane director.Features) []conntrack.Protocol {
	all := []conntrack.Protocol{conntrack.TCP, conntrack.UDP}
	if plane.SCTP {
		all = append(all, conntrack.SCTP)
	}
	return all
}

func methods(plane director.Features) []realserver.Method {
	all := []realserver.Method{realserver.NAT, realserver.DR, realserver.Local}
	if plane.Tunnels {
		all = append(all, realserver.Tunnel, realserver.Tunnel)
	}
	if plane.FullNAT {
		all = append(all, realserver.FullNAT)
	}
	return all
}

// tunnels draws valid options.
func tunnels(t *rapid.T) realserver.TunnelOptions {
	o := realserver.TunnelOptions{Type: rapid.SampledFrom([]realserver.TunnelType{realserver.TunnelIPIP, realserver.TunnelGUE, realserver.TunnelGRE}).Draw(t, "tunnel")}
	switch o.Type {
	case realserver.TunnelGUE:
		o.Port = rapid.Uint16Range(1, 65535).Draw(t, "tunnel port")
		o.Checksum = realserver.TunnelChecksum(rapid.IntRange(0, 2).Draw(t, "checksum"))
	case realserver.TunnelGRE:
		o.Checksum = realserver.TunnelChecksum(rapid.IntRange(0, 1).Draw(t, "checksum"))
	}
	return o
}

// syncDaemons draws daemons, none, or nil.
func syncDaemons(t *rapid.T) []director.SyncDaemon {
	if rapid.Bool().Draw(t, "no sync") {
		return nil
	}
	all := []director.SyncDaemon{}
	for _, role := range []director.SyncRole{director.SyncMaster, director.SyncBackup} {
		if rapid.Bool().Draw(t, string(role)) {
			all = append(all, director.SyncDaemon{
				Role: role, Interface: rapid.StringMatching(`[a-z0-9.@_-]{1,12}[a-z]`).Draw(t, "interface"), ID: rapid.Uint8().Draw(t, "id"),
				MaxLength: rapid.SampledFrom([]uint16{0, 1024, 1400, 65487}).Draw(t, "max-length"),
				Group:     rapid.SampledFrom([]netip.Addr{director.DefaultSyncGroup, netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff02::81")}).Draw(t, "group"),
				Port:      rapid.Uint16Range(1, 65535).Draw(t, "port"), TTL: rapid.Uint8Range(1, 255).Draw(t, "ttl"),
			})
		}
	}
	return all
}

func roundTrip(t *rapid.T) {
	plane, err := director.FeaturesOf(rapid.SampledFrom([]string{director.PlaneXDP, director.PlaneIPVS}).Draw(t, "plane"))
	if err != nil {
		t.Fatal(err)
	}
	state := states(t, plane)
	if err := plane.Check(state); err != nil {
		t.Fatalf("generator: %v", err)
	}
	text, err := config.Format(state)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Parse("f", text)
	if err != nil {
		t.Fatalf("%v of\n%s", err, text)
	}
	if diff := cmp.Diff(state, got.State, cmpNetip); diff != "" {
		t.Errorf("state (-want +got):\n%s\nof\n%s", diff, text)
	}
	formatted, err := config.Fmt("f", text)
	if diff := cmp.Diff(string(text), string(formatted)); diff != "" || err != nil {
		t.Errorf("format of the format: %v (-want +got):\n%s", err, diff)
	}
	// To any reader of YAML a name is a text.
	var other struct {
		Services []struct{ Name any }
	}
	if err := yaml.Load(text, &other); err != nil {
		t.Fatal(err)
	}
	for i, s := range state.Services {
		if name := other.Services[i].Name; s.Name != "" && name != s.Name {
			t.Errorf("name %q is read as %v", s.Name, name)
		}
	}
}

// What Format writes, Parse reads as it was.
func TestFormatIsLossless(t *testing.T) { rapid.Check(t, roundTrip) }

func FuzzFormat(f *testing.F) { f.Fuzz(rapid.MakeFuzz(roundTrip)) }

// limits draws what the service may have.
func limits(t *rapid.T, s director.Service) director.Limits {
	rate := rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32Range(1, director.MaxRate))
	most := rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32())
	if s.OnePacket {
		most = rapid.Just(uint32(0))
	}
	l := director.Limits{
		Rate: rate.Draw(t, "rate"), Connections: most.Draw(t, "connections"),
		Source: director.SourceLimits{Rate: rate.Draw(t, "source rate"), Connections: most.Draw(t, "source connections")},
	}
	if !l.Source.IsZero() {
		l.Source.Prefix = uint8(rapid.IntRange(1, int(s.Key.FullPrefix())).Draw(t, "source prefix"))
	}
	return l
}

// guards draws a guard, thresholds that are the default included.
func guards(t *rapid.T) director.SourceGuard {
	g := director.SourceGuard{Mode: rapid.SampledFrom([]director.GuardMode{director.GuardOff, director.GuardOn, director.GuardAuto}).Draw(t, "guard")}
	if g.Mode == director.GuardAuto {
		g.On = rapid.OneOf(rapid.Just(uint32(director.DefaultGuardOn)), rapid.Uint32Range(1, director.MaxRate)).Draw(t, "guard on")
		g.Off = rapid.OneOf(rapid.Just(max(1, g.On/5)), rapid.Uint32Range(1, g.On)).Draw(t, "guard off")
	}
	return g
}
