// Package decap takes packets for virtual addresses out of the tunnels that
// directors send them by, on real servers that have no tunnel devices: an XDP
// program of its own, small enough for the agent, and the way to it.
//
// It knows ipip (protocols 4 and 41), gre and gue over IPv4 and IPv6, in any
// combination of families, and opens what is for this host, from a director, and
// for a virtual address inside; all else is left to the stack as it came. It
// reads nothing of the host: which addresses are its own, the caller says.
//
// Start reading at src/decap.bpf.c for a packet's way, at Load and Attach for a
// program that ends with its process, at Start for one that stays.
package decap
