package director_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
)

func TestMarkKey(t *testing.T) {
	for _, tt := range []struct {
		key     string
		address string
		full    uint8
	}{
		{"fwmark://7", "0.0.0.0:0", 32},
		{"fwmark6://7", "[::]:0", 128},
	} {
		key := mustKey(tt.key)
		if made := director.MarkKey(7, key.Address.Addr()); made != key {
			t.Errorf("made %+v, read %+v", made, key)
		}
		if key.Mark != 7 || key.Protocol != 0 || key.Address.String() != tt.address {
			t.Errorf("%s: %+v, want the mark and %s", tt.key, key, tt.address)
		}
		if !key.IsMark() || !key.IsWide() || !key.AnyPort() || key.FullPrefix() != tt.full {
			t.Errorf("%s: mark %t, wide %t, any port %t, full prefix %d", tt.key, key.IsMark(), key.IsWide(), key.AnyPort(), key.FullPrefix())
		}
	}
	if key := web().Key; key.IsMark() {
		t.Errorf("%s is one of a mark", key)
	}
}

func TestMarkHint(t *testing.T) {
	const want = `# the packets of fwmark://7 are those that the firewall gives mark 7, such as:
nft add table inet shunt-marks
nft add chain inet shunt-marks prerouting '{ type filter hook prerouting priority mangle; }'
nft add rule inet shunt-marks prerouting ip daddr 192.0.2.1 tcp dport '{ 80, 443 }' meta mark set 7
# where the address is not one of this host:
ip rule add fwmark 7 lookup 100
ip route add local 0.0.0.0/0 dev lo table 100
`
	if diff := cmp.Diff(want, director.MarkHint(mustKey("fwmark://7"))); diff != "" {
		t.Errorf("hint (-want +got):\n%s", diff)
	}
	got := director.MarkHint(mustKey("fwmark6://4294967295"))
	for _, part := range []string{"ip6 daddr 2001:db8::1 ", " meta mark set 4294967295\n", "\nip -6 rule add fwmark 4294967295 ", " local ::/0 "} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
	if hint := director.MarkHint(web().Key); hint != "" {
		t.Errorf("hint for %s: %s", web().Key, hint)
	}
}

// Whoever follows the hint has no error.
func TestMarkHintRuns(t *testing.T) {
	directortest.Privileged(t)
	for _, program := range []string{"nft", "ip", "sh"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: scripts/setup.sh installs it", err)
		}
	}
	ns, err := directortest.NewNamespace("hint")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, key := range []string{"fwmark://7", "fwmark6://8"} {
		out, err := ns.Command(t.Context(), "sh", "-euc", director.MarkHint(mustKey(key))).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", key, err, out)
		}
	}
	out, err := ns.Command(t.Context(), "nft", "list", "table", "inet", "shunt-marks").CombinedOutput()
	for _, part := range []string{"meta mark set 0x00000007", "meta mark set 0x00000008"} {
		if err != nil || !strings.Contains(string(out), part) {
			t.Errorf("no %q in the rules: %v:\n%s", part, err, out)
		}
	}
}
