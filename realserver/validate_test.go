package realserver_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/realserver"
)

// problems returns the problems that err joins.
func problems(t *testing.T, err error) []realserver.Problem {
	t.Helper()
	if err == nil {
		return nil
	}
	var out []realserver.Problem
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		out = append(out, *e.(*realserver.Problem))
	}
	return out
}

func TestValidate(t *testing.T) {
	const dr, local = realserver.DR, realserver.Local
	tests := []struct {
		name   string
		addr   string
		method realserver.Method
		weight uint32
		want   []realserver.Problem
	}{
		{"v4", "10.0.0.1:80", realserver.NAT, 1, nil},
		{"v6", "[2001:db8::1]:65535", dr, realserver.MaxWeight, nil},
		{"tunnel_is_a_method", "10.0.0.1:80", realserver.Tunnel, 0, nil},
		{"fullnat", "10.0.0.1:80", realserver.FullNAT, 1, nil},
		{"the_kernels_bypass", "10.0.0.1:80", 4, 1, []realserver.Problem{{"method", "unknown forwarding method 4"}}},
		{"loopback_local", "127.0.0.1:80", local, 0, nil},
		{"loopback", "127.0.0.1:80", dr, 0, nil}, // the kernel's IPVS takes it for local
		{"link_local_v6", "[fe80::1]:80", dr, 0, []realserver.Problem{{"address", "address fe80::1 is link-local: it names no interface to reach it by"}}},
		{"link_local_v4", "169.254.1.1:80", dr, 0, nil},
		{"zone", "[fe80::1%eth0]:80", dr, 0, []realserver.Problem{{"address", "address fe80::1%eth0 has a zone: a server is reached by the routing table"}}},
		{"v4_in_v6", "[::ffff:10.0.0.1]:80", dr, 0, []realserver.Problem{{"address", "address ::ffff:10.0.0.1 is an IPv4 address in IPv6 form: write 10.0.0.1"}}},
		{"multicast", "224.0.0.1:80", dr, 0, []realserver.Problem{{"address", "address 224.0.0.1 is not a unicast address"}}},
		{"multicast_v6", "[ff02::1]:80", dr, 0, []realserver.Problem{{"address", "address ff02::1 is not a unicast address"}}},
		{"broadcast", "255.255.255.255:80", dr, 0, []realserver.Problem{{"address", "address 255.255.255.255 is not a unicast address"}}},
		{"unspecified", "0.0.0.0:80", local, 0, []realserver.Problem{{"address", "address 0.0.0.0 is not a unicast address"}}},
		{
			"all_at_once", "10.0.0.1:0", 9, 2147483648,
			[]realserver.Problem{
				{"method", "unknown forwarding method 9"},
				{"weight", "weight 2147483648 is out of range: want 0 to 2147483647"},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := realserver.Server{Address: netip.MustParseAddrPort(tt.addr), Method: tt.method, Weight: tt.weight}
			if diff := cmp.Diff(tt.want, problems(t, s.Validate())); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		want := []realserver.Problem{{"address", "the address is missing"}}
		if diff := cmp.Diff(want, problems(t, realserver.Server{}.Validate())); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	})
}

func TestValidateTunnel(t *testing.T) {
	const ipip, gue, gre = realserver.TunnelIPIP, realserver.TunnelGUE, realserver.TunnelGRE
	const none, full, remote = realserver.TunnelNoChecksum, realserver.TunnelChecksumOn, realserver.TunnelRemoteChecksum
	for _, tt := range []struct {
		method realserver.Method
		tunnel realserver.TunnelOptions
		want   string
	}{
		{realserver.Tunnel, realserver.TunnelOptions{}, ""},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gue, Port: 5555}, ""},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gue, Port: 65535, Checksum: full}, ""},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gue, Port: 1, Checksum: remote}, ""},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gre}, ""},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gre, Checksum: full}, ""},
		{realserver.Tunnel, realserver.TunnelOptions{Type: 3}, "unknown tunnel type 3"},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gue, Checksum: none}, "gue wants a port"},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gre, Port: 5555}, "port 5555: only gue has a port"},
		{realserver.Tunnel, realserver.TunnelOptions{Type: ipip, Port: 5555}, "port 5555: only gue has a port"},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gue, Port: 5555, Checksum: 3}, "unknown tunnel checksum 3"},
		{realserver.Tunnel, realserver.TunnelOptions{Checksum: full}, "ipip has no checksum: gue and gre have"},
		{realserver.Tunnel, realserver.TunnelOptions{Type: gre, Checksum: remote}, "only gue has a remote checksum"},
		{realserver.DR, realserver.TunnelOptions{Type: gue, Port: 5555}, "method dr has no tunnel"},
		{realserver.NAT, realserver.TunnelOptions{Checksum: full}, "method nat has no tunnel"},
	} {
		s := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: tt.method, Tunnel: tt.tunnel}
		var want []realserver.Problem
		if tt.want != "" {
			want = []realserver.Problem{{"tunnel", tt.want}}
		}
		if diff := cmp.Diff(want, problems(t, s.Validate())); diff != "" {
			t.Errorf("%s by %s (-want +got):\n%s", tt.method, tt.tunnel, diff)
		}
	}
}

func TestMethod(t *testing.T) {
	for name, m := range map[string]realserver.Method{"nat": 0, "local": 1, "tunnel": 2, "dr": 3, "fullnat": 5} {
		if got := m.String(); got != name {
			t.Errorf("String: %q, want %q", got, name)
		}
		if got, err := realserver.ParseMethod(name); err != nil || got != m {
			t.Errorf("ParseMethod(%q): %v, %v", name, got, err)
		}
	}
	if got, want := realserver.Method(4).String(), "method-4"; got != want {
		t.Errorf("String: %q, want %q", got, want)
	}
	const unknown = `unknown forwarding method "masq": want nat, dr, tunnel, fullnat or local`
	if _, err := realserver.ParseMethod("masq"); err == nil || err.Error() != unknown {
		t.Errorf("ParseMethod(masq): %v, want %s", err, unknown)
	}
	var rewriting []realserver.Method
	for _, m := range realserver.Methods() {
		if m.Rewrites() {
			rewriting = append(rewriting, m)
		}
	}
	if want := []realserver.Method{realserver.NAT, realserver.FullNAT}; !slices.Equal(rewriting, want) {
		t.Errorf("methods %v rewrite packets, want %v", rewriting, want)
	}
}
