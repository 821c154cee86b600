// Package realserver says what a real server of a service is: its address, its
// forwarding method, its weight and its life cycle.
//
// It owns the value and its validity rules and does no I/O. It does not know
// services, data planes or schedulers: a server here is a member of some
// service, identified within it by address and port, as in IPVS.
//
// Start reading at Server.
package realserver
