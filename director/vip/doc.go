// Package vip puts the virtual addresses of services on the host, for every data
// plane alike.
//
// An address is added to the loopback interface, where it is answered for on every
// interface and routed nowhere; an IPv4 one bears a label. A prefix of several
// addresses becomes a local route there, which makes all of them the host's. Of
// IPv6, no neighbour is told about either: its routers need a route to this host.
//
// What is on the host by somebody else's doing is never changed and never taken
// over. The package does not know which services want which address: its caller
// removes one when the last of them is gone. Start reading at Open and Add.
package vip
