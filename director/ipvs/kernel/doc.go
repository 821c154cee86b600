// Package kernel speaks to the IPVS of the kernel it runs on: services, servers,
// counters, timeouts, sync daemons by generic netlink, and connections from
// /proc.
//
// It owns the values that the kernel knows, the wire format and what the
// kernel's refusals mean. It refuses to know what a director wants of them: it
// keeps no state, plans nothing, and imports no package of ours.
//
// There are two drivers behind one interface, and why is written in
// director/decisions/0004-ipvs-drivers.md. [OpenGenetlink] opens the one that is
// complete and runs everywhere; [Open] the one that is right for this machine.
//
// A driver belongs to the network namespace of the thread that opened it, for
// as long as it lives and whatever thread calls it.
//
// Begin with driver.go, then service.go and server.go for the values.
package kernel
