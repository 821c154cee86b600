// Command bench measures the fast path and writes bench.json.
//
//	go run ./scripts/bench          all: hits at one connection, 64 Ki and 1 Mi
//	go run ./scripts/bench -quick   in a minute: one connection, sweep of 1 Mi
//
// Nanoseconds come from this machine. Instructions come from its hardware
// counter, or, where it has none, from a run of the same program in the guest
// kernel 6.1 whose clock counts them (scripts/guest/run.sh -i). Needs root.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
)

func main() {
	quick := flag.Bool("quick", false, "one connection, and fewer rounds")
	inner := flag.Bool("guest", false, "run by this program in the guest: count instructions by the clock")
	out := flag.String("o", "bench.json", "write the results to `FILE`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *quick, *inner, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick, inner bool, out string) error {
	if inner {
		return measureInGuest(quick)
	}
	if os.Geteuid() != 0 {
		return errors.New("loading programs needs root")
	}
	r, err := measure(ctx, quick)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

// options of a measurement, on the host or in the guest.
func options(quick, inner bool) bench.Options {
	o := bench.Options{Log: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	switch {
	case inner:
		// The clock is exact: more rounds find nothing else.
		o.Rounds, o.Packets, o.ColdPackets = 3, 2000, 1<<15
		if !quick {
			o.Sizes = []uint32{1, 1 << 16}
		}
	case quick:
		o.Rounds = 5
	default:
		o.Sizes = []uint32{1, 1 << 16, 1 << 20}
	}
	return o
}
