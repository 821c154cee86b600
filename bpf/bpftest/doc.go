// Package bpftest loads the fast path over small maps of its own and runs
// packets through it: frame in, verdict and frame out.
//
// A Fixture is one loaded Plane in a network namespace of its own with two
// interfaces. It writes services, servers, schedules and next hops as the
// control plane does, and reads the connection table and the counters back.
// Packet builds frames; Verify recomputes every checksum of a frame from
// scratch, sharing no arithmetic with the programs. What a test expects is in
// the test: the package knows how to say things to the programs, not what they
// should do.
//
// For tests only. Start reading at New, then Fixture.Run and Packet.
package bpftest
