package director

import (
	"fmt"
	"net/netip"
)

// MarkKey returns the key of the service of a firewall mark, for packets of the
// address's family.
func MarkKey(mark uint32, like netip.Addr) ServiceKey {
	unspecified := netip.IPv4Unspecified()
	if like.Is6() {
		unspecified = netip.IPv6Unspecified()
	}
	return ServiceKey{Mark: mark, Address: netip.AddrPortFrom(unspecified, 0)}
}

// MarkHint says how packets get the firewall mark of a service, in commands for a
// shell with an example's address and ports; empty for services without one. What
// routes packets to the host for an address that it does not have is part of it:
// IPVS sees only what is for the host (kernel: net/netfilter/ipvs/ip_vs_core.c,
// NF_INET_LOCAL_IN).
func MarkHint(key ServiceKey) string {
	if !key.IsMark() {
		return ""
	}
	family, address, ip, all := "ip", "192.0.2.1", "ip", "0.0.0.0/0"
	if key.Address.Addr().Is6() {
		family, address, ip, all = "ip6", "2001:db8::1", "ip -6", "::/0"
	}
	return fmt.Sprintf(`# the packets of %[1]s are those that the firewall gives mark %[2]d, such as:
nft add table inet shunt-marks
nft add chain inet shunt-marks prerouting '{ type filter hook prerouting priority mangle; }'
nft add rule inet shunt-marks prerouting %[3]s daddr %[4]s tcp dport '{ 80, 443 }' meta mark set %[2]d
# where the address is not one of this host:
%[5]s rule add fwmark %[2]d lookup 100
%[5]s route add local %[6]s dev lo table 100
`, key, key.Mark, family, address, ip, all)
}
