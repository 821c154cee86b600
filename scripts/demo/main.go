// Command demo shows Shunt at work, and fails if it does not: real HTTP clients,
// real servers, shuntd and shunt as an operator uses them, in network namespaces
// that are gone afterwards. make demo runs it; it needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/shunt-lb/shunt/director/directortest"
)

func main() {
	bin := flag.String("bin", "bin", "the `FOLDER` with shuntd and shunt")
	shape := flag.String("shape", string(directortest.OneArmed), "one-armed or two-armed `DIRECTOR`")
	requests := flag.Int("requests", 300, "`REQUESTS` to each service")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin, directortest.Shape(*shape), *requests)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// run builds the lab, shows the director in it and takes it all away.
func run(ctx context.Context, bin string, shape directortest.Shape, requests int) (err error) {
	if requests < len(services) {
		return fmt.Errorf("%d requests are too few to see anything", requests)
	}
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	topology := directortest.Topology{Shape: shape, Servers: 3, VIPs: vips()}
	if shape == directortest.TwoArmed {
		topology.Forwarding = directortest.On // the replies of DR cross the director's kernel
	}
	lab, err := directortest.NewLab(topology)
	if err != nil {
		return fmt.Errorf("%w (the demo needs root)", err)
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	if shape == directortest.TwoArmed {
		// Those replies come from an address the director has on lo too.
		if err := lab.Director.Sysctl("net/ipv4/conf/all/accept_local", "1"); err != nil {
			return err
		}
	}
	if _, err := lab.ServeHTTP(webPort); err != nil {
		return err
	}
	title("The lab: a client, a %s director and %d real servers, in network namespaces", shape, len(lab.Servers))
	fmt.Printf("client    %s\n", lab.ClientAddrs4[0])
	fmt.Printf("director  %v\n", lab.DirectorLinks)
	for _, s := range lab.Servers {
		fmt.Printf("%s   %s\n", s.Name, s.Addr4)
	}

	d, err := startDaemon(ctx, lab, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.remove()) }()
	if err := show(ctx, lab, d, requests); err != nil {
		return fmt.Errorf("%w\nshuntd said:\n%s", err, d.log.String())
	}
	title("Taking it away")
	if err := d.cli(ctx, "detach"); err != nil {
		return err
	}
	if err := d.process.Wait(); err != nil {
		return fmt.Errorf("shuntd after detach: %w\n%s", err, d.log.String())
	}
	fmt.Println("\nEvery request was answered, and the director's own counters prove that it carried them.")
	return nil
}

func title(format string, args ...any) { fmt.Printf("\n=== "+format+"\n", args...) }
