// Package xdp is the XDP data plane: director.Dataplane over the maps of package
// bpf.
//
// It owns what the fast path cannot do for itself: which index a service or
// server has and when it may be used again, the schedules' words, the address
// filter, services' own timeouts, what lblc and lblcr remember, next hops followed
// by netlink (package nexthop), the sweep. Virtual addresses are package vip's. It reads
// what the kernel holds when it opens, writes before it switches, and never
// assumes: a restart moves no connection.
//
// It knows nothing of configuration or the API. Start reading at Open, then
// apply.go for a change's way into the maps, sweep.go for what happens by itself,
// decide.go for what an operator may ask, migration.go and load.go for how services
// come here from the kernel's IPVS without a connection being cut.
package xdp
