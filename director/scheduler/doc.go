// Package scheduler has the kernel's IPVS schedulers as pure Go models, and the
// table builders that the XDP data plane uses.
//
// A Model chooses exactly the server that the kernel would choose for the same
// sequence of clients and changes: it is the oracle for the fast path and for
// comparisons with a live kernel. SourceHashTable, MaglevTable and WeightStep
// compute what the fast path looks up; the models use the same functions.
//
// Servers are in the kernel's list order everywhere: last added first. The
// package knows neither connections nor overload thresholds: a server is
// eligible if its weight is not zero. It does no I/O, and nothing in it is safe
// for concurrent use except the pure functions.
//
// Start reading at Model. A new algorithm is a file and a line in models.
package scheduler
