package doctor_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
	"github.com/shunt-lb/shunt/realserver"
)

// needs skips a test without a program of the system; CI has them all.
func needs(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv(directortest.RequireEnv) == "1" {
		t.Fatalf("%s=1, but %s is not installed", directortest.RequireEnv, name)
	}
	t.Skipf("needs %s", name)
}

// nft loads a ruleset into the director, after what is there is flushed.
func (b *bed) nft(ruleset string) {
	b.Helper()
	shell(b.T, b.Director, "nft -f - <<'END'\nflush ruleset\n"+ruleset+"\nEND")
}

// input is a ruleset with one chain of the input hook.
func input(rules ...string) string {
	return "table inet f {\nchain input {\ntype filter hook input priority 0;\n" + strings.Join(rules, "\n") + "\n}\n}"
}

func TestNftablesDrops(t *testing.T) {
	needs(t, "nft")
	rules := map[string]string{
		"port":        input(`tcp dport 80 drop`),
		"port_list":   input(`tcp dport { 22, 70-90 } counter drop`),
		"address":     input(`ip daddr 192.0.2.10 reject`),
		"prefix":      input(`ip daddr 192.0.2.0/24 tcp dport 1-100 drop`),
		"range":       input(`ip daddr 192.0.2.9-192.0.2.20 drop`),
		"server":      strings.ReplaceAll(input(`ip daddr 10.2.0.11 tcp dport 8080 drop`), "input", "forward"),
		"interface":   input(`iifname "eth*" ip daddr 192.0.2.10 drop`),
		"protocol":    input(`meta l4proto tcp ip daddr 192.0.2.10 drop`),
		"some_source": input(`ip daddr 192.0.2.10 ip saddr != 10.0.0.0/8 drop`),
		"limited":     input(`ip daddr 192.0.2.10 limit rate over 10/second drop`),
		"named_set":   "table inet f {\nset vips { type ipv4_addr; elements = { 192.0.2.10, 192.0.2.99 } }\nchain input { type filter hook input priority 0; ip daddr @vips drop; }\n}",
		"concatenate": input(`ip daddr . tcp dport { 192.0.2.10 . 80, 192.0.2.11 . 81 } drop`),
		"ip_family":   "table ip f {\nchain pre { type filter hook prerouting priority -300; tcp dport 80 drop; }\n}",
		"netdev":      "table netdev f {\nchain in { type filter hook ingress device eth0 priority 0; ip daddr 192.0.2.10 drop; }\n}",
		"jump":        "table inet f {\nchain web { ip daddr 192.0.2.10 drop; }\nchain input { type filter hook input priority 0; tcp dport 80 jump web; }\n}",
		"map":         "table inet f {\nchain web { ip daddr 192.0.2.10 drop; }\nchain input { type filter hook input priority 0; tcp dport vmap { 22 : accept, 80 : jump web }; }\n}",
	}
	for name, ruleset := range rules {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, directortest.OneArmed)
			b.host.Services = b.host.Services[:1]
			b.nft(ruleset)
			var found []doctor.Finding
			for _, f := range of(b.inspect(), "nftables", "") {
				if f.Severity == doctor.Warning {
					found = append(found, f)
				}
			}
			f := single(t, found, "nftables", doctor.Warning, "packets to web do not come by this rule of ")
			if !strings.Contains(f.What, "drop") && !strings.Contains(f.What, "reject") || strings.Contains(f.What, "# handle") {
				t.Errorf("the rule is not shown: %q", f.What)
			}
			shell(t, b.Director, f.Fix)
			for _, f := range of(b.inspect(), "nftables", "") {
				if f.Severity == doctor.Warning {
					t.Errorf("after the fix: %+v", f)
				}
			}
		})
	}
}

func TestNftablesLeavesAlone(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	for _, rule := range []string{
		`tcp dport 22 drop`, `udp dport 80 drop`, `ip daddr 198.51.100.1 drop`, `iifname "lo" drop`,
		`ip6 daddr 2001:db8::99 drop`, `ct state established,related accept`, `counter`, `ip protocol icmp drop`,
		`meta nfproto ipv6 tcp dport 81 drop`, `tcp dport 22 jump ssh`,
	} {
		b.nft("table inet f {\nchain ssh { drop; }\nchain nowhere { tcp dport 80 drop; }\nchain input { type filter hook input priority 0;\n" + rule + "\n}\n}")
		if found := of(b.inspect(), "nftables", ""); len(found) > 0 {
			t.Errorf("%s: %+v", rule, found)
		}
	}
	t.Run("local", func(t *testing.T) { // its packets do come by
		b.nft(input(`tcp dport 80 drop`))
		for n := range b.host.Services {
			b.host.Services[n].Servers[0].Method = realserver.Local
		}
		b.wantsNone("nftables", "")
	})
}

func TestNftablesSources(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	web := &b.host.Services[0]
	web.Access.Deny = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	b.nft(input(`ip saddr { 203.0.113.0/24, 198.51.100.0-198.51.100.255 } drop`))
	f := b.wants("nftables", "", doctor.Warning, "packets to web do not come by this rule of inet f input: ip saddr { ")
	if want := "shunt service edit web --deny 198.51.100.0/24 --deny 203.0.113.0/24"; f.Fix != want {
		t.Errorf("fix %q, want %q", f.Fix, want)
	}
	// What the fix does to the daemon's state.
	web.Access.Deny = append(web.Access.Deny, netip.MustParsePrefix("203.0.113.0/24"))
	b.wantsNone("nftables", "")
}

func TestNftablesMentions(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	for rule, words := range map[string]string{
		`ip daddr 192.0.2.10 tcp dport 80 counter accept`: "ip daddr 192.0.2.10 tcp dport 80 counter packets 0 bytes 0 accept",
		`tcp dport 80 meta mark set 7`:                    "tcp dport 80 meta mark set 0x00000007",
		`ip saddr 10.2.0.11 counter`:                      "ip saddr 10.2.0.11 counter",
		`ct state invalid drop`:                           "ct state invalid drop",
	} {
		b.nft(input(rule))
		b.wants("nftables", "inet f input", doctor.Info, words)
	}
}

func TestNftablesPolicy(t *testing.T) {
	needs(t, "nft")
	policy := func(rules ...string) string {
		return strings.Replace(input(rules...), "priority 0;", "priority 0; policy drop;", 1)
	}
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	web := &b.host.Services[0]

	b.nft(policy(`tcp dport 22 accept`))
	b.wants("nftables", "web", doctor.Info, "the policy of inet f input is drop, which packets to web do not come by; no rule accepts them")

	b.nft(policy(`tcp dport 80 accept`))
	b.wantsNone("nftables", "web") // everybody is let in here and there

	b.nft(policy(`ip saddr 10.0.0.0/8 tcp dport 80 accept`))
	f := b.wants("nftables", "web", doctor.Warning, "its rules accept them from 1 prefixes alone")
	if want := "shunt service edit web --allow 10.0.0.0/8"; f.Fix != want {
		t.Errorf("fix %q, want %q", f.Fix, want)
	}
	web.Access.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	b.wantsNone("nftables", "web")
}

func TestNftablesManyRules(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	var rules []string
	for n := range 30 {
		rules = append(rules, fmt.Sprintf("tcp dport 80 ip daddr 192.0.2.10 meta mark set %d", n))
	}
	b.nft(input(append(rules, "tcp dport 80 drop")...))
	found := of(b.inspect(), "nftables", "")
	if len(found) != 21 {
		t.Fatalf("%d findings, want 20 rules and the count of the others", len(found))
	}
	if found[0].Severity != doctor.Warning {
		t.Errorf("the most urgent is not among the first: %+v", found[0])
	}
	if last := found[20]; !strings.Contains(last.What, "11 more rules") {
		t.Errorf("last: %+v", last)
	}
}

// TestNftNotInstalled hides nft from one thread by a mount namespace of its own.
func TestNftNotInstalled(t *testing.T) {
	b := newBed(t, directortest.OneArmed)
	path, err := exec.LookPath("nft")
	if err != nil {
		b.wants("nftables", "", doctor.Unknown, "nft is not installed") // the host does the hiding
		return
	}
	var findings []doctor.Finding
	err = b.Director.Do(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		findings, err = doctor.Inspect(t.Context(), b.host)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f := single(t, of(findings, "nftables", ""), "nftables", doctor.Unknown, "nft is not installed")
	if f.Fix != "apt-get install nftables" {
		t.Errorf("fix %q", f.Fix)
	}
}

func TestIptables(t *testing.T) {
	needs(t, "iptables-legacy")
	tests := []struct {
		name, rule string
		service    int
		severity   doctor.Severity
		words      string
	}{
		{"port", "iptables-legacy -A INPUT -p tcp --dport 80 -j DROP", 0, doctor.Warning, "this rule of iptables filter INPUT: -p tcp -m tcp --dport 80 -j DROP"},
		{"ports", "iptables-legacy -A INPUT -p tcp -m multiport --dports 22,79:81 -j REJECT", 0, doctor.Warning, "--dports 22,79:81"},
		{"address", "iptables-legacy -t raw -A PREROUTING -d 192.0.2.0/24 -j DROP", 0, doctor.Warning, "iptables raw PREROUTING"},
		{"comment", `iptables-legacy -A INPUT -d 192.0.2.10 -m comment --comment "no -j ACCEPT for \"us\"" -j DROP`, 0, doctor.Warning, "no -j ACCEPT for"},
		{"jump", "iptables-legacy -N web; iptables-legacy -A web -d 192.0.2.10 -i eth+ -j DROP; iptables-legacy -A INPUT ! -s 10.0.0.0/8 -j web", 0, doctor.Warning, "iptables filter web"},
		{"ipv6", "ip6tables-legacy -A INPUT -d 2001:db8::10/128 -p tcp -j DROP", 1, doctor.Warning, "ip6tables filter INPUT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, directortest.OneArmed)
			b.host.Services = b.host.Services[tt.service : tt.service+1]
			shell(t, b.Director, tt.rule)
			b.cures("iptables", "", tt.severity, tt.words)
		})
	}
	t.Run("source", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "iptables-legacy -A INPUT -s 203.0.113.0/24 -j DROP")
		f := b.wants("iptables", "", doctor.Warning, "packets to web do not come by")
		if want := "shunt service edit web --deny 203.0.113.0/24"; f.Fix != want {
			t.Errorf("fix %q, want %q", f.Fix, want)
		}
		b.host.Services[0].Access = director.Access{Deny: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}
		b.wantsNone("iptables", "")
	})
	t.Run("policy", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT; iptables-legacy -P INPUT DROP")
		b.wants("iptables", "web", doctor.Info, "the policy of iptables filter INPUT is drop")
		shell(t, b.Director, "iptables-legacy -P INPUT ACCEPT")
		b.wantsNone("iptables", "")
	})
	t.Run("others", func(t *testing.T) {
		b := newBed(t, directortest.OneArmed)
		shell(t, b.Director, "iptables-legacy -A INPUT -p tcp --dport 22 -j DROP; iptables-legacy -A INPUT -i lo -j DROP; iptables-legacy -A INPUT -p udp -j DROP; iptables-legacy -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT")
		b.wantsNone("iptables", "")
	})
}
