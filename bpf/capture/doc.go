// Package capture shows packets as they come to the fast path and as they leave it:
// tcpdump sees nothing that XDP sends or drops. It owns the program that runs in the
// place of shunt_root while somebody watches, how packets are chosen in the kernel, and
// the form in which they are written (pcapng). It knows no services by name, and decides
// nothing about packets. While no Session is open it costs nothing: nothing of it runs.
//
// Start with Open and Session.Read; src/capture.bpf.c has the program.
package capture
