// Package scheduler has the kernel's IPVS schedulers as pure Go models, and the
// table builders that the XDP data plane uses.
//
// A Model chooses exactly the server that Linux 6.1 would choose for the same
// sequence of clients, changes and loads: it is the oracle for the fast path and
// for comparisons with a live kernel. SourceHashTable, DestinationHashTable,
// MaglevTable and WeightStep compute what the fast path looks up; the models use
// the same functions. A Simulation is a service around a model: connections,
// templates, thresholds and servers that come and go.
//
// Servers are in the kernel's list order everywhere: last added first. The
// package does no I/O, and nothing in it is safe for concurrent use except the
// pure functions. Time and chance come from Options, so that the same events
// give the same choices.
//
// Start reading at Model. SCHEDULERS.md tells an operator which algorithm to
// take, ADDING.md how to add one.
package scheduler
