package conntrack

import (
	"net/netip"
	"time"
)

// Connection is one client-server pairing as a data plane holds it: an
// observation, valid at the moment it was read.
type Connection struct {
	Protocol Protocol
	Client   netip.AddrPort
	Virtual  netip.AddrPort // where the client sends to
	Server   netip.AddrPort // the real server it is paired with
	Method   string         // forwarding method it was created with: nat, dr, tunnel, local, fullnat
	// Local stands in for the client where the server sees the packets, by method
	// fullnat; not valid by others, and of templates.
	Local netip.AddrPort
	State State
	// Proven is whether the connection has shown that its client is real. TCP by nat:
	// the client has acknowledged the server's own sequence number. TCP elsewhere,
	// where replies are not seen: its handshake was complete, and the client had
	// answered the guard before or has come three times since, each a second or more
	// after the packet before. UDP: a reply by nat, or three such packets. Only proven
	// connections are safe from eviction, those by a reply from when the client has sent
	// a packet a second or more after its first on; see Proof.
	Proven bool
	// Template: a persistence template, whose Client is the address of a client
	// network with port 0. State is None, or Assured.
	Template bool
	// Prefix is the length of a template's client network.
	Prefix uint8
	// Mark is the firewall mark of the service that a template is of; its Virtual
	// is then unspecified, with port 0. 0 for other services' templates, and for
	// connections: those of such a service have the address they were sent to.
	Mark uint32
	// Engine is the persistence engine that made the template, and EngineData what
	// it found in the packet, such as SIP's Call-ID; both empty if none did.
	Engine, EngineData string
	// Controlled is how many connections a template has; at most 65535 are
	// counted.
	Controlled uint32
	// UnderTemplate: a connection that a template has.
	UnderTemplate bool
	// Expires is the time left until the entry dies if no packet comes. Zero or
	// negative: expired and waiting for the sweep.
	Expires time.Duration
	// Age is how long ago it began, exact to two seconds up to a day, and then at
	// least that; Idle how long ago its last packet came. Both are zero where
	// the data plane does not know them.
	Age, Idle time.Duration
	// Traffic is what the connection has carried; nil where connections are not counted
	// one by one.
	Traffic *Traffic
}

// Traffic are one connection's packets, and the bytes of their IP packets.
type Traffic struct {
	InPackets, InBytes   uint64 // client to server
	OutPackets, OutBytes uint64 // server to client; only where replies pass the director (nat, fullnat)
}
