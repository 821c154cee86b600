// Package nexthop finds out where packets to an address leave the host and with
// which link-layer addresses, and keeps knowing it: the XDP data plane writes
// the answer into an array and never waits for ARP or neighbour discovery.
//
// A Resolver follows the kernel's routes, rules, addresses, links and
// neighbours by netlink. For each watched address it asks the kernel for the
// route (so that rules, multipath and metrics count as they do for the kernel's
// own packets) and has the kernel keep the neighbour resolved that the route
// leads to: the gateway or the address itself. When the answer changes, Changed
// is called; an address that cannot be reached has the reason in words.
//
// The package knows nothing of services, servers or maps. It changes nothing in
// the host but the flags "managed" and "externally learned" of the neighbours it
// needs, and leaves permanent neighbours alone.
//
// Start reading at Resolver, then run.go for the way of an event, route.go for
// the question to the kernel and keep.go for what is asked of neighbours.
package nexthop
