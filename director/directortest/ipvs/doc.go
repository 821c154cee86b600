// Package ipvs drives the IPVS of the kernel it runs on, for tests that compare
// Shunt with it: services and servers by our own driver, packets written to a wire of
// their own, where each of them went, and what the kernel says of connections.
//
// A [Kernel] is one network namespace, so that cases share nothing, not even
// the list of deleted servers that the kernel keeps. Its only interface is a
// tap. What is written to that runs through the whole of the kernel's path
// before the write returns, so nothing is waited for and choices have an order.
//
// It works in the guest only, user-mode-linux: hosts as a rule have no IPVS, and
// a host that has it is not to be touched. [Guest] says so. Begin with kernel.go.
package ipvs
