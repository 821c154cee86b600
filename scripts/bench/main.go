// Command bench measures the fast path and the control plane and writes
// bench.json.
//
//	go run ./scripts/bench           all: hits at one connection, 64 Ki and 1 Mi; 1000 services
//	go run ./scripts/bench -quick    in three minutes: one connection, sweep of 1 Mi; 100 services
//	go run ./scripts/bench -control  the control plane alone
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
	"time"

	"github.com/shunt-lb/shunt/bpf/bpftest/bench"
	"github.com/shunt-lb/shunt/scripts/bench/control"
)

func main() {
	quick := flag.Bool("quick", false, "one connection, and fewer rounds")
	only := flag.Bool("control", false, "the control plane alone")
	inner := flag.Bool("guest", false, "run by this program in the guest: count instructions by the clock")
	out := flag.String("o", "bench.json", "write the results to `FILE`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *quick, *only, *inner, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick, only, inner bool, out string) error {
	if inner {
		return measureInGuest(quick)
	}
	if os.Geteuid() != 0 {
		return errors.New("loading programs needs root")
	}
	r := describe()
	if !only {
		var err error
		if r, err = measure(ctx, quick); err != nil {
			return err
		}
	}
	var err error
	if r.Control, err = control.Measure(ctx, controlOptions(quick)); err != nil {
		return err
	}
	r.print(os.Stdout)
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

// logLine tells what is being measured.
func logLine(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func controlOptions(quick bool) control.Options {
	if quick {
		return control.Options{Services: 100, Rounds: 5, Idle: 5 * time.Second, Log: logLine}
	}
	return control.Options{Services: 1000, Rounds: 15, Idle: 20 * time.Second, Log: logLine}
}

// options of a measurement of the fast path, on the host or in the guest.
func options(quick, inner bool) bench.Options {
	o := bench.Options{Log: logLine}
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

// floodOptions are of the hits in a flood, which take half a minute. There are many rounds
// because the ratios are asked for to a tenth.
func floodOptions() bench.Options {
	return bench.Options{Sizes: []uint32{1, 1 << 16}, Rounds: 9, Log: logLine}
}
