// Package agent is what runs on a real server for its director.
//
// It registers the host's servers in pools at the directors, with their load, which is
// measured or told by a command, renews their leases, and drains them before they leave
// (Registrar).
//
// And it has decapsulation: packets for virtual addresses are taken out of the
// tunnels that directors send them by, on hosts without tunnel devices. The package
// reads the host (its addresses, what it would do with such packets) and leaves the
// program to bpf/decap. It changes nothing of the host: what is wrong is said, and
// mended by realserver/agent/role.
//
// What a server needs beside it:
//
//   - the virtual address, on lo or a dummy interface;
//   - arp_ignore 1 and arp_announce 2, where the virtual address is of a network that
//     the server has an interface in: it must not answer ARP for it;
//   - rp_filter 0 or 2 on the interface where the route back to clients is not by it
//     (the greater of conf.all and conf.IFACE is what counts);
//   - a path from the director whose MTU is the clients' and the outer headers'
//     (20 octets ipip in IPv4, 24 to 28 gre, 32 gue; 20 more in IPv6), or clients that
//     heed what the director tells them of it.
//
// Start reading at Registrar and at Decap.
package agent
