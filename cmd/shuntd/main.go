// Command shuntd is the director's daemon: it attaches the XDP data plane,
// carries the configuration to it, keeps its neighbours and tables in order, and
// answers shunt on a Unix socket.
//
// Traffic does not depend on it: programs and tables are pinned, so that packets
// flow on when it stops, is killed or is replaced. Only `shunt detach` and
// `shuntd detach` take the data plane away.
//
// app.go has the flags, settings.go what flags and file make together, daemon.go
// the construction and the life of the parts; xdp.go names the data plane.
package main

import "os"

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}
