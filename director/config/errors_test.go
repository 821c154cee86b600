package config_test

import (
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

func TestErrors(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string
	}{
		// The text as YAML.
		{"syntax", "services: [\n", []string{`f:2:1: while parsing a flow node: did not find expected node content`}},
		{"tab", "director:\n\tmode: native\n", []string{`f:2:1: while scanning for the next token: found character that cannot start any token`}},
		{"second_document", "services: []\n---\nservices: []\n", []string{`f:2:1: a second document begins here: want one`}},
		{"no_text", "director: \x00\n", []string{`f: the configuration has a NUL byte at offset 10: is it a text file?`}},
		{"not_a_mapping", "- 1\n", []string{`f:1:1: the configuration: want a mapping (key: value)`}},
		{"unknown_key", "service: []\n", []string{`f:1:1: the configuration: unknown key "service": want director, include, services; did you mean services?`}},
		{"key_twice", "director: {mode: native, mode: generic}\n", []string{`f:1:26: director.mode is given twice: first in line 1`}},
		{"alias", "director: {mode: &m native, midstream: *m}\n", []string{
			`f:1:18: director.mode: anchors are not supported`,
			`f:1:40: director.midstream: aliases are not supported: write the value out`,
		}},
		{"alias_of_nothing", "services: [{check: {tcp: {send: *hunter2}}}]\n", []string{`f:1:33: an alias without an anchor: write a value that begins with * in quotes`}},
		{"merge_key", "director:\n  <<: {mode: native}\n", []string{`f:2:3: director: keys are plain words here; merge keys are not supported`}},
		{"no_value", "director:\n  mode:\nservices:\n", []string{`f:2:8: director.mode: the value is missing`, `f:3:10: services: the value is missing`}},

		// Settings.
		{"words", "director: {dataplane: dpdk, mode: offload, midstream: pass}\n", []string{
			`f:1:23: director.dataplane: unknown word "dpdk": want xdp or ipvs`,
			`f:1:35: director.mode: unknown word "offload": want native or generic`,
			`f:1:55: director.midstream: unknown word "pass": want drop or reset`,
		}},
		{"interfaces", "director:\n  interfaces:\n  - eth0\n  - eth0\n  - a/b\n  - sixteencharacter\n  - [x]\n", []string{
			`f:4:5: director.interfaces[1]: interface "eth0" is interfaces[0] already`,
			`f:5:5: director.interfaces[2]: "a/b" is not an interface name: want 1 to 15 characters without spaces, '/' and ':'`,
			`f:6:5: director.interfaces[3]: "sixteencharacter" is not an interface name: want 1 to 15 characters without spaces, '/' and ':'`,
			`f:7:5: director.interfaces[4]: want a single value`,
		}},
		{"interfaces_not_a_list", "director: {interfaces: eth0}\n", []string{`f:1:24: director.interfaces: want a list`}},
		{"sizes", "director: {connections: {max: 1G, max-ipv6: 512}, icmp-rate: -1, limits: {services: 0, servers: 2Mi}}\n", []string{
			`f:1:31: director.connections.max: "1G" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`,
			`f:1:45: director.connections.max-ipv6: 512 is out of range: want 1Ki to 256Mi`,
			`f:1:62: director.icmp-rate: "-1" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`,
			`f:1:85: director.limits.services: 0 is out of range: want 1 to 64Ki`,
			`f:1:97: director.limits.servers: 2Mi is out of range: want 1 to 1Mi`,
		}},
		{"timeouts", "director: {connections: {timeouts: {tcp: 300, tcp-fin: 0s, udp: 1500ms}}}\n", []string{
			`f:1:42: director.connections.timeouts.tcp: "300" is not a duration: want a number with a unit, such as 90s, 15m or 1h30m`,
			`f:1:56: director.connections.timeouts.tcp-fin: tcp-fin timeout 0s is out of range: want 1s to 744h (31 days)`,
			`f:1:65: director.connections.timeouts.udp: udp timeout 1.5s: want whole seconds`,
		}},
		{"paths", "director:\n  socket: /" + strings.Repeat("s", 107) + "\n  pin-dir: shunt\n", []string{
			`f:2:11: director.socket: the path has 108 bytes: a socket's has at most 107`,
			`f:3:12: director.pin-dir: "shunt" is not an absolute path`,
		}},

		{"guard", "director: {removal-limit: 50, reconcile: 6s, history: 99, state: var}\n", []string{
			`f:1:27: director.removal-limit: "50" is not a share: want 0% to 100%`,
			`f:1:42: director.reconcile: 6s is out of range: want 100ms to 5s`,
			`f:1:55: director.history: 99 is out of range: want 100 to 1000000`,
			`f:1:66: director.state: "var" is not an absolute path`,
		}},
		{"shares", "director: {removal-limit: 101%, removal-limit: 1%}\n", []string{
			`f:1:27: director.removal-limit: "101%" is not a share: want 0% to 100%`,
			`f:1:33: director.removal-limit is given twice: first in line 1`,
		}},
		{"log", "director: {log: {level: warning, format: JSON}, socket-group: a b}\n", []string{
			`f:1:25: director.log.level: unknown word "warning": want debug, info, warn or error`,
			`f:1:42: director.log.format: unknown word "JSON": want text or json; did you mean json?`,
			`f:1:63: director.socket-group: "a b" is not the name of a group`,
		}},
		{"api_open", "director:\n  api: {listen: 192.0.2.1:9443}\n", []string{
			`f:2:8: director.api.certificate: the key is missing: the API over TCP needs listen, certificate and key`,
			`f:2:8: director.api.key: the key is missing: the API over TCP needs listen, certificate and key`,
			`f:2:8: director.api: want client-ca, tokens or both: the API over TCP is for those who identify themselves`,
		}},
		{"api_nowhere", "director:\n  api: {certificate: /c, key: k, tokens: /t}\n", []string{
			`f:2:8: director.api.listen: the key is missing: the API over TCP needs listen, certificate and key`,
			`f:2:31: director.api.key: "k" is not an absolute path`,
		}},
		{"api_listen_name", "director: {api: {listen: 'localhost:1', certificate: /c, key: /k, tokens: /t}}\n", []string{
			`f:1:26: director.api.listen: "localhost:1" is not an address and a port: want 192.0.2.1:9443, [2001:db8::1]:9443 or :9443 (names are not looked up)`,
		}},
		{"api_listen_port", "director: {api: {listen: ':0', certificate: /c, key: /k, tokens: /t}}\n", []string{
			`f:1:26: director.api.listen: "0" is not a port: want 1 to 65535`,
		}},
		{"api_listen_port_0", "director: {api: {listen: '[::1]:0', certificate: /c, key: /k, tokens: /t}}\n", []string{
			`f:1:26: director.api.listen: port 0 is reserved`,
		}},
		{"api_listen_mapped", "director: {api: {listen: '[::ffff:192.0.2.1]:1', certificate: /c, key: /k, tokens: /t}}\n", []string{
			`f:1:26: director.api.listen: ::ffff:192.0.2.1 is an IPv4 address in IPv6 form: write 192.0.2.1:1`,
		}},
		{"api_listen_multicast", "director: {api: {listen: '224.0.0.1:1', certificate: /c, key: /k, tokens: /t}}\n", []string{
			`f:1:26: director.api.listen: 224.0.0.1 is multicast: want an address of this host`,
		}},
		{"meant", "directr: {}\nservices:\n- {listn: x, sheduler: rr, listen: 'tcp://192.0.2.1:80', vip: extrenal, servers: [{adress: 10.0.0.1, address: 10.0.0.1, method: NTA}]}\n", []string{
			`f:1:1: the configuration: unknown key "directr": want director, include, services; did you mean director?`,
			`f:3:4: services[0]: unknown key "listn": want access, check, conn-reuse-mode, expire-nodest-conn, expire-quiescent-template, flags, guard, health, limits, listen, method, mss, name, one-packet, persistence, scheduler, servers, sloppy-tcp, sorry, timeouts, tunnel, vip; did you mean listen?`,
			`f:3:14: services[0]: unknown key "sheduler": want access, check, conn-reuse-mode, expire-nodest-conn, expire-quiescent-template, flags, guard, health, limits, listen, method, mss, name, one-packet, persistence, scheduler, servers, sloppy-tcp, sorry, timeouts, tunnel, vip; did you mean scheduler?`,
			`f:3:63: services[0] tcp://192.0.2.1:80: unknown vip "extrenal": want managed or external; did you mean external?`,
			`f:3:84: services[0].servers[0]: unknown key "adress": want address, lower, method, tunnel, upper, weight; did you mean address?`,
			`f:3:129: services[0].servers[0].method: unknown forwarding method "NTA": want nat, dr, tunnel, fullnat or local; did you mean nat?`,
		}},
		{"plain_only", "director:\n  mode: |-\n    native\n  midstream: !!str drop\n  interfaces: [~, &a b]\n  !!str log: {}\n", []string{
			`f:2:9: director.mode: write the value on the line of its key`,
			`f:4:14: director.midstream: tags are not supported`,
			`f:5:16: director.interfaces[0]: the value is missing`,
			`f:5:19: director.interfaces[1]: anchors are not supported`,
			`f:6:3: director: tags are not supported`,
		}},

		// Services.
		{"access", `services:
- listen: tcp://192.0.2.1:80
  access:
    allow: [10.0.0.1/8, 10.0.0.0/33, example.org, 10.0.0.0/8, 10.0.0.0/8, 2001:db8::/32, "::ffff:10.0.0.0/104"]
    deny: [10.0.0.0/8, fe80::1%eth0, {}]
    log: []
  servers: []
- {listen: "tcp://192.0.2.2:80", access: [10.0.0.0/8], servers: []}
`, []string{
			`f:4:13: services[0].access.allow[0]: 10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8, or 10.0.0.1 for the one address`,
			`f:4:25: services[0].access.allow[1]: "10.0.0.0/33" is not a network: want 192.0.2.0/24, 2001:db8::/32 or an address (names are not looked up)`,
			`f:4:38: services[0].access.allow[2]: "example.org" is not a network: want 192.0.2.0/24, 2001:db8::/32 or an address (names are not looked up)`,
			`f:4:63: services[0].access.allow[4]: 10.0.0.0/8 is allow[3] already`,
			`f:4:75: services[0] tcp://192.0.2.1:80: 2001:db8::/32 is not of the service's address family (192.0.2.1)`,
			`f:4:90: services[0].access.allow[6]: ::ffff:10.0.0.0/104 is an IPv4 address in IPv6 form: write it as IPv4`,
			`f:5:12: services[0] tcp://192.0.2.1:80: 10.0.0.0/8 is both allowed and denied`,
			`f:5:24: services[0].access.deny[1]: a network has no zone: networks do not tell interfaces apart`,
			`f:5:38: services[0].access.deny[2]: want a single value`,
			`f:6:5: services[0].access: unknown key "log": want allow, deny`,
			`f:8:42: services[1].access: want a mapping (key: value)`,
		}},
		{"missing_keys", "services:\n- name: web\n- {listen: 'tcp://192.0.2.1:80', servers: [{weight: 1}]}\n", []string{
			`f:2:3: services[0].listen: the key is missing: a URL such as tcp://192.0.2.1:80`,
			`f:2:3: services[0].servers: the key is missing: a list of servers, [] for none`,
			`f:3:44: services[1].servers[0].address: the key is missing: an IP address with or without a port`,
			`f:3:44: services[1].servers[0].method: the method is missing: give it here or at the service: nat, dr, tunnel, fullnat or local`,
		}},
		{"bad_listen", "services:\n- {listen: 'tcp://192.0.2.1:9-5', servers: []}\n- {listen: 'fwmark://0', servers: []}\n- {listen: 'tcp://a:1', servers: [{address: b, method: c}]}\n", []string{
			`f:2:12: services[0].listen: "9-5" is not a range of ports: want FIRST-LAST within 1 to 65535`,
			`f:3:12: services[1].listen: "0" is not a firewall mark: want 1 to 4294967295`,
			`f:4:12: services[2].listen: "a" is not an IP address (names are not looked up)`,
			`f:4:45: services[2].servers[0].address: "b" is not an IP address and a port (names are not looked up)`,
			`f:4:56: services[2].servers[0].method: unknown forwarding method "c": want nat, dr, tunnel, fullnat or local`,
		}},
		{"semantic", `services:
- name: web
  listen: tcp://192.0.2.1:80
  scheduler: wlc
  method: dr
  servers:
  - address: 10.0.0.1:8080
  - address: 10.0.0.2
    weight: 2147483648
  - {address: 10.0.0.2, method: tunnel}
  - {address: "2001:db8::1"}
- name: web
  listen: tcp://192.0.2.1:80
  vip: mine
  servers: []
`, []string{
			`f:7:14: services[0] "web": servers[0]: port 8080: method dr does not rewrite packets, so the port must be the service's (80)`,
			`f:9:13: services[0].servers[1].weight: "2147483648" is not a weight: want 0 to 2147483647`,
			`f:10:15: services[0] "web": servers[2]: 10.0.0.2:80 is servers[1] already`,
			`f:11:15: services[0] "web": servers[3]: 2001:db8::1 is not of the service's address family (192.0.2.1): only tunnels can mix them`,
			`f:12:9: services[1] "web": name "web" is that of services[0] already`,
			`f:13:11: services[1] "web": tcp://192.0.2.1:80 is services[0] already`,
			`f:14:8: services[1] "web": unknown vip "mine": want managed or external`,
		}},
		{"flags", `services:
- {listen: "tcp://192.0.2.1:80", scheduler: sh, flags: [mh-port, sh-fast, sh-port], servers: []}
- {listen: "tcp://192.0.2.2:80", scheduler: rr, flags: [sh-port], servers: []}
- {listen: "tcp://192.0.2.3:80", scheduler: best, flags: [sh-port], servers: []}
- {listen: "tcp://192.0.2.4:80", scheduler:  mh, flags: [flag-4], servers: []}
`, []string{
			`f:2:57: services[0].flags[0]: unknown flag "mh-port": scheduler sh has sh-fallback and sh-port; did you mean sh-port?`,
			`f:2:66: services[0].flags[1]: unknown flag "sh-fast": scheduler sh has sh-fallback and sh-port`,
			`f:3:57: services[1].flags[0]: scheduler rr has no flags: sh and mh have; flag-1 to flag-3 are kept without effect`,
			`f:4:45: services[2] tcp://192.0.2.3:80: unknown scheduler "best": want ` + allSchedulers(),
			`f:5:58: services[3].flags[0]: unknown flag "flag-4": scheduler mh has mh-fallback and mh-port; did you mean flag-3?`,
		}},
		{"shapes", "services:\n- web\n- {listen: [], servers: {}}\n- {listen: 'tcp://192.0.2.1:80', method: dr, servers: [10.0.0.1]}\n", []string{
			`f:2:3: services[0]: want a mapping (key: value)`,
			`f:3:12: services[1].listen: want a single value`,
			`f:3:25: services[1].servers: want a list`,
			`f:4:56: services[2].servers[0]: want a mapping (key: value)`,
		}},
		{"limits", `director: {limits: {services: 1, servers: 2}}
services:
- {listen: "tcp://192.0.2.1:80", method: nat, servers: [{address: 10.0.0.1}, {address: 10.0.0.2}]}
- {listen: "tcp://192.0.2.2:80", method: nat, servers: [{address: 10.0.0.1}]}
`, []string{
			`f:4:3: 2 services: director.limits.services is 1`,
			`f:4:56: 3 servers up to here: director.limits.servers is 2`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := config.Parse("f", []byte(tt.text))
			wantErrors(t, err, tt.want...)
			if got.State.Services != nil || got.Director.Mode != "" {
				t.Errorf("half a configuration came with the error: %+v", got)
			}
		})
	}
}

// allSchedulers is the list that messages give.
func allSchedulers() string {
	var names []string
	for _, s := range director.Schedulers() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}
