// Package bpf is the fast path and the way to it: the C sources, the ABI header
// both sides share, the committed objects, loading, attaching, pinning, and
// typed access to the maps.
//
// It owns the layout of everything the kernel holds for Shunt and knows no
// policy: which server is wanted, when to sweep and what to do about drift is
// director/xdp's. Programs run in the kernel; what user space must do in one
// step with them is a control program here too (src/control.h).
//
// Start reading at src/shunt.bpf.c for a packet's way, at src/abi.h for the
// maps, at Open for how they come to be.
package bpf
