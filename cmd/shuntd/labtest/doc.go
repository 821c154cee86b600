// Package labtest holds the tests of the whole: the real shuntd and shunt, in
// the namespace lab, with real clients and servers. It has no code of its own.
//
// A test starts a lab of director/directortest, a daemon in its director's
// namespace (daemon_test.go), configures it by the CLI as an operator does, and
// sends traffic (client_test.go). The tests of odd packets share a lab of routers
// where every method has services, near and far (routed_test.go). What it asserts it reads from the director's
// own counters too: a lab may answer all requests while they bypass the director.
//
// Waiting is for a line in the daemon's log, for a counter, or for a duration
// that is the subject of the test. A limit ends a wait that leads nowhere; it is
// never part of what is asserted. Nothing is left behind: the binaries, the pins
// and the namespaces end with the test.
//
// Nothing is shared but the binaries either, so that tests run beside others: they
// mostly wait. Alone are those that make writes bin/ for, and those with figures.
package labtest
