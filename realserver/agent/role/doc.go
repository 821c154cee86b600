// Package role makes a real server what its director's method wants it to be, says what
// is wrong with it, and puts back what was there.
//
// What is wanted is a Role. look.go reads the host into a snapshot, and judges (vip.go,
// arp.go, tunnel.go, route.go, listen.go) are functions of both: each Finding has the
// Changes that mend it, if the package may make them, so that Check and Prepare cannot
// differ. A Change is of an Object with a textual value (object.go), and is written to
// the state file (state.go) before it is made: Undo takes those back whose value is
// still ours, whenever Prepare ended.
//
// It reads and changes the calling thread's network namespace. It knows no firewall.
//
// Start reading at Prepare.
package role
