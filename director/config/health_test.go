package config_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/realserver"
)

// healths draws a policy that is valid for the service.
func healths(t *rapid.T, s director.Service) director.Health {
	duration := rapid.Map(rapid.IntRange(1, 3600), func(n int) time.Duration { return time.Duration(n) * 100 * time.Millisecond })
	some := func(label string) time.Duration {
		return rapid.OneOf(rapid.Just(time.Duration(0)), duration).Draw(t, label)
	}
	text := rapid.SampledFrom([]string{"a", "a b: c, d", "# x", "\"", "true", "1", "ä\\", "-x", "%h", "{}"})
	path := rapid.SampledFrom([]string{"/a", "/etc/shunt/a b", "/x#y"})
	command := func(label string) []string {
		if !rapid.Bool().Draw(t, label) {
			return nil
		}
		return append([]string{path.Draw(t, "program")}, rapid.SliceOfN(rapid.OneOf(text, rapid.Just("")), 0, 3).Draw(t, "arguments")...)
	}
	count := rapid.Uint32Range(0, 100)
	h := director.Health{
		Initial:     rapid.SampledFrom([]director.Initial{director.InitialDown, director.InitialUp}).Draw(t, "initial"),
		Down:        rapid.SampledFrom([]director.DownAction{director.DownInhibit, director.DownRemove}).Draw(t, "down"),
		Established: rapid.SampledFrom([]director.Established{director.EstablishedKeep, director.EstablishedCut}).Draw(t, "established"),
		Quorum:      count.Draw(t, "quorum"), Hysteresis: count.Draw(t, "hysteresis"), Panic: rapid.Uint8Range(0, 100).Draw(t, "panic"),
		SlowStart: some("slow-start"), Notify: director.Notify{Up: command("up"), Down: command("down"), QuorumUp: command("quorum up"), QuorumDown: command("quorum down")},
	}
	if rapid.Bool().Draw(t, "damping") {
		h.Damping = director.Damping{Changes: rapid.Uint16Range(2, 100).Draw(t, "changes"), Within: duration.Draw(t, "within"), Hold: duration.Draw(t, "hold")}
	}
	if rapid.Bool().Draw(t, "passive") {
		h.Passive = director.Passive{
			Unanswered: count.Draw(t, "unanswered"), Resets: count.Draw(t, "resets"), Unreachable: 1 + count.Draw(t, "unreachable"),
			Within: duration.Draw(t, "within"), Suspend: duration.Draw(t, "suspend"),
		}
	}
	if rapid.Bool().Draw(t, "load") {
		h.Load = director.LoadPolicy{
			Kind:    rapid.SampledFrom([]director.LoadKind{director.LoadLinear, director.LoadLeastUsed, director.LoadFromMeasure}).Draw(t, "load kind"),
			Minimum: rapid.Uint32Range(0, 100).Draw(t, "minimum"), Maximum: rapid.SampledFrom([]uint32{0, 100, 300}).Draw(t, "maximum"), Silence: some("silence"),
		}
	}
	if h.Load.Kind != director.LoadNone && rapid.Bool().Draw(t, "snmp") {
		terms := sources(t, path)
		h.Load.SNMP = &terms
	}
	if rapid.Bool().Draw(t, "paths") {
		h.Maintenance, h.Notify.FIFO, h.Pool = path.Draw(t, "maintenance"), path.Draw(t, "fifo"), "web"
	}
	for range rapid.IntRange(0, 3).Draw(t, "checks") {
		h.Checks = append(h.Checks, checks(t, text, path))
	}
	if len(s.Servers) > 0 && rapid.Bool().Draw(t, "sorry") {
		sorry := s.Servers[0]
		sorry.Address = netip.AddrPortFrom(sorry.Address.Addr().Next(), sorry.Address.Port())
		if sorry.Weight = max(1, sorry.Weight); s.Server(sorry.Address) < 0 && !s.Key.Prefix().Contains(sorry.Address.Addr()) {
			h.Sorry = []realserver.Server{sorry}
		}
	}
	return h
}

// sources draws valid terms of SNMP.
func sources(t *rapid.T, path *rapid.Generator[string]) realserver.SNMP {
	s := realserver.SNMP{Version: realserver.SNMPv2c, CommunityFile: rapid.OneOf(rapid.Just(""), path).Draw(t, "community")}
	if rapid.Bool().Draw(t, "v3") {
		s = realserver.SNMP{Version: realserver.SNMPv3, User: rapid.SampledFrom([]string{"shunt", "true", "7", "#"}).Draw(t, "user")}
		if rapid.Bool().Draw(t, "auth") {
			s.Auth, s.AuthFile = rapid.SampledFrom(realserver.SNMPAuths()).Draw(t, "auth protocol"), path.Draw(t, "auth file")
			if rapid.Bool().Draw(t, "priv") {
				s.Priv, s.PrivFile = rapid.SampledFrom(realserver.SNMPPrivs()).Draw(t, "priv protocol"), path.Draw(t, "priv file")
			}
		}
	}
	if rapid.Bool().Draw(t, "snmp pace") {
		s.Port, s.Interval, s.Timeout = rapid.Uint16().Draw(t, "snmp port"), 90*time.Second, 1500*time.Millisecond
	}
	if rapid.Bool().Draw(t, "oid") {
		s.OID, s.Scale = "1.3.6.1.4.1.2021.10.1.5.1", rapid.Uint32().Draw(t, "scale")
	} else if s.Measure = rapid.SampledFrom(append(realserver.SNMPMeasures(), "")).Draw(t, "measure"); s.Measure != "" {
		s.Processors = rapid.Uint16().Draw(t, "processors")
	}
	return s
}

// checks draws a valid check.
func checks(t *rapid.T, text, path *rapid.Generator[string]) realserver.Check {
	c := realserver.Check{
		Kind: rapid.SampledFrom([]realserver.CheckKind{
			realserver.CheckTCP, realserver.CheckHTTP, realserver.CheckDNS, realserver.CheckUDP, realserver.CheckICMP, realserver.CheckGRPC,
			realserver.CheckSMTP, realserver.CheckScript, realserver.CheckFile,
		}).Draw(t, "kind"),
		Via: rapid.SampledFrom([]realserver.CheckVia{realserver.ViaAuto, realserver.ViaServer}).Draw(t, "via"),
	}
	if rapid.Bool().Draw(t, "pace") {
		c.Interval, c.Timeout, c.Retry = 10*time.Second, 1500*time.Millisecond, 2*time.Second
		c.Rise, c.Fall = rapid.Uint16Range(1, 100).Draw(t, "rise"), rapid.Uint16Range(1, 100).Draw(t, "fall")
	}
	switch c.Kind {
	case realserver.CheckTCP, realserver.CheckUDP:
		if rapid.Bool().Draw(t, "exchange") {
			c.Exchange = &realserver.ExchangeCheck{
				Send:   rapid.SampledFrom([][]byte{nil, {0}, []byte("PING\r\n"), []byte("\u2028\x80"), []byte("\u2028"), []byte("true"), []byte("ä")}).Draw(t, "send"),
				Expect: "^a|b",
			}
		}
	case realserver.CheckHTTP:
		c.HTTP = &realserver.HTTPCheck{Version: rapid.IntRange(0, 2).Draw(t, "version")}
		if rapid.Bool().Draw(t, "terms") {
			c.HTTP.Method, c.HTTP.Path, c.HTTP.Host, c.HTTP.Match = "HEAD", "/a?b=c&d", "example.org", "a: b, c"
			c.HTTP.Headers = []realserver.Header{{Name: "X-A", Value: "b: c"}, {Name: "X-B"}}
			c.HTTP.Status = []realserver.StatusRange{{First: 200, Last: 200}, {First: 301, Last: 399}}
			c.HTTP.Digest = "d41d8cd98f00b204e9800998ecf8427e"
		}
	case realserver.CheckDNS:
		c.DNS = &realserver.DNSCheck{Name: "example.org", Type: rapid.SampledFrom([]string{"TXT", "MX"}).Draw(t, "type"), Answer: text.Draw(t, "answer"), TCP: rapid.Bool().Draw(t, "dns tcp")}
	case realserver.CheckGRPC:
		c.GRPC = &realserver.GRPCCheck{Service: rapid.SampledFrom([]string{"", "shop.v1.Shop"}).Draw(t, "grpc")}
	case realserver.CheckSMTP:
		c.SMTP = &realserver.SMTPCheck{Hello: rapid.SampledFrom([]string{"", "director.example.org"}).Draw(t, "hello"), STARTTLS: rapid.Bool().Draw(t, "starttls")}
	case realserver.CheckScript:
		c.Script = &realserver.ScriptCheck{
			Command: append([]string{path.Draw(t, "program")}, rapid.SliceOfN(text, 0, 2).Draw(t, "arguments")...),
			User:    rapid.SampledFrom([]string{"", "nobody", "1000"}).Draw(t, "user"),
			Status:  rapid.SampledFrom([]realserver.StatusMeaning{realserver.StatusPlain, realserver.StatusNagios, realserver.StatusWeight}).Draw(t, "status"),
		}
	case realserver.CheckFile:
		c.File = &realserver.FileCheck{Path: path.Draw(t, "file")}
	}
	switch c.Kind {
	case realserver.CheckTCP, realserver.CheckHTTP, realserver.CheckGRPC, realserver.CheckSMTP:
		if rapid.Bool().Draw(t, "tls") {
			c.TLS = &realserver.TLSCheck{}
			if rapid.Bool().Draw(t, "tls terms") {
				c.TLS = &realserver.TLSCheck{ServerName: "example.org", Certificate: "/c", Key: "/k", SkipVerify: true, ExpiryWarning: time.Hour, RefuseWhenExpired: true}
			}
		}
	}
	return c
}

// referenceHealth is that of the reference's first service.
func referenceHealth() director.Health {
	const digest = "d41d8cd98f00b204e9800998ecf8427e"
	notify := func(what string) []string { return []string{"/usr/local/bin/notify", what} }
	sorry := server("10.0.0.98:80", realserver.Tunnel, 1)
	sorry.Tunnel = realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555}
	return director.Health{
		Checks: []realserver.Check{
			{
				Kind: realserver.CheckHTTP,
				HTTP: &realserver.HTTPCheck{
					Version: 1, Method: "GET", Path: "/healthz", Host: "example.org", Headers: []realserver.Header{{Name: "X-Probe", Value: "shunt"}},
					Status: []realserver.StatusRange{{First: 200, Last: 299}, {First: 304, Last: 304}}, Match: "ok$", Digest: digest,
				},
				Port: 8080, Via: realserver.ViaServer, Interval: 5 * time.Second, Timeout: 2 * time.Second, Retry: time.Second, Rise: 2, Fall: 3,
			},
			{
				Kind: realserver.CheckHTTP,
				HTTP: &realserver.HTTPCheck{Version: 2, Method: "HEAD", Path: "/", Host: "example.org", Status: []realserver.StatusRange{{First: 200, Last: 200}}, Match: "ok", Digest: digest},
				TLS: &realserver.TLSCheck{
					ServerName: "example.org", CA: "/etc/shunt/tls/servers.crt", Certificate: "/etc/shunt/tls/probe.crt", Key: "/etc/shunt/tls/probe.key",
					ExpiryWarning: 336 * time.Hour,
				},
			},
			{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Send: []byte("PING\r\n"), Expect: "^PONG"}},
			{Kind: realserver.CheckTCP, Exchange: &realserver.ExchangeCheck{Send: []byte("PING\r\n")}},
		},
		Quorum: 2, Hysteresis: 1, Panic: 50, SlowStart: 30 * time.Second,
		Damping:     director.Damping{Changes: 5, Within: time.Minute, Hold: 5 * time.Minute},
		Passive:     director.Passive{Unanswered: 3, Resets: 3, Unreachable: 1, Within: 10 * time.Second, Suspend: 30 * time.Second},
		Maintenance: "/etc/shunt/maintenance",
		Notify:      director.Notify{Up: notify("up"), Down: notify("down"), QuorumUp: notify("quorum-up"), QuorumDown: notify("quorum-down"), FIFO: "/run/shunt/notify"},
		Load: director.LoadPolicy{Kind: director.LoadLinear, Minimum: 10, Maximum: 200, Silence: time.Minute, SNMP: &realserver.SNMP{
			Version: realserver.SNMPv3, User: "shunt", Auth: realserver.SNMPAuthSHA256, AuthFile: "/etc/shunt/snmp.auth", Priv: realserver.SNMPPrivAES,
			PrivFile: "/etc/shunt/snmp.priv", Port: 161, Interval: 10 * time.Second, Timeout: 2 * time.Second, Measure: realserver.SNMPMeasureLoad1, Processors: 8,
		}},
		Sorry: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.99:80"), Method: realserver.NAT, Weight: 1, Upper: 100, Lower: 50}, sorry},
		Pool:  "web",
	}
}

// TestCheckAlone: the form of design.md §8, which is a list of one.
func TestCheckAlone(t *testing.T) {
	const service = "services:\n  - listen: tcp://192.0.2.10:443\n    scheduler: wlc\n    servers: []\n    check: "
	want := []realserver.Check{{
		Kind: realserver.CheckHTTP, HTTP: &realserver.HTTPCheck{Path: "/healthz", Host: "example.org"},
		Interval: 2 * time.Second, Fall: 3, Rise: 2,
	}}
	for _, check := range []string{
		"{http: {path: /healthz, host: example.org}, interval: 2s, rise: 2, fall: 3}\n",
		"[{fall: 3, http: {host: example.org, path: /healthz}, interval: 2s, rise: 2}]\n",
	} {
		cfg, err := config.Parse("f", []byte(service+check))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, cfg.State.Services[0].Health.Checks); diff != "" {
			t.Errorf("%s (-want +got):\n%s", check, diff)
		}
		text, err := config.Format(cfg.State)
		if alone := "{http: {path: /healthz, host: example.org}, interval: 2s, rise: 2, fall: 3}\n"; string(text) != service+alone {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// TestHealthErrors: what is wrong with a check is told at its place.
func TestHealthErrors(t *testing.T) {
	in := func(text string) string {
		return "services:\n- listen: tcp://192.0.2.10:443\n  servers: []\n  " + text + "\n"
	}
	for text, want := range map[string]string{
		"check: {interval: 2s}":                                "f:4:10: services[0].check: nothing is asked: want tcp, http, https, dns, udp, icmp, grpc, smtp, script or file, such as tcp: {}",
		"check: {tcp: {}, http: {}}":                           "f:4:26: services[0].check: it asks tcp and http: want one; a list has several checks",
		"check: [{tcp: {}}, {}]":                               "f:4:22: services[0].check[1]: nothing is asked: want tcp, http, https, dns, udp, icmp, grpc, smtp, script or file, such as tcp: {}",
		"check: tcp":                                           "f:4:10: services[0].check: want a mapping (key: value)",
		"check: {tcp: {}, interval: 0s}":                       "f:4:30: services[0].check.interval: 0s is out of range: want more than 0s",
		"check: {tcp: {}, rise: 0}":                            `f:4:26: services[0].check.rise: "0" is not a count: want 1 to 65535`,
		"check: {tcp: {send: a, send-hex: '00'}}":              "f:4:36: services[0].check.tcp.send-hex: send is given already: want one of them",
		"check: {tcp: {send-hex: '0'}}":                        `f:4:27: services[0].check.tcp.send-hex: it is not a text of octets: want two hexadecimal digits each`,
		"check: {http: {status: [200, 2xx]}}":                  `f:4:32: services[0].check.http.status[1]: "2xx" is not an HTTP status code, nor a range of them: want 200 or 200-299`,
		"check: {http: {headers: [a b]}}":                      `f:4:28: services[0].check.http.headers[0]: it is not a header field: want Name: value`,
		"check: {dns: {}}":                                     "f:4:16: services[0].check.dns.name: the key is missing: the name that is asked for",
		"check: {file: {path: a}}":                             `f:4:24: services[0].check.file.path: "a" is not an absolute path`,
		"check: {script: {}}":                                  "f:4:19: services[0].check.script.command: the key is missing: a list of the program, an absolute path, and its arguments",
		"check: {script: {command: []}}":                       "f:4:29: services[0].check.script.command: the command is empty: want the program, an absolute path, and its arguments",
		"check: {script: {command: [/a], user: a b}}":          `f:4:41: services[0].check.script.user: "a b" is not the name of a user`,
		"check: {icmp: {size: 1}}":                             `f:4:18: services[0].check.icmp: unknown key "size": want `,
		"health: {panic: 0%}":                                  "f:4:19: services[0].health.panic: 0% is out of range: want 1% to 100%, or leave it out",
		"health: {load: {}}":                                   "f:4:18: services[0].health.load.kind: the key is missing: linear, least-used or reported",
		"health: {load: {kind: linear, minimum: 10}}":          `f:4:42: services[0].health.load.minimum: "10" is not a share: want 1% or more`,
		"health: {load: {kind: linear, snmp: {}}}":             "f:4:39: services[0].health.load.snmp.version: the key is missing: v2c or v3",
		"health: {load: {kind: linear, snmp: {version: 2}}}":   `f:4:49: services[0].health.load.snmp.version: unknown word "2": want v2c or v3`,
		"health: {load: {kind: linear, snmp: {version: v3}}}":  "f:4:39: services[0] tcp://192.0.2.10:443: health: load: snmp: a user of 0 bytes: want 1 to 32",
		"health: {initial: upp}":                               `f:4:21: services[0].health.initial: unknown word "upp": want down or up; did you mean up?`,
		"sorry: [{address: 10.0.0.1}]":                         "f:4:11: services[0].sorry[0].method: the method is missing: give it here or at the service: nat, dr, tunnel, fullnat or local",
		"health: {notify: {up: /usr/bin/true}}":                "f:4:25: services[0].health.notify.up: want a list",
		"health: {maintenance: ldirectord}":                    `f:4:25: services[0].health.maintenance: "ldirectord" is not an absolute path`,
		"check: {https: {}, tls: {ca: c}}":                     `f:4:32: services[0].check.tls.ca: "c" is not an absolute path`,
		"check: {http: {headers: ['A: (redacted)']}}":          `f:4:28: services[0] tcp://192.0.2.10:443: check[0]: the value of header A is (redacted), which stands for a value that viewers are not shown: have an operator export it`,
		"check: {http: {path: x}, interval: 3s}":               `f:4:24: services[0] tcp://192.0.2.10:443: check[0]: "x" does not begin with /`,
		"check: [{tcp: {}}, {http: {match: (}}]":               "f:4:37: services[0] tcp://192.0.2.10:443: check[1]: error parsing regexp: missing closing ): `(`",
		"check: {tcp: {}, timeout: 9s}":                        "f:4:29: services[0] tcp://192.0.2.10:443: check[0]: timeout 9s is longer than the interval 5s",
		"health: {damping: {changes: 3, hold: 1m}}":            "f:4:21: services[0] tcp://192.0.2.10:443: health: damping: within is missing: want a time such as 1m",
		"sorry: [{address: 10.0.0.1, weight: 0, method: nat}]": "f:4:39: services[0] tcp://192.0.2.10:443: sorry[0]: weight 0: a sorry server takes connections",
		"check: {http: {version: 3}}":                          `f:4:27: services[0].check.http.version: "3" is not a version: want 1 to 2`,
		"check: {script: {command: [/a], status: up}}":         `f:4:43: services[0].check.script.status: unknown word "up": want plain, nagios or weight`,

		"health: {load: {kind: linear, snmp: {version: v2c, community: public}}}": `f:4:54: services[0].health.load.snmp: unknown key "community": want auth, auth-file, community-file, interval, measure, oid, port, priv, priv-file, processors, scale, timeout, user, version`,
		"health: {load: {kind: linear, snmp: {version: v2c, interval: 100ms}}}":   "f:4:64: services[0] tcp://192.0.2.10:443: health: load: snmp: interval 100ms is out of range: want 1s to 10m0s",
	} {
		_, err := config.Parse("f", []byte(in(text)))
		if err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
