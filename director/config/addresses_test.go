package config_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestOwnAddresses(t *testing.T) {
	for text, want := range map[string]config.Settings{
		"{}":                         {LocalPorts: config.Ports{First: 1024, Last: 65535}, Echo: "service"},
		"{echo: stack, tunnel: {}}":  {LocalPorts: config.Ports{First: 1024, Last: 65535}, Echo: "stack"},
		"{fullnat: {ports: 5000}}":   {LocalPorts: config.Ports{First: 5000, Last: 5000}, Echo: "service"},
		"{fullnat: {ports: 1-1}}":    {LocalPorts: config.Ports{First: 1, Last: 1}, Echo: "service"},
		"{fullnat: {addresses: []}}": {LocalPorts: config.Ports{First: 1024, Last: 65535}, Echo: "service"},
		`{tunnel: {sources: ["2001:db8::/96", 10.0.0.0/8]}, echo: always,
		  fullnat: {addresses: [10.0.0.1, 10.1.0.0/22, "10.1.4.0/23", 10.0.0.8/29, "2001:db8::/117"], ports: 32768-60999}}`: {
			TunnelSources:  prefixes("2001:db8::/96", "10.0.0.0/8"),
			LocalAddresses: prefixes("10.0.0.1/32", "10.1.0.0/22", "10.1.4.0/23", "10.0.0.8/29", "2001:db8::/117"),
			LocalPorts:     config.Ports{First: 32768, Last: 60999}, Echo: "always",
		},
	} {
		cfg, err := config.Parse("f", []byte("director: "+text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		s := cfg.Director
		got := config.Settings{TunnelSources: s.TunnelSources, LocalAddresses: s.LocalAddresses, LocalPorts: s.LocalPorts, Echo: s.Echo}
		if diff := cmp.Diff(want, got, cmpNetip); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestOwnAddressesRefused(t *testing.T) {
	_, err := config.Parse("f", []byte(`director:
  echo: maybe
  tunnel:
    sources: [host, "fe80::1%eth0", 10.0.0.1/8, 127.0.0.1, "fe80::1", 224.0.0.0/8, "::ffff:10.0.0.1", "2001:db8::/95", 10.0.0.1, 10.0.0.2, ~]
    source: 10.0.0.1
  fullnat:
    addresses: [10.0.0.0/22, 10.0.3.7, 10.0.0.0/21, 10.1.0.0/20, 0.0.0.0/0, 255.255.255.255, 10.2.0.0/22, 10.3.0.1, "2001:db8::/64", {}]
    ports: 0-5
`))
	wantErrors(
		t, err,
		`f:2:9: director.echo: unknown word "maybe": want service, always or stack`,
		`f:4:15: director.tunnel.sources[0]: "host" is no address: want one of this host, or a prefix such as 10.0.0.16/28`,
		`f:4:21: director.tunnel.sources[1]: "fe80::1%eth0" has a zone: want an address that servers can answer to`,
		`f:4:37: director.tunnel.sources[2]: 10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8, or 10.0.0.1 for the one address`,
		`f:4:49: director.tunnel.sources[3]: 127.0.0.1 is a loopback address: servers cannot answer to it`,
		`f:4:60: director.tunnel.sources[4]: fe80::1 is link-local: servers cannot answer to it but on one link`,
		`f:4:71: director.tunnel.sources[5]: 224.0.0.0/8 is not a unicast address`,
		`f:4:84: director.tunnel.sources[6]: ::ffff:10.0.0.1 is an IPv4 address in IPv6 form: write it as IPv4`,
		`f:4:103: director.tunnel.sources[7]: 2001:db8::/95 leaves 33 bits to differ: want a prefix of /96 or longer`,
		`f:4:130: director.tunnel.sources[9]: sources[8] is IPv4 already: want one of a family`,
		`f:4:140: director.tunnel.sources[10]: the value is missing`,
		`f:5:5: director.tunnel: unknown key "source": want sources; did you mean sources?`,
		`f:7:30: director.fullnat.addresses[1]: 10.0.3.7 has addresses of 10.0.0.0/22, which is addresses[0]`,
		`f:7:40: director.fullnat.addresses[2]: 10.0.0.0/21 has addresses of 10.0.0.0/22, which is addresses[0]`,
		`f:7:53: director.fullnat.addresses[3]: 10.1.0.0/20 makes it more than 2048 addresses of IPv4`,
		`f:7:66: director.fullnat.addresses[4]: 0.0.0.0/0 is not a unicast address`,
		`f:7:77: director.fullnat.addresses[5]: 255.255.255.255 is not a unicast address`,
		`f:7:107: director.fullnat.addresses[7]: 10.3.0.1 makes it more than 2048 addresses of IPv4`,
		`f:7:117: director.fullnat.addresses[8]: 2001:db8::/64 makes it more than 2048 addresses of IPv6`,
		`f:7:134: director.fullnat.addresses[9]: want a single value`,
		`f:8:12: director.fullnat.ports: "0-5" is not a range of ports: want one such as 1024-65535`,
	)
	for text, want := range map[string]string{
		"65536":  `"65536" is not a range of ports: want one such as 1024-65535`,
		"9-5":    "9-5 ends before it begins",
		"1-2-3":  `"1-2-3" is not a range of ports: want one such as 1024-65535`,
		`"-5"`:   `"-5" is not a range of ports: want one such as 1024-65535`,
		"1024-":  `"1024-" is not a range of ports: want one such as 1024-65535`,
		"+1-+10": `"+1-+10" is not a range of ports: want one such as 1024-65535`,
	} {
		_, err := config.Parse("f", []byte("director: {fullnat: {ports: "+text+"}}"))
		wantErrors(t, err, "f:1:29: director.fullnat.ports: "+want)
	}
}
