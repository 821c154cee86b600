package doctor_test

import (
	"net/netip"
	"testing"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
)

// bypassed asks in the director what a move would take packets past.
func (b *bed) bypassed() []doctor.Finding {
	b.Helper()
	var findings []doctor.Finding
	err := b.Director.Do(func() (err error) {
		findings, err = doctor.Bypassed(b.Context(), b.host)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return findings
}

// widen gives the service another key and its servers the port 0: the client's.
func widen(s *director.Service, url string) {
	k, err := director.ParseServiceKey(url)
	if err != nil {
		panic(err)
	}
	s.Key = k
	for n := range s.Servers {
		s.Servers[n].Address = netip.AddrPortFrom(s.Servers[n].Address.Addr(), 0)
	}
}

// TestBypassed looks at the firewall alone, and leaves out what is in order.
func TestBypassed(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	if found := b.bypassed(); len(found) > 0 {
		t.Errorf("without rules: %+v", found)
	}
	b.nft(input(`tcp dport 80 drop`))
	single(t, b.bypassed(), "nftables", doctor.Warning, "packets to web do not come by this rule of inet f input: ")
}

// TestWideServices is about rules for a part of a service's addresses or ports:
// no one address and port stands for it.
func TestWideServices(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	const (
		all    = "tcp://192.0.2.10:0"
		some   = "tcp://192.0.2.10:8000-8999"
		prefix = "tcp://192.0.2.0/24:80"
	)
	for _, tt := range []struct {
		key, rule string
		want      bool
	}{
		{all, "tcp dport 25 drop", true},
		{all, "ip daddr 192.0.2.10 tcp dport 25 drop", true},
		{all, "ip daddr 10.2.0.11 tcp dport 25 drop", true}, // the server's
		{all, "tcp dport 1-1023 drop", true},
		{all, "udp dport 25 drop", false},
		{all, "ip daddr 192.0.2.11 tcp dport 25 drop", false},
		{some, "ip daddr 192.0.2.10 tcp dport 8500 drop", true},
		{some, "tcp dport 8999-9100 drop", true},
		{some, "tcp dport { 7999, 9000 } drop", false},
		{some, "ip daddr 10.2.0.11 tcp dport 8500 drop", true},
		{some, "ip daddr 10.2.0.11 tcp dport 25 drop", false},
		{prefix, "ip daddr 192.0.2.77 drop", true},
		{prefix, "ip daddr 192.0.2.128/25 tcp dport 80 drop", true},
		{prefix, "ip daddr 192.0.0.0/16 drop", true},
		{prefix, "ip daddr 192.0.3.0/24 drop", false},
		{prefix, "ip daddr 192.0.2.77 tcp dport 81 drop", false},
	} {
		widen(&b.host.Services[0], tt.key)
		b.nft(input(tt.rule))
		found := of(b.inspect(), "nftables", "")
		if tt.want {
			single(t, found, "nftables", doctor.Warning, "packets to web do not come by this rule of inet f input: ")
		} else if len(found) > 0 {
			t.Errorf("%s, %s: %+v", tt.key, tt.rule, found)
		}
		if strict := b.bypassed(); len(strict) != len(found) {
			t.Errorf("%s, %s: a move is told %+v", tt.key, tt.rule, strict)
		}
	}
}

// TestPartlyAccepted is about policies that a rule for a part of the service does
// not make good.
func TestPartlyAccepted(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	widen(&b.host.Services[0], "tcp://192.0.2.0/24:8000-8999")
	policy := func(rules string) string {
		return "table inet f {\nchain web { accept; }\nchain input { type filter hook input priority 0; policy drop; " + rules + " }\n}"
	}
	for rules, partly := range map[string]bool{
		"tcp dport 8000-8999 accept;":                            false,
		"ip daddr 192.0.0.0/16 tcp dport 8000-9000 accept;":      false,
		"tcp dport 8000-8999 jump web;":                          false,
		"ct state new jump web;":                                 false,
		"tcp dport 8080 jump web; tcp dport 8000-8999 jump web;": false,
		"tcp dport 8000-8998 accept;":                            true,
		"ip daddr 192.0.2.10 accept;":                            true,
		"tcp dport 8080 jump web;":                               true,
		"ip saddr 10.0.0.0/8 jump web;":                          true,
	} {
		b.nft(policy(rules))
		found := of(b.inspect(), "nftables", "web")
		if !partly {
			if len(found) > 0 {
				t.Errorf("%s %+v", rules, found)
			}
			continue
		}
		single(t, found, "nftables", doctor.Warning, "packets to web do not come by; its rules accept a part of them alone")
	}
}

// TestBypassedInDoubt sees that a move is told of what services may live by on the
// stack, and that the doctor does not speak of it otherwise.
func TestBypassedInDoubt(t *testing.T) {
	needs(t, "nft")
	b := newBed(t, directortest.OneArmed)
	b.host.Services = b.host.Services[:1]
	chain := func(kind, rule string) string { return "table ip f {\nchain c { type " + kind + "; " + rule + "; }\n}" }
	const (
		pre  = "filter hook prerouting priority -150"
		dnat = "nat hook prerouting priority -100"
		snat = "nat hook postrouting priority 100"
		send = "packets to web do not come by this rule of ip f c: "
		lose = "packets that this rule of ip f c may translate to web get there no more: "
	)
	for _, tt := range []struct{ kind, rule, words string }{
		{snat, "masquerade", send},
		{snat, `oifname "eth1" masquerade`, send},
		{snat, "meta l4proto tcp snat to 10.2.0.1", send},
		{snat, "ip saddr 10.2.0.0/24 ip daddr 203.0.113.0/24 snat to 203.0.113.1", send}, // replies
		{pre, "meta mark set 7", send},
		{pre, "ip daddr != 192.0.2.77 meta mark set 7", send},
		{pre, "ct mark set 7 accept", send},
		{pre, "ip dscp set cs3", send},
		{pre, "meta l4proto tcp tproxy to :80", send},
		{pre, "ip daddr != 192.0.2.77 counter", send},
		{pre, "@th,100,20 5 counter", send},
		{dnat, "ip daddr 203.0.113.1 dnat to 192.0.2.10", lose},
		{dnat, "ip daddr 203.0.113.1 tcp dport 9080 dnat to 192.0.2.10:80", lose},
		{dnat, "ip daddr 203.0.113.1 dnat to 192.0.2.1-192.0.2.20", lose},
		{dnat, "tcp dport 9080 redirect to :80", lose},
		{dnat, "dnat to tcp dport map { 9080 : 192.0.2.10 }", send},
		{dnat, "ip daddr 203.0.113.1 dnat to tcp dport map { 9080 : 192.0.2.10 }", lose},
	} {
		b.nft(chain(tt.kind, tt.rule))
		single(t, b.bypassed(), "nftables", map[string]doctor.Severity{send: doctor.Info, lose: doctor.Warning}[tt.words], tt.words)
		if found := of(b.inspect(), "nftables", ""); len(found) > 0 {
			t.Errorf("%s: the doctor has become noisy: %+v", tt.rule, found)
		}
	}
	for _, tt := range []struct{ kind, rule string }{
		{pre, "ct state established,related accept"},
		{pre, "limit rate 3/second log"},
		{pre, "udp dport 53 meta mark set 7"},
		{pre, "meta protocol ip6 meta mark set 7"},
		{pre, "notrack"},
		{pre, "ip daddr != 192.0.2.77 accept"},
		{snat, "ip daddr 203.0.113.0/24 masquerade"},
		{dnat, "ip daddr 203.0.113.1 dnat to 192.0.2.11"},
		{dnat, "tcp dport 9080 dnat to 192.0.2.10:81"},
		{dnat, "udp dport 9080 dnat to 192.0.2.10:80"},
		{dnat, "tcp dport 9080 redirect to :81"},
	} {
		b.nft(chain(tt.kind, tt.rule))
		if found := b.bypassed(); len(found) > 0 {
			t.Errorf("%s: %+v", tt.rule, found)
		}
	}
	b.nft(chain(pre, "ct original ip daddr 192.0.2.10 counter"))
	single(t, b.bypassed(), "nftables", doctor.Info, send)
	b.wants("nftables", "", doctor.Info, send) // it is about the service by name
}

// TestBypassedIptables does the same for the old iptables, and for what it has made
// by way of nftables, which nft shows by name alone.
func TestBypassedIptables(t *testing.T) {
	for _, program := range []string{"iptables-legacy", "iptables-nft"} {
		needs(t, program)
		for _, tt := range []struct {
			rule string
			want bool
		}{
			{"-t nat -A POSTROUTING -j MASQUERADE", true},
			{"-t nat -A POSTROUTING -p tcp -j SNAT --to-source 10.2.0.1", true},
			{"-t mangle -A PREROUTING ! -d 192.0.2.77 -p tcp -j MARK --set-mark 1", true},
			{"-t mangle -A PREROUTING -j CONNMARK --restore-mark", true},
			{"-t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 9080 -j DNAT --to-destination 192.0.2.10:80", true},
			{"-t nat -A PREROUTING -p tcp --dport 9080 -j REDIRECT --to-ports 80", true},
			{"-t nat -A PREROUTING -d 203.0.113.1 -p tcp --dport 9080 -j DNAT --to-destination 192.0.2.11:80", false},
			{"-t nat -A PREROUTING -p tcp --dport 9080 -j REDIRECT --to-ports 81", false},
			{"-t nat -A POSTROUTING -p udp -j MASQUERADE", false},
			{"-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", false},
		} {
			t.Run(program+" "+tt.rule, func(t *testing.T) {
				b := newBed(t, directortest.OneArmed)
				b.host.Services = b.host.Services[:1]
				shell(t, b.Director, program+" "+tt.rule)
				if found := b.bypassed(); len(found) > 0 != tt.want {
					t.Errorf("want it named %v, have %+v", tt.want, found)
				}
				for _, check := range []string{"iptables", "nftables"} {
					b.wantsNone(check, "")
				}
			})
		}
	}
}
