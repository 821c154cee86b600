package config_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/realserver"
)

var cmpNetip = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func defaults() config.Settings {
	return config.Settings{
		Dataplane: "xdp", Mode: "native", MaxConnections: 1 << 20, MaxConnections6: 1 << 18, Sources: 64 << 10,
		Midstream: "drop", ICMPRate: 1000, Echo: "service", LocalPorts: config.Ports{First: 1024, Last: 65535},
		Limits:       config.Limits{Services: 4096, Servers: 16384, SchedulerWords: 4 << 20, AccessPrefixes: 64 << 10},
		RemovalLimit: 50, Reconcile: 2 * time.Second, StateDir: config.DefaultStateDir, History: 10000,
		Socket: config.DefaultSocket, ScriptUser: "nobody", PinDir: config.DefaultPinDir, LogLevel: "info", LogFormat: "text",
	}
}

func server(addr string, method realserver.Method, weight uint32) realserver.Server {
	return realserver.Server{Address: netip.MustParseAddrPort(addr), Method: method, Weight: weight}
}

func reference() config.Config {
	settings := defaults()
	settings.Interfaces = []string{"eth0", "eth1"}
	settings.SocketGroup = "shunt"
	settings.TunnelSources = prefixes("10.0.0.32/28")
	settings.LocalAddresses = prefixes("10.0.0.16/28")
	settings.API = config.APISettings{
		Listen: "192.0.2.1:9443", Certificate: "/etc/shunt/tls/server.crt", Key: "/etc/shunt/tls/server.key",
		ClientCA: "/etc/shunt/tls/clients.crt", Tokens: "/etc/shunt/tokens",
	}
	return config.Config{
		Director: settings, ServicesGiven: true,
		State: director.State{
			Timeouts: conntrack.DefaultTimeouts(),
			Services: []director.Service{
				{ // of the included file
					Key:  director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.10:25")},
					Name: "mail", Scheduler: director.RoundRobin, VIP: director.VIPManaged,
					Servers: []realserver.Server{
						server("10.0.0.21:25", realserver.NAT, 1), server("10.0.0.22:25", realserver.NAT, 1),
					},
				},
				{
					Key:  director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.10:80")},
					Name: "web", Scheduler: director.WeightedLeastConnection, VIP: director.VIPManaged,
					Persistence: director.Persistence{Timeout: 5 * time.Minute, Prefix: 24},
					Timeouts:    conntrack.Timeouts{TCP: time.Hour, TCPFin: 30 * time.Second, UDP: time.Minute},
					Access: director.Access{
						Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("198.51.100.7/32")},
						Deny:  []netip.Prefix{netip.MustParsePrefix("10.66.0.0/16")},
					},
					Limits: director.Limits{
						Rate: 5000, Connections: 200000, Source: director.SourceLimits{Prefix: 24, Rate: 50, Connections: 1000},
					},
					Guard: director.SourceGuard{Mode: director.GuardAuto, On: 5000, Off: 1000}, MSS: 1400, Health: referenceHealth(),
					Servers: []realserver.Server{
						server("10.0.0.11:8080", realserver.NAT, 3), server("10.0.0.12:80", realserver.DR, 2),
						{Address: netip.MustParseAddrPort("10.0.0.13:8080"), Method: realserver.NAT, Weight: 1, Upper: 1000, Lower: 700},
					},
				},
				{
					Key: director.ServiceKey{
						Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.128:8000"), Bits: 28, LastPort: 8999,
					},
					Scheduler: director.WeightedLeastConnection, VIP: director.VIPManaged,
					Servers: []realserver.Server{
						server("10.0.0.21:0", realserver.DR, 1),
						{
							Address: netip.MustParseAddrPort("10.0.0.22:0"), Method: realserver.Tunnel, Weight: 1,
							Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 6080, Checksum: realserver.TunnelChecksumOn},
						},
					},
				},
				{
					Key:  director.ServiceKey{Protocol: conntrack.UDP, Address: netip.MustParseAddrPort("[2001:db8::53]:53")},
					Name: "dns", Scheduler: director.Maglev, VIP: director.VIPExternal,
					Flags: director.SchedulerFlags{Port: true, Fallback: true}, OnePacket: true,
					Health: director.Health{Checks: []realserver.Check{
						{Kind: realserver.CheckDNS, DNS: &realserver.DNSCheck{Name: "example.org", Type: "A", Answer: "192.0.2.1"}},
						{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Send: []byte("ping"), Expect: "pong"}},
						{Kind: realserver.CheckUDP, Exchange: &realserver.ExchangeCheck{Send: []byte{0, 1}}},
						{Kind: realserver.CheckICMP},
						{Kind: realserver.CheckGRPC, GRPC: &realserver.GRPCCheck{Service: "shop.v1.Shop"}, Port: 50051},
						{Kind: realserver.CheckSMTP, SMTP: &realserver.SMTPCheck{Hello: "director.example.org", STARTTLS: true}, Port: 25},
						{Kind: realserver.CheckScript, Script: &realserver.ScriptCheck{Command: []string{"/usr/lib/nagios/plugins/check_dns", "-s", "%h"}, User: "nobody"}},
						{Kind: realserver.CheckFile, File: &realserver.FileCheck{Path: "/run/shunt/weight"}},
					}, Load: director.LoadPolicy{Kind: director.LoadFromMeasure, SNMP: &realserver.SNMP{
						Version: realserver.SNMPv2c, CommunityFile: "/etc/shunt/snmp.community", OID: "1.3.6.1.4.1.8072.1.3.2.3.1.1.4.108.111.97.100", Scale: 1000,
					}}},
					Servers: []realserver.Server{
						server("[2001:db8:1::1]:53", realserver.DR, 1), server("[2001:db8:1::2]:53", realserver.DR, 1),
					},
				},
			},
		},
	}
}

func TestReference(t *testing.T) {
	got, err := config.Load("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reference(), got, cmpNetip); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
}

func TestReferenceIPVS(t *testing.T) {
	got, err := config.Load("testdata/reference-ipvs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tunnel := func(addr string, o realserver.TunnelOptions) realserver.Server {
		s := server(addr, realserver.Tunnel, 1)
		s.Tunnel = o
		return s
	}
	want := config.Config{Director: defaults(), ServicesGiven: true, State: director.State{
		Sync: []director.SyncDaemon{
			{Role: director.SyncMaster, Interface: "eth1", ID: 7, MaxLength: 1400, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
			{Role: director.SyncBackup, Interface: "eth1", ID: 7, Group: netip.MustParseAddr("ff02::81"), Port: 8849, TTL: 4},
		},
		Services: []director.Service{
			{
				Key:  director.ServiceKey{Protocol: conntrack.SCTP, Address: netip.MustParseAddrPort("192.0.2.20:3868")},
				Name: "diameter", Scheduler: director.WeightedRoundRobin, VIP: director.VIPManaged, Flags: director.SchedulerFlags{Third: true},
				Servers: []realserver.Server{
					tunnel("10.0.0.31:3868", realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelRemoteChecksum}),
					tunnel("10.0.0.32:3868", realserver.TunnelOptions{Type: realserver.TunnelGRE, Checksum: realserver.TunnelChecksumOn}),
					tunnel("10.0.0.33:3868", realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5556}),
					server("10.0.0.34:3868", realserver.DR, 1),
				},
			},
			{
				Key:       director.MarkKey(7, netip.IPv4Unspecified()),
				Scheduler: director.WeightedLeastConnection, VIP: director.VIPManaged, OnePacket: true,
				Persistence: director.Persistence{Timeout: 10 * time.Minute, Prefix: 32, Engine: director.EngineSIP},
				Servers:     []realserver.Server{server("10.0.0.41:0", realserver.NAT, 1), server("10.0.0.42:5062", realserver.NAT, 1)},
			},
		},
	}}
	want.Director.Dataplane = "ipvs"
	if diff := cmp.Diff(want, got, cmpNetip); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
}

// Every "default" of the reference is true: without those lines it means the
// same, timeouts aside, which stay not given.
func TestReferenceDefaults(t *testing.T) {
	data, err := os.ReadFile("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	groups := []string{"connections", "timeouts", "limits", "log"}
	var kept []string
	for line := range strings.Lines(string(data)) {
		text, comment, _ := strings.Cut(line, "#")
		key, value, _ := strings.Cut(strings.TrimSpace(text), ":")
		isGroup := slices.Contains(groups, key) && (value == "" || key == "connections")
		if !strings.HasPrefix(comment, " default") && !isGroup {
			kept = append(kept, line)
		}
	}
	if len(kept) > strings.Count(string(data), "\n")-25 {
		t.Errorf("only %d lines are without a default", len(kept))
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	short := strings.Replace(strings.Join(kept, ""), "address: 10.0.0.11:8080", "address: 10.0.0.11:8080\n        weight: 3", 1)
	write(t, dir, "reference.yaml", short)
	got, err := config.Load(filepath.Join(dir, "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := reference()
	want.State.Timeouts = conntrack.Timeouts{}
	if diff := cmp.Diff(want, got, cmpNetip); diff != "" {
		t.Errorf("without the defaults (-want +got):\n%s", diff)
	}
}

func TestParseEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "{}\n", "director: {}\nservices: []\n"} {
		got, err := config.Parse("empty", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(config.Config{Director: defaults(), ServicesGiven: strings.Contains(text, "services")}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestParseSettings(t *testing.T) {
	const text = `
director:
  mode: generic
  midstream: reset
  icmp-rate: 0
  connections: {max: 64Ki, timeouts: {tcp-fin: 90s}}
  limits: {services: 16, servers: 1Ki, scheduler-words: 1Gi}
  socket: /tmp/x/../s
  interfaces: []
  removal-limit: 0%
  reconcile: 100ms
  state: /srv/shunt/
  history: 1Ki
  socket-group: "1000"
  api: {listen: "[2001:DB8::1]:9443", certificate: /c, key: /k, tokens: /t/../u}
  log: {level: debug, format: json}
`
	_, err := config.Parse("f", []byte(text))
	wantErrors(t, err, `f:7:57: director.limits.scheduler-words: 1Gi is out of range: want 8Ki to 256Mi`)

	got, err := config.Parse("f", []byte(strings.Replace(text, "1Gi", "1Mi", 1)))
	if err != nil {
		t.Fatal(err)
	}
	settings := defaults()
	settings.Mode, settings.MaxConnections, settings.MaxConnections6 = "generic", 65536, 16384
	settings.Midstream, settings.ICMPRate, settings.Socket = "reset", 0, "/tmp/s"
	settings.Limits = config.Limits{Services: 16, Servers: 1024, SchedulerWords: 1 << 20, AccessPrefixes: 64 << 10}
	settings.RemovalLimit, settings.Reconcile, settings.StateDir, settings.History = 0, 100*time.Millisecond, "/srv/shunt", 1024
	settings.SocketGroup, settings.LogLevel, settings.LogFormat = "1000", "debug", "json"
	settings.API = config.APISettings{Listen: "[2001:db8::1]:9443", Certificate: "/c", Key: "/k", Tokens: "/u"}
	want := config.Config{Director: settings, State: director.State{Timeouts: conntrack.Timeouts{TCPFin: 90 * time.Second}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestLoadFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	_, err := config.Load(missing)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "read configuration: open "+missing) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := config.Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "read configuration: ") {
		t.Errorf("directory: %v", err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, []byte(strings.Repeat("#", config.MaxBytes+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(large)
	wantErrors(t, err, large+": the configuration is larger than 4 MiB: divide it and include the parts")
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "64Ki": 65536, "1Mi": 1 << 20, "2Gi": 2 << 30, "18446744073709551615": 1<<64 - 1,
	} {
		got, err := config.ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
		if again, err := config.ParseSize(config.FormatSize(got)); err != nil || again != got {
			t.Errorf("%q: written as %q, read as %d, %v", text, config.FormatSize(got), again, err)
		}
	}
	for text, want := range map[string]string{
		"": "is not a number", "Ki": "is not a number", "1k": "is not a number", "1KiB": "is not a number",
		"-1": "is not a number", "1.5Mi": "is not a number", "1 Mi": "is not a number", "0x10": "is not a number",
		"18446744073709551616": "is too large", "18014398509481984Ki": "is too large",
	} {
		if got, err := config.ParseSize(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, want an error with %q", text, got, err, want)
		}
	}
}

// wantErrors compares the joined errors' texts and checks their type.
func wantErrors(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if located := (*config.Error)(nil); !errors.As(e, &located) {
				t.Errorf("%T is no *config.Error", e)
			}
			text := e.Error()
			if errors.Is(e, director.ErrUnsupported) {
				text += " (not supported)"
			} else if !errors.Is(e, director.ErrInvalid) {
				t.Errorf("%v is of no kind", e)
			}
			got = append(got, text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors of %v (-want +got):\n%s", err, diff)
	}
}
