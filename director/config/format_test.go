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
    servers: []

  - listen: tcp://192.0.2.128/28:8000-8999
    scheduler: wlc
    method: dr
    servers:
      - {address: 10.0.0.21}

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

// states draws valid states.
func states(t *rapid.T) director.State {
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
	for range rapid.IntRange(0, 6).Draw(t, "services") {
		v4 := rapid.Bool().Draw(t, "v4")
		vip := address(v4, "vip")
		s := director.Service{
			Key: director.ServiceKey{
				Protocol: rapid.SampledFrom([]conntrack.Protocol{conntrack.TCP, conntrack.UDP}).Draw(t, "protocol"),
				Address:  netip.AddrPortFrom(vip, port.Draw(t, "port")),
			},
			Timeouts: conntrack.Timeouts{TCP: timeout("own tcp"), TCPFin: timeout("own tcp-fin"), UDP: timeout("own udp")},
			Rules: director.Rules{
				ExpireNoDestConn: rapid.Bool().Draw(t, "nodest"), ExpireQuiescentTemplate: rapid.Bool().Draw(t, "quiescent"),
			},
			Scheduler: rapid.SampledFrom(director.Schedulers()).Draw(t, "scheduler"),
			VIP:       rapid.SampledFrom([]director.VIPOwner{director.VIPManaged, director.VIPExternal}).Draw(t, "owner"),
			Name: rapid.OneOf(
				rapid.Just(""), rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,30}`),
				rapid.SampledFrom([]string{"null", "True", "no", "1e3", "0x1F", "0b1", "0o7", "1_000", "2026-01-01", "1.5", "7", "0.", "n", "Y", "1.inf", "127.0.0.1"}),
			).Draw(t, "name"),
		}
		if s.Key.Protocol == conntrack.TCP {
			s.Rules.SloppyTCP = rapid.Bool().Draw(t, "sloppy")
			s.Rules.ConnReuse = rapid.SampledFrom([]director.ReuseMode{director.ReuseClosed, director.ReuseNever, director.ReuseFinWait}).Draw(t, "reuse")
		} else {
			s.OnePacket = rapid.Bool().Draw(t, "one-packet")
		}
		if rapid.Bool().Draw(t, "persistent") {
			s.Persistence = director.Persistence{
				Timeout: time.Duration(rapid.IntRange(1, 744*3600).Draw(t, "persistence")) * time.Second,
				Prefix:  uint8(rapid.IntRange(1, vip.BitLen()).Draw(t, "persistence prefix")),
			}
		}
		switch last := port.Draw(t, "last port"); rapid.IntRange(0, 3).Draw(t, "ports") {
		case 0:
			if last > s.Key.Address.Port() {
				s.Key.LastPort = last
			}
		case 1:
			if s.Persistence.Timeout != 0 {
				s.Key.Address = netip.AddrPortFrom(vip, 0)
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "wide") == 0 {
			s.Key.Bits = uint8(rapid.IntRange(vip.BitLen()-4, vip.BitLen()-1).Draw(t, "vip bits"))
			s.Key.Address = netip.AddrPortFrom(s.Key.Prefix().Masked().Addr(), s.Key.Address.Port())
		}
		if s.Scheduler.HasFlags() {
			s.Flags = director.SchedulerFlags{Port: rapid.Bool().Draw(t, "port flag"), Fallback: rapid.Bool().Draw(t, "fallback flag")}
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
		s.Access = director.Access{Allow: prefixes("allow"), Deny: prefixes("deny")}
		for range rapid.IntRange(0, 5).Draw(t, "servers") {
			server := realserver.Server{
				Method: rapid.SampledFrom([]realserver.Method{realserver.NAT, realserver.DR, realserver.Local}).Draw(t, "method"),
				Weight: rapid.Uint32Range(0, realserver.MaxWeight).Draw(t, "weight"),
			}
			if server.Upper = rapid.Uint32Range(0, realserver.MaxThreshold).Draw(t, "upper"); server.Upper > 0 {
				server.Lower = rapid.Uint32Range(0, server.Upper).Draw(t, "lower")
			}
			server.Address = netip.AddrPortFrom(address(v4, "server"), s.Key.Address.Port())
			if s.Key.AnyPort() {
				server.Address = netip.AddrPortFrom(server.Address.Addr(), 0)
			}
			if server.Method == realserver.NAT {
				server.Address = netip.AddrPortFrom(server.Address.Addr(), port.Draw(t, "server port"))
			}
			if s.Server(server.Address) < 0 && (server.Method == realserver.Local || !s.Key.Prefix().Contains(server.Address.Addr())) {
				s.Servers = append(s.Servers, server)
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

func roundTrip(t *rapid.T) {
	state := states(t)
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
