// Package directortest holds what tests of several packages share: a fake data
// plane, the conformance suite, golden scheduler sequences, and the lab.
//
// The lab is a set of network namespaces joined by veth pairs: a client, the
// director, real servers. Start reading at NewLab (or Start, in a test), then
// Namespace. Everything in it goes away with Lab.Close, and with the process
// should that die first. Links of the host are never touched.
//
// The director in the lab is only a namespace with interfaces and addresses; a
// test runs a daemon in it with Namespace.Command, or loads programs with
// Namespace.Do. The servers answer HTTP and UDP and say who they are.
//
// The package is for tests and for make demo. It knows no data plane.
package directortest
