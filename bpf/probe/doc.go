// Package probe brings a server's answers to the director's own connections to virtual
// addresses to the network namespace that those connections begin in.
//
// Such an answer comes from the virtual address to the director's own. If the virtual
// address is the host's too, its stack drops the packet as forged; if not, it resets a
// connection that it knows nothing of. The program is on the interfaces' ingress, behind
// the fast path, and takes out what is awaited and nothing else.
//
// It shares nothing with the fast path. Start reading at Load.
package probe
