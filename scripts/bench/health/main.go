// Command health measures what checks cost the director: a Monitor asks many HTTP
// servers, each of an address of its own, and the program tells its share of a core.
//
//	go run ./scripts/bench/health                      5000 checks at 5 s, for 30 s
//	go run ./scripts/bench/health -checks 100 -for 5s  less
//
// The servers are a process of their own, so that only the asking is counted; all are on
// this host's loopback, 127.0.0.0/8, which counts their packets as the sender's work.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

func main() {
	checks := flag.Int("checks", 5000, "ask so `many` servers")
	interval := flag.Duration("interval", realserver.DefaultCheckInterval, "from one probe of a server to the next")
	long := flag.Duration("for", 30*time.Second, "measure so long, after one interval")
	serve := flag.Bool("serve", false, "be the servers: used by this program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	do := func() error { return measure(ctx, *checks, *interval, *long) }
	if *serve {
		do = func() error { return answer(ctx) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "health:", err)
		os.Exit(1)
	}
}

// answer is the servers: one listener at all addresses, until the input ends. It prints
// its port.
func answer(ctx context.Context) error {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "well\n")
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	io.Copy(io.Discard, os.Stdin)
	err = server.Shutdown(ctx)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func measure(ctx context.Context, checks int, interval, long time.Duration) (err error) {
	port, end, err := startServers(ctx)
	if err != nil {
		return fmt.Errorf("start the servers: %w", err)
	}
	defer func() { err = errors.Join(err, end()) }()
	check := realserver.Check{Kind: realserver.CheckHTTP, Interval: interval, HTTP: &realserver.HTTPCheck{Path: "/", Match: "^well"}}
	key := check.Key()
	var assignments []health.Assignment
	for i := range checks {
		server := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)}), port)
		assignments = append(assignments, health.Assignment{Key: health.Key{Check: key, Target: health.Target{Server: server}}, Check: check})
	}
	env := health.NewEnv("")
	defer env.Close()
	monitor := health.NewMonitor(health.Options{Env: env})
	monitor.Set(assignments)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- monitor.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	if err := wait(ctx, interval+time.Second); err != nil {
		return err
	}
	before, spent, began := monitor.Stats(), processorTime(), time.Now()
	if err := wait(ctx, long); err != nil {
		return err
	}
	after, took := monitor.Stats(), time.Since(began)
	share := float64(processorTime()-spent) / float64(took)
	probes := after.Probes - before.Probes
	failed := after.Failures - before.Failures
	fmt.Printf("%d HTTP checks at %v: %d probes in %v (%.0f a second), %d failed: %.1f %% of one core, %.0f µs a probe, %d MiB resident at most\n",
		checks, interval, probes, took.Round(time.Millisecond), float64(probes)/took.Seconds(), failed, 100*share,
		share*float64(took.Microseconds())/float64(probes), maxResident()>>20)
	if failed > 0 {
		fmt.Println("a failure:", failure(monitor, assignments))
	}
	if failed > probes/100 {
		return errors.New("more than one probe in a hundred failed: the figure is of something else")
	}
	return nil
}

// failure returns one of the last results that is a failure.
func failure(monitor *health.Monitor, assignments []health.Assignment) string {
	for _, a := range assignments {
		status, _ := monitor.Status(a.Key)
		for _, result := range status.Last {
			if result.Err != nil {
				return fmt.Sprintf("%s after %v: %v", a.Target.Server, result.Took, result.Err)
			}
		}
	}
	return "none is remembered"
}

// startServers starts the servers' process. end ends it and returns its error.
func startServers(ctx context.Context) (port uint16, end func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-serve")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	end = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, nil, errors.Join(err, end())
	}
	number, err := strconv.ParseUint(strings.TrimSpace(line), 10, 16)
	if err != nil {
		return 0, nil, errors.Join(err, end())
	}
	return uint16(number), end, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// processorTime returns what this process has used of processors, its servers not
// counted: they have not ended.
func processorTime() time.Duration {
	u := usage()
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// maxResident returns the most memory this process had resident, bytes.
func maxResident() int64 { return usage().Maxrss << 10 } // getrusage(2): KiB

func usage() syscall.Rusage {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are constants
	}
	return u
}
