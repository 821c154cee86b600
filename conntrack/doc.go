// Package conntrack says what a connection is: its tuple, the IPVS protocol
// states, their timeouts, and when a connection has expired.
//
// It owns the values every other package describes connections with and does no
// I/O. It knows neither services nor data planes: a connection here is a
// client, a virtual address, a real server's address and a state. The
// transition tables are the kernel's (kernel: net/netfilter/ipvs/
// ip_vs_proto_tcp.c); the fast path carries the same tables in C and a test
// compares the two. SCTP's states are here to be shown and counted: only the
// kernel's IPVS moves them.
//
// Start reading at Connection.
package conntrack
