// Package ipvs is the data plane of the kernel's own IPVS, behind the interface
// that the XDP plane has.
//
// It owns the translation between the director's words and the kernel's, the
// order and sparing use of writes, and the little that the kernel has no place
// for: a service's name, who put its address on the host, and the weight that a
// draining server will have again. It refuses to know how the kernel is spoken to,
// which is package kernel's, and what is desired.
//
// There is one IPVS in a network namespace, and others may use it: what they made
// is found and shown as everything else, and it is the director that leaves it
// alone. The kernel forwards without us; Close and the daemon's death change
// nothing.
//
// Begin with dataplane.go, then found.go and apply.go.
package ipvs
