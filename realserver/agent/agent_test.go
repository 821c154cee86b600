package agent

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

func prefixes(all ...string) (parsed []netip.Prefix) {
	for _, s := range all {
		parsed = append(parsed, netip.MustParsePrefix(s))
	}
	return parsed
}

// TestWarnings: each thing that is wrong is said by name, and nothing that is right.
func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		name    string
		virtual []netip.Prefix
		to      []netip.Prefix
		knobs   map[string]int // beside those that are right
		missing []string
		mode    decap.Mode
		gone    bool
		want    []string // what each warning begins with
	}{
		{name: "all is right"},
		{name: "IPv6 is right", virtual: prefixes("2001:db8::10/128", "2001:db8::/64"), knobs: map[string]int{"all rp_filter": 1}},
		{
			name: "not on the host", virtual: prefixes("192.0.2.1/32", "192.0.2.2/32", "198.51.100.0/24", "2001:db8:1::/64"),
			want: []string{
				"192.0.2.2 is not on this host, which does not accept its packets: ip address add 192.0.2.2/32 dev lo",
				"198.51.100.0/24 is not on this host, which does not accept its packets: ip route add local 198.51.100.0/24 dev lo",
				"2001:db8:1::/64 is not on this host",
			},
		},
		{name: "strict for all", knobs: map[string]int{"all rp_filter": 1}, want: []string{"eth0: rp_filter is strict"}},
		{name: "strict for it", knobs: map[string]int{"eth0 rp_filter": 1}, want: []string{"eth0: rp_filter is strict"}},
		{name: "strict for all, loose for it", knobs: map[string]int{"all rp_filter": 1, "eth0 rp_filter": 2}},
		{name: "strict elsewhere", knobs: map[string]int{"eth1 rp_filter": 1}},
		{name: "in another network", knobs: map[string]int{"all arp_ignore": 0, "all arp_announce": 0}},
		{
			name: "in its network, and answers", virtual: prefixes("10.0.0.100/32"), knobs: map[string]int{"all arp_ignore": 0},
			want: []string{"eth0: arp_ignore is 0, so that it answers ARP for 10.0.0.100"},
		},
		{
			name: "in its network, and asks", virtual: prefixes("10.0.0.100/32"), knobs: map[string]int{"all arp_announce": 1},
			want: []string{"eth0: arp_announce is 1, so that it answers ARP for 10.0.0.100"},
		},
		{name: "in its network, but right for it", virtual: prefixes("10.0.0.100/32"), knobs: map[string]int{"all arp_ignore": 0, "eth0 arp_ignore": 1}},
		{name: "settings that cannot be read", virtual: prefixes("10.0.0.100/32"), missing: []string{"eth0"}, knobs: map[string]int{"all rp_filter": 1, "all arp_ignore": 0}},
		{name: "an address that has gone", to: prefixes("10.0.0.9/32"), want: []string{"outer destination 10.0.0.9 is not on this host any more"}},
		{name: "generic", mode: decap.Generic, want: []string{"eth0: generic mode"}},
		{name: "the interface is gone", gone: true, virtual: prefixes("192.0.2.2/32"), want: []string{"an interface that this was started for is gone"}},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			knobs := map[string]int{"all arp_ignore": 1, "all arp_announce": 2}
			for knob, value := range test.knobs {
				knobs[knob] = value
			}
			h := &host{
				local:    prefixes("127.0.0.0/8", "10.0.0.2/32", "10.0.0.100/32", "192.0.2.1/32", "2001:db8::10/128"),
				networks: map[string][]netip.Prefix{"lo": prefixes("127.0.0.0/8"), "eth0": prefixes("10.0.0.0/24")},
				knob: func(iface, name string) (int, bool) {
					return knobs[iface+" "+name], !slices.Contains(test.missing, iface)
				},
			}
			r := decap.Running{Interface: decap.Interface{Name: "eth0", Mode: decap.Native}, IsGone: test.gone}
			r.Config.Virtual, r.Config.To = prefixes("192.0.2.1/32"), prefixes("10.0.0.2/32")
			if test.virtual != nil {
				r.Config.Virtual = test.virtual
			}
			if test.to != nil {
				r.Config.To = test.to
			}
			if test.mode != "" {
				r.Mode = test.mode
			}
			got := h.warnings(decap.State{Interfaces: []decap.Running{r, r}})
			if len(got) != len(test.want) {
				t.Fatalf("warnings %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("warning %q, want %q", got[i], want)
				}
			}
		})
	}
}

// TestDecap looks at a real host: its addresses become the outer destinations, and
// what is wrong with it is said.
func TestDecap(t *testing.T) {
	directortest.Privileged(t)
	ok := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	n, err := directortest.NewNamespace("server")
	ok(err)
	peer, err := directortest.NewNamespace("peer")
	ok(err)
	t.Cleanup(func() { ok(errors.Join(n.Close(), peer.Close())) })
	ok(n.AddVeth("eth0", peer, "eth0", 0))
	for _, a := range []string{"10.0.0.2/24", "10.0.0.100/24", "fd00::2/64"} {
		ok(n.AddAddress("eth0", netip.MustParsePrefix(a)))
	}
	ok(n.AddAddress("lo", netip.MustParsePrefix("192.0.2.1/32")))
	ok(n.Sysctl("net/ipv4/conf/eth0/rp_filter", "1"))
	d := Decap{
		PinDir: filepath.Join(directortest.Bpffs(t), "agent"), Interfaces: []string{"eth0", "eth0"},
		Virtual: prefixes("192.0.2.1/32", "10.0.0.100/32", "192.0.2.2/32"), Types: []realserver.TunnelType{realserver.TunnelGRE},
	}
	var status Status
	ok(n.Do(func() (err error) {
		status, err = d.Start()
		return err
	}))
	if len(status.Interfaces) != 1 || status.Interfaces[0].Name != "eth0" || status.Interfaces[0].Mode != decap.Native {
		t.Fatalf("running: %+v", status.Interfaces)
	}
	c := status.Interfaces[0].Config
	if diff := cmp.Diff([]string{"10.0.0.2/32", "fd00::2/128"}, []string{c.To[0].String(), c.To[1].String()}); diff != "" || len(c.To) != 2 {
		t.Errorf("outer destinations %v (-want +got)\n%s", c.To, diff)
	}
	if len(c.Types) != 1 || c.Types[0] != decap.GRE {
		t.Errorf("types %v", c.Types)
	}
	want := []string{"eth0: arp_ignore is 0", "192.0.2.2 is not on this host", "eth0: rp_filter is strict"}
	if len(status.Warnings) != len(want) {
		t.Errorf("warnings %q", status.Warnings)
	}
	for _, w := range want {
		if !slices.ContainsFunc(status.Warnings, func(s string) bool { return strings.HasPrefix(s, w) }) {
			t.Errorf("no warning %q in %q", w, status.Warnings)
		}
	}

	d.Virtual = prefixes("0.0.0.0/0", "::/0")
	if err := n.Do(func() error { _, err := d.Start(); return err }); err == nil || !strings.HasPrefix(err.Error(), "the host has no address that directors could send to") {
		t.Errorf("no address but virtual ones: %v", err)
	}
	d.Interfaces = []string{"eth7"}
	if err := n.Do(func() error { _, err := d.Start(); return err }); !errors.Is(err, ErrNoInterface) {
		t.Errorf("an interface that is not there: %v", err)
	}
	if stopped, err := Stop(d.PinDir); err != nil || stopped != 1 {
		t.Errorf("stop: %d, %v", stopped, err)
	}
}
