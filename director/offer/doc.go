// Package offer decides what a service offers of its servers at each moment: as
// configured, then by an operator's override, then by health, then by load; each step
// says why.
//
// It owns quorum and sorry servers, panic, damping, slow start, suspension by passive
// evidence, leases' servers, weights by load, and the notifications of changes. It asks
// no server itself (package health does) and writes no kernel (package director does).
//
// Start reading at Keeper.
package offer
