// Package differential compares Shunt's choices with those of the kernel's IPVS,
// packet by packet. A [Case] is one service's settings and a script of events:
// servers added, edited and removed, packets of clients and servers, time that
// passes. The same script runs on the kernel ([Kernel], in the guest), on the
// models ([Model]) and on the XDP program (in director/xdp, which has the data
// plane and its clock in hand); each run returns the case with an answer to every
// event, and what differs is the finding.
//
// Cases are drawn by rapid ([Drawn]): a case is its seed. One that differs is
// made smaller ([Shrink]) and kept in testdata/differential, next to those that
// were recorded to run without a guest. The answers in files are the kernel's.
package differential
