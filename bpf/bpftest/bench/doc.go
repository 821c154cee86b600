// Package bench measures the fast path packet by packet, by test runs of the
// loaded program: instructions and nanoseconds of each kind of packet, at one
// connection and at a million.
//
// Every figure is net. The kernel does not restore the packet between the
// repetitions of a test run, so a wrapper program writes the frame anew, with the
// addresses of the next connection, and tail-calls the program under test; the
// same wrapper before a program that only returns XDP_TX is measured right
// before, and subtracted. The cases of a group take turns in rounds, and the
// median over the rounds counts: a noise that lasts hits all of them.
//
// Instructions come from the hardware counter (kernel only) where the machine
// has one. Where the clock counts instructions, as in scripts/guest/run.sh -i,
// the nanoseconds are instructions. After each run the counters of the plane
// prove that every packet took the way it was meant to.
//
// Floods is about two CPUs: what a hit takes on one while another makes and gives up
// connections in the same table. Its time is the thread's.
//
// For benchmarks only. Start reading at Rows.
package bench
