// Package director is the domain of a layer-4 director: services, what is
// desired, what is found, the plan that leads from one to the other, and the
// Dataplane interface that carries it out.
//
// Words, used the same way in code, flags, metrics and documents:
//
//   - director: the host that runs Shunt
//   - service: a virtual service: protocol, virtual address and port, or a mark
//   - mark: a number that the host's firewall gives a packet (fwmark)
//   - server: a real server of one service
//   - data plane: what moves packets: xdp or ipvs
//   - method: forwarding method: nat, dr, tunnel, fullnat or local
//   - local address: one of the director's that stands in for clients', by fullnat
//   - connection: one client-server pairing in the connection table
//   - template: a persistence pairing of a client network and a server
//   - source network: the clients of one prefix, of a service's choice
//   - limit: how much a service lets begin, or each source network of it
//   - guard: what has clients show that they are real before a service remembers
//     anything of them
//   - pressure: the part in use of what a connection table is sized for
//   - sync daemon: one of the kernel's that replicate connections
//   - drain: to take a server out of service while its connections finish
//   - desired and found: what was asked for, and what the kernel holds
//   - revision: one numbered, immutable desired state
//   - drift: a difference between desired and found that Shunt did not make
//   - foreign: in the kernel, and not Shunt's
//   - event: an entry of the stream of what happened (package event)
//   - packet event: a named count of packets, such as the drops for one reason
//
// The package does no I/O. It does not know maps, netlink or HTTP; adapters
// (director/xdp, director/config, director/store, director/api) depend on it and never the
// other way round. Start reading at Dataplane, then Director.
package director
