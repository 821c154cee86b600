// Command shunt-agent runs on real servers. It makes the host what its directors'
// method wants, says what is wrong with it, and takes that back; it takes packets for
// virtual addresses out of the tunnels that directors send them by, where the host has no
// tunnel devices; and it registers the host's servers at their directors, tells their
// load, and drains them before it ends.
//
// Decapsulation is no daemon: what it starts stays in the kernel until it is stopped or
// the host is. app.go has the commands and what errors become, decap.go the flags of
// decapsulation, prepare.go what is of the host, register.go the registration, output.go the formats, completion.go the scripts for shells.
package main

import "os"

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}
