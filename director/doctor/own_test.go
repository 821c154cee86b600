package doctor_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/doctor"
	"github.com/shunt-lb/shunt/realserver"
)

func TestTunnelSources(t *testing.T) {
	b := newBed(t, directortest.TwoArmed)
	b.host.TunnelSources = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32"), netip.MustParsePrefix("2001:db8:9::/124")}
	b.wantsNone("tunnel", "") // nothing is sent by a tunnel
	for n := range b.host.Services {
		b.host.Services[n].Servers[0].Method = realserver.Tunnel
	}
	b.cures("tunnel", "10.9.0.1/32", doctor.Warning, "tunnels' packets come from 10.9.0.1/32, which is not of this host")
	b.cures("tunnel", "2001:db8:9::/124", doctor.Warning, "come from 2001:db8:9::/124")
}

func TestFullNAT(t *testing.T) {
	b := newBed(t, directortest.TwoArmed)
	b.wantsNone("fullnat", "") // nothing is translated so
	for n := range b.host.Services {
		b.host.Services[n].Servers[0].Method = realserver.FullNAT
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		b.wants("fullnat", family, doctor.Error, "director.fullnat.addresses has no "+family+" address")
	}
	pool := func(texts ...string) {
		b.host.LocalAddresses = nil
		for _, text := range texts {
			b.host.LocalAddresses = append(b.host.LocalAddresses, netip.MustParsePrefix(text))
		}
	}
	network6 := netip.PrefixFrom(b.Servers[0].Addr6, 64).Masked().Addr()
	near := func(last byte) string { // in the servers' network
		bytes := network6.As16()
		bytes[14], bytes[15] = 0x77, last
		return netip.AddrFrom16(bytes).String()
	}
	pool("10.9.0.2/32", "2001:db8:9::2/128", "10.9.0.16/28")
	b.wantsNone("fullnat", "") // a daemon that starts puts them on the host
	b.runs()
	b.cures("fullnat", "10.9.0.2/32", doctor.Warning, "10.9.0.2/32 of full NAT is not on this host")
	b.cures("fullnat", "2001:db8:9::2/128", doctor.Warning, "2001:db8:9::2/128 of full NAT is not on this host")
	if f := b.wants("fullnat", "10.9.0.16/28", doctor.Warning, "10.9.0.16/28 of full NAT is not on this host"); f.Fix != "systemctl restart shuntd" {
		t.Errorf("fix %q", f.Fix)
	}
	pool("10.9.0.2/32", "2001:db8:9::2/128")
	b.wantsNone("fullnat", "")

	// On lo, nobody of the link hears of an address of IPv6.
	for i, on := range []string{"lo", ""} {
		address := near(byte(1 + i))
		pool("10.9.0.2/32", address+"/128")
		if on != "" {
			shell(t, b.Director, "ip -6 address add "+address+"/128 dev lo nodad")
		}
		b.cures("fullnat", "", doctor.Error, "is in the network of eth1, and not on it")
	}
	pool("10.9.0.2/32", near(0)+"/124")
	if f := b.wants("fullnat", "", doctor.Error, "is in the network of eth1, and not on it"); !strings.HasPrefix(f.Fix, "name single addresses") {
		t.Errorf("fix %q", f.Fix)
	}

	pool("10.9.0.2/32", "192.0.2.0/28", "2001:db8:9::2/128")
	shell(t, b.Director, "ip route add local 192.0.2.0/28 dev lo")
	b.wants("fullnat", "192.0.2.0/28", doctor.Error, "192.0.2.0/28 of full NAT has the virtual address 192.0.2.10")

	own, err := b.Director.Command(t.Context(), "sh", "-c", "ip -o route get "+b.Servers[0].Addr4.String()+" | sed 's/.* src //; s/ .*//'").Output()
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(string(own)) + "/32"
	pool(address, "2001:db8:9::2/128")
	b.wants("fullnat", address, doctor.Warning, "which this host's own packets to servers come from")
}
