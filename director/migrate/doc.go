// Package migrate moves live services from one data plane of the host to
// another: from the kernel's IPVS to XDP.
//
// It owns the order of the steps by which no connection is cut. A service is
// made in the new data plane, where packets of connections it does not know
// are left to the host's stack, that is to the old one; the old one's connections
// are loaded until none is new; for one last reading those packets are dropped, so
// that it misses nothing; then the new one stands alone, and the old one loses the
// service. What fails before that takes the service back to where it was.
//
// It does no I/O of its own: Source, the Director and its data plane's Loader
// do. It does not know how either data plane keeps what it has.
//
// Start reading at Mover.
package migrate
