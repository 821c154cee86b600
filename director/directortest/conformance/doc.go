// Package conformance is the set of tests that every data plane passes: what the
// director relies on, whatever moves the packets.
//
// It owns the tests and the lab they run in: one-armed, with two servers, each of
// whose addresses serves HTTP and UDP. It refuses to know which data plane it has;
// what one of them lacks is what its Features deny, and that is tested too. What
// only one data plane can show is its own package's to test.
//
// A test of the data plane's package calls Run, where its kernel is: the XDP plane
// on the host, the kernel's IPVS in the guest. Start reading at Plane.
package conformance
