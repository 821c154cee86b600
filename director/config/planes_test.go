package config_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

// onlyIPVS and onlyXDP are what the one data plane alone can do, without a line
// that names it.
const (
	onlyIPVS = `  sync: [{role: backup, interface: eth1}, {role: master}]
services:
- {listen: "fwmark://7", servers: []}
- {listen: "sctp://192.0.2.1:80", persistence: {timeout: 1m, engine: sip}, servers: []}
- listen: tcp://127.0.0.1:80
  method: nat
  servers:
  - {address: 127.0.0.1:81}
  - {address: 10.0.0.1:81, weight: 65536}
`
	onlyXDP = `  log: {}
services:
- {listen: "tcp://192.0.2.0/24:80", access: {deny: [10.0.0.0/8]}, servers: []}
- {listen: "tcp://192.0.2.1:80-90", timeouts: {tcp: 1m}, conn-reuse-mode: 0, servers: []}
- {listen: "tcp://192.0.2.1:99", sloppy-tcp: true, expire-nodest-conn: true, expire-quiescent-template: true, servers: []}
- {listen: "tcp://192.0.2.1:98", limits: {source: {rate: 5}}, guard: auto, mss: 1400, servers: []}
- {listen: "tcp://192.0.2.1:97", check: {http: {path: /}, via: virtual}, health: {passive: {resets: 1}}, servers: []}
`
)

// What the named data plane cannot do is an error at its place; where none is
// named, whoever applies the configuration knows.
func TestPlaneOfTheFile(t *testing.T) {
	const not = " is not there on the xdp data plane (not supported)"
	_, err := config.Parse("f", []byte("director:\n  dataplane: xdp\n"+onlyIPVS))
	wantErrors(
		t, err,
		"f:3:9: director.sync: a sync daemon"+not,
		"f:5:12: services[0] fwmark://7: a service of a firewall mark"+not,
		"f:6:12: services[1] sctp://192.0.2.1:80: sctp"+not,
		"f:6:48: services[1] sctp://192.0.2.1:80: a persistence engine"+not,
		"f:7:11: services[2] tcp://127.0.0.1:80: a loopback address as the virtual one"+not,
		"f:10:15: services[2] tcp://127.0.0.1:80: servers[0]: address 127.0.0.1 is a loopback address: only method local reaches it (not supported)",
		"f:11:36: services[2] tcp://127.0.0.1:80: servers[1]: weight 65536: the xdp data plane has weights up to 65535 (not supported)",
	)
	const no = " is not there on the ipvs data plane (not supported)"
	_, err = config.Parse("f", []byte("director:\n  dataplane: ipvs\n"+onlyXDP))
	wantErrors(
		t, err,
		"f:5:12: services[0] tcp://192.0.2.0/24:80: a service of a prefix"+no,
		"f:5:45: services[0] tcp://192.0.2.0/24:80: an access list"+no,
		"f:6:12: services[1] tcp://192.0.2.1:80-90: a range of ports"+no,
		"f:6:47: services[1] tcp://192.0.2.1:80-90: a service's own timeout"+no,
		"f:6:75: services[1] tcp://192.0.2.1:80-90: conn-reuse-mode by service (its sysctl is net.ipv4.vs.conn_reuse_mode)"+no,
		"f:7:46: services[2] tcp://192.0.2.1:99: sloppy-tcp by service (its sysctl is net.ipv4.vs.sloppy_tcp)"+no,
		"f:7:72: services[2] tcp://192.0.2.1:99: expire-nodest-conn by service (its sysctl is net.ipv4.vs.expire_nodest_conn)"+no,
		"f:7:105: services[2] tcp://192.0.2.1:99: expire-quiescent-template by service (its sysctl is net.ipv4.vs.expire_quiescent_template)"+no,
		"f:8:42: services[3] tcp://192.0.2.1:98: a limit of connections"+no,
		"f:8:70: services[3] tcp://192.0.2.1:98: a guard"+no,
		"f:8:81: services[3] tcp://192.0.2.1:98: a limit of segments' size"+no,
		"f:9:64: services[4] tcp://192.0.2.1:97: check[0]: a check by the way of clients' packets"+no,
		"f:9:92: services[4] tcp://192.0.2.1:97: passive evidence"+no,
	)
	for _, text := range []string{
		"director:\n" + onlyIPVS, "director:\n" + onlyXDP,
		"director:\n  dataplane: ipvs\n" + onlyIPVS, "director:\n  dataplane: xdp\n" + onlyXDP,
	} {
		if _, err := config.Parse("f", []byte(text)); err != nil {
			t.Errorf("%v of\n%s", err, text)
		}
	}
}

// The caller's data plane stands before the file's, and the default counts.
func TestLoadFor(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		write(t, dir, name, text)
		return filepath.Join(dir, name)
	}
	silent := file("silent.yaml", "director:\n"+onlyIPVS)
	xdp := file("xdp.yaml", "director: {dataplane: xdp}\nservices: [{listen: 'fwmark://7', servers: []}]\n")
	ipvs := file("ipvs.yaml", "director: {dataplane: ipvs}\nservices: [{listen: 'fwmark://7', servers: []}]\n")
	none := file("none.yaml", "services: [{listen: 'fwmark://7', servers: []}]\n")
	for _, tt := range []struct {
		path, plane string
		want        string // the data plane; empty: it does not have what the file wants
	}{
		{silent, "ipvs", "ipvs"},
		{silent, "xdp", ""},
		{silent, "", ""},
		{xdp, "ipvs", "ipvs"},
		{xdp, "", ""},
		{ipvs, "", "ipvs"},
		{ipvs, "xdp", ""},
		{none, "ipvs", "ipvs"},
		{none, "", ""},
	} {
		name := filepath.Base(tt.path) + " for " + tt.plane
		cfg, err := config.LoadFor(tt.path, tt.plane)
		switch {
		case tt.want == "" && !errors.Is(err, director.ErrUnsupported):
			t.Errorf("%s: error %v, want one that is %q", name, err, director.ErrUnsupported)
		case tt.want != "" && (err != nil || cfg.Director.Dataplane != tt.want):
			t.Errorf("%s: %q, error %v, want %q", name, cfg.Director.Dataplane, err, tt.want)
		}
	}
	const marked = "services: [{listen: 'fwmark://7', servers: []}]\n"
	_, err := config.ParseFor("f", []byte(marked), "")
	wantErrors(t, err, "f:1:21: services[0] fwmark://7: a service of a firewall mark is not there on the xdp data plane (not supported)")
	if cfg, err := config.ParseFor("f", []byte(marked), "ipvs"); err != nil || cfg.Director.Dataplane != "ipvs" {
		t.Errorf("parsed for ipvs: %q, error %v", cfg.Director.Dataplane, err)
	}
	if _, err := config.ParseFor("f", nil, "dpdk"); !errors.Is(err, director.ErrUnsupported) {
		t.Errorf("parsed for dpdk: %v", err)
	}
	if _, err := config.LoadFor(silent, "dpdk"); !errors.Is(err, director.ErrUnsupported) || err.Error() != `data plane "dpdk": not supported: want xdp or ipvs` {
		t.Errorf("dpdk: %v", err)
	}
}

// What XDP alone uses may be in a file for both data planes, and is told of.
func TestWarnings(t *testing.T) {
	const text = `director:
  interfaces: [eth0]
  mode: generic
  connections: {max: 64Ki, max-ipv6: 1Ki, counters: true, sources: 5, timeouts: {udp: 1m}}
  midstream: reset
  icmp-rate: 1
  echo: stack
  tunnel: {sources: [10.0.0.1]}
  fullnat: {addresses: [10.0.0.2], ports: 5}
  limits: {services: 5, servers: 6, scheduler-words: 8Ki, access-prefixes: 7}
  reconcile: 1s
  pin-dir: /sys/fs/bpf/x
`
	for _, plane := range []string{"", "  dataplane: xdp\n"} {
		cfg, err := config.Parse("f", []byte(text+plane))
		if err != nil || cfg.Warnings != nil {
			t.Errorf("%q: warnings %q, error %v", plane, cfg.Warnings, err)
		}
	}
	cfg, err := config.Parse("f", []byte(text+"  dataplane: ipvs\n"))
	if err != nil {
		t.Fatal(err)
	}
	const unused = ": the ipvs data plane does not use it"
	want := []string{
		"f:2:15: director.interfaces" + unused,
		"f:3:9: director.mode" + unused,
		"f:4:22: director.connections.max" + unused,
		"f:4:38: director.connections.max-ipv6" + unused,
		"f:4:53: director.connections.counters" + unused,
		"f:4:68: director.connections.sources" + unused,
		"f:5:14: director.midstream" + unused,
		"f:6:14: director.icmp-rate" + unused,
		"f:7:9: director.echo" + unused,
		"f:8:21: director.tunnel.sources" + unused,
		"f:9:24: director.fullnat.addresses" + unused,
		"f:9:43: director.fullnat.ports" + unused,
		"f:10:54: director.limits.scheduler-words" + unused,
		"f:10:76: director.limits.access-prefixes" + unused,
		"f:12:12: director.pin-dir" + unused,
	}
	if diff := cmp.Diff(want, cfg.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	// A quorum that the servers' weights do not come to.
	const services = "services:\n- {listen: 'tcp://192.0.2.%d:80', method: nat, servers: [{address: 10.0.0.1, weight: 3}, {address: 10.0.0.2, weight: 4}], health: {%s}}\n"
	for i, c := range []struct{ health, want string }{
		{"quorum: 7", ""},
		{"quorum: 5, hysteresis: 2", ""},
		{"hysteresis: 9", ""},
		{"quorum: 8, pool: web", ""},
		{"quorum: 8", "f:2:139: services[0].health.quorum: the quorum of 8 is never there: all servers have a weight of 7"},
		{"quorum: 5, hysteresis: 3", "f:2:154: services[0].health.hysteresis: once lost, the quorum is never back: that takes a weight of 8, and all servers have 7"},
	} {
		cfg, err := config.Parse("f", []byte(fmt.Sprintf(services, i+1, c.health)))
		if got := strings.Join(cfg.Warnings, "; "); err != nil || got != c.want {
			t.Errorf("%s: warnings %q, error %v, want %q", c.health, got, err, c.want)
		}
	}
	dir := t.TempDir()
	write(t, dir, "both.yaml", "director: {interfaces: [eth0]}\n")
	cfg, err = config.LoadFor(filepath.Join(dir, "both.yaml"), "ipvs")
	if want := []string{filepath.Join(dir, "both.yaml") + ":1:24: director.interfaces" + unused}; err != nil || !cmp.Equal(want, cfg.Warnings) {
		t.Errorf("warnings %q, error %v, want %q", cfg.Warnings, err, want)
	}
}

func TestSyncGiven(t *testing.T) {
	for text, want := range map[string][]director.SyncDaemon{
		"director: {}":         nil,
		"director: {sync: []}": {},
		"director: {sync: [{role: backup}]}": {
			{Role: "backup", Interface: "eth0", Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
		},
		"director: {sync: [{role: backup, max-length: 5}, {role: master, interface: b, max-length: 5}]}": {
			{Role: "master", Interface: "b", MaxLength: 5, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
			{Role: "backup", Interface: "eth0", MaxLength: 1024, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
		},
	} {
		cfg, err := config.Parse("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, cfg.State.Sync, cmpNetip); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestSyncErrors(t *testing.T) {
	_, err := config.Parse("f", []byte(`director:
  sync:
  - {interface: eth0}
  - {role: mastr, interface: "", id: 256, max-length: 0, group: host, port: 0, ttl: x}
  - {role: master, interface: a/b, group: 192.0.2.1}
  - role: master
  - backup
services:
- {listen: "tcp://192.0.2.1:80", method: tunnel, servers: [{address: "2001:db8::1"}]}
`))
	wantErrors(
		t, err,
		"f:3:3: director.sync: server 2001:db8::1 of tcp://192.0.2.1:80 is of another address family than the service: the sync daemons cannot carry that",
		"f:3:5: director.sync[0].role: the key is missing: master or backup",
		`f:4:12: director.sync[1].role: unknown word "mastr": want master or backup; did you mean master?`,
		`f:4:30: director.sync[1].interface: the value is empty`,
		`f:4:38: director.sync[1].id: "256" is not the id of a sync daemon: want 0 to 255`,
		`f:4:55: director.sync[1].max-length: "0" is not the length of a message: want 1 to 65507`,
		`f:4:65: director.sync[1].group: "host" is not an IP address: want a multicast address such as 224.0.0.81`,
		`f:4:77: director.sync[1].port: "0" is not a port: want 1 to 65535`,
		`f:4:85: director.sync[1].ttl: "x" is not a time to live: want 1 to 255`,
		`f:5:31: director.sync[2].interface: "a/b" is not an interface name: want 1 to 15 characters without spaces, '/' and ':'`,
		`f:5:43: director.sync[2].group: 192.0.2.1 is not a multicast address`,
		`f:6:11: director.sync[3].role: sync[2] is the master already`,
		`f:7:5: director.sync[4]: want a mapping (key: value)`,
	)
	_, err = config.Parse("f", []byte("director: {sync: {role: master}}\n"))
	wantErrors(t, err, "f:1:18: director.sync: want a list")
}

func TestSegmentSizeErrors(t *testing.T) {
	_, err := config.Parse("f", []byte(`services:
- {listen: "tcp://192.0.2.1:80", mss: 535, servers: []}
- {listen: "tcp://[2001:db8::1]:80", mss: 1219, servers: []}
- {listen: "udp://192.0.2.1:53", mss: 1400, servers: []}
- {listen: "tcp://192.0.2.1:81", mss: 65536, servers: []}
- {listen: "tcp://192.0.2.1:82", mss: 0, servers: []}
- {listen: "tcp://192.0.2.1:83", mss: 536, servers: []}
`))
	wantErrors(
		t, err,
		`f:2:39: services[0].mss: "535" is not a size of segments: want 536 to 65535`,
		`f:3:43: services[1] tcp://[2001:db8::1]:80: mss 1219: want 1220 to 65535`,
		`f:4:39: services[2] udp://192.0.2.1:53: mss is for tcp`,
		`f:5:39: services[3].mss: "65536" is not a size of segments: want 536 to 65535`,
		`f:6:39: services[4].mss: "0" is not a size of segments: want 536 to 65535`,
	)
}

func TestTunnelErrors(t *testing.T) {
	_, err := config.Parse("f", []byte(`services:
- listen: tcp://192.0.2.1:80
  method: tunnel
  tunnel: {type: gre, port: 5555}
  servers:
  - {address: 10.0.0.1}
  - {address: 10.0.0.2, tunnel: {type: gue}}
  - {address: 10.0.0.3, tunnel: {checksum: full}}
  - {address: 10.0.0.4, method: dr, tunnel: {type: ipip}}
  - {address: 10.0.0.5, method: dr}
  - {address: 10.0.0.6, tunnel: {type: GUE, port: 65536, checksum: fulls}}
  - {address: 10.0.0.7, tunnel: gue}
  - {address: "10.0.0.8:81", tunnel: {}}
- listen: tcp://192.0.2.2:80
  method: nat
  tunnel: {type: gre}
  servers: [{address: 10.0.0.1}]
- listen: tcp://192.0.2.3:80
  tunnel: {type: gre}
  servers: [{address: 10.0.0.1, method: tunnel}, {address: 10.0.0.2, method: nat}]
`))
	wantErrors(
		t, err,
		`f:4:11: services[0].tunnel: port 5555: only gue has a port`,
		`f:7:33: services[0].servers[1].tunnel: gue wants a port`,
		`f:8:33: services[0].servers[2].tunnel: ipip has no checksum: gue and gre have`,
		`f:9:45: services[0].servers[3].tunnel: method dr has no tunnel`,
		`f:11:51: services[0].servers[5].tunnel.port: "65536" is not a port: want 1 to 65535`,
		`f:11:68: services[0].servers[5].tunnel.checksum: unknown tunnel checksum "fulls": want none, full or remote; did you mean full?`,
		`f:12:33: services[0].servers[6].tunnel: want a mapping (key: value)`,
		`f:13:15: services[0] tcp://192.0.2.1:80: servers[7]: port 81: method tunnel does not rewrite packets, so the port must be the service's (80)`,
		`f:16:11: services[1].tunnel: no server's method is tunnel`,
	)
}
