// Command shunt is the operator's tool: it speaks to shuntd over its socket, or
// to one on another host over TLS.
//
// It holds no state and decides nothing: commands become requests of
// director/api, answers become tables, JSON or YAML. It knows no BPF and needs
// no rights but those to open the socket. app.go has the commands, args.go and
// command.go the reading of the command line, output.go, table.go and color.go
// the formats, watch.go what repeats reads. apply.go and plan.go carry out plans.
// completion.go has the scripts for shells, which ask complete.go; man.go makes
// the manual pages of the same tree of commands. Called as ipvsadm,
// ipvsadm-save or ipvsadm-restore it is that: package ipvsadm, personality.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	code := run(ctx, os.Args, streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}
