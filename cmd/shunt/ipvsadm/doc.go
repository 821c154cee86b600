// Package ipvsadm is ipvsadm 1.31 as a way to speak to shuntd: what shunt does
// when it is called as ipvsadm, ipvsadm-save or ipvsadm-restore. Scripts and
// people get the commands, the lists, the words and the exit statuses that they
// know, on either data plane.
//
// The language is director/config/ipvsadm's: Run parses with it first. Commands
// that change something become edits of the configuration (table.go), which is
// sent back on the condition that nobody else changed it meanwhile (change.go);
// what the kernel would refuse is refused there, in its order, by its error
// number. Several commands, those of a restore, are one change: all or nothing.
// Lists are made of what the kernel holds (view.go, list.go), foreign services
// included.
//
// Where Shunt cannot or will not do what ipvsadm does, the first line on the
// standard error is one of ipvsadm's and those that begin with "shunt:" say why.
package ipvsadm
