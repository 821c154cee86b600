package ipvsadm

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs"
)

// ipvsadm-restore leaves no gap: while it runs again and again, of what was saved and
// of a file that changes the services' neighbors, schedulers and weights, open
// connections go on, each new one is taken, and the kernel's counters never fall.
func TestGuestRestoreHasNoGap(t *testing.T) {
	const held, restores, between = 6, 8, 5
	l := startLab(t)
	var lines []string
	for _, vip := range l.lab.Topology.VIPs {
		service := "-t " + netip.AddrPortFrom(vip, 80).String()
		lines = append(lines, "-A "+service+" -s rr")
		for _, s := range l.lab.Servers {
			lines = append(lines, fmt.Sprintf("-a %s -r %s -m -w 2", service, netip.AddrPortFrom(s.Addr(vip), 8080)))
		}
	}
	l.script(append(lines, "-A -f 7 -s mh", "-a -f 7 -r 10.0.0.1 -g", "-A -u 192.0.2.10:53 -s rr -p 60")...)
	saved := l.run(saveProgram, "", "-n").Out
	other := strings.NewReplacer("-s rr", "-s wlc", "-w 2", "-w 7", "-f 7", "-f 8", "-p 60", "-p 90 -o").Replace(saved)
	if real := reals(t, l.lab.Director, "", "-S", "-n").Out; saved != real || strings.Count(saved, "\n") != len(lines)+3 || saved == other {
		t.Fatalf("saved\n%s, the real ipvsadm has\n%s", saved, real)
	}

	// Each connection of the client asks and is answered until the last restore is over.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	clients, ctx := errgroup.WithContext(ctx) // done where one breaks
	over := make(chan struct{})
	var asked [held]atomic.Uint64
	var made atomic.Uint64
	for i := range asked {
		clients.Go(func() error { return l.converse(ctx, l.vip(i), over, &asked[i]) })
	}
	for i := range 2 { // one for each address
		clients.Go(func() error {
			for !closed(over) {
				var once atomic.Uint64
				if err := l.converse(ctx, l.vip(i), nil, &once); err != nil {
					return fmt.Errorf("a new connection: %w", err)
				}
				made.Add(1)
			}
			return nil
		})
	}
	counted := map[string][]uint64{}
	for n := range restores {
		// Between two restores every connection is used, and new ones are made.
		goal := made.Load() + between
		var goals [held]uint64
		for i := range goals {
			goals[i] = asked[i].Load() + 2
		}
		reached := func() bool {
			for i := range goals {
				if asked[i].Load() < goals[i] {
					return false
				}
			}
			return made.Load() >= goal
		}
		for !reached() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		text := saved
		if n%2 == 0 {
			text = other
		}
		if got := l.run(restoreProgram, text); got != (result{}) {
			t.Errorf("ipvsadm-restore: %+v", got)
		}
		if diff := cmp.Diff(lineSet(text), lineSet(reals(t, l.lab.Director, "", "-S", "-n").Out)); diff != "" {
			t.Errorf("after a restore ipvsadm -S has (-want +got):\n%s", diff)
		}
		l.goOn(counted)
	}
	close(over)
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	total := made.Load()
	t.Logf("%d connections were made", total)
	// Counters of packets lag behind, those of the last connections too.
	deadline := time.Now().Add(10 * time.Second)
	for l.goOn(counted); sum(counted) != total+held && !t.Failed(); l.goOn(counted) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are counted, want %d and %d that stayed: %v", sum(counted), total, held, counted)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// laboratory is a lab with Shunt's ipvsadm over a daemon of the IPVS data plane on
// its director.
type laboratory struct {
	*daemon
	lab *directortest.Lab
}

// startLab makes one with servers that echo.
func startLab(t *testing.T) *laboratory {
	t.Helper()
	guest.Guest(t)
	lab := directortest.Start(t, directortest.Topology{Forwarding: directortest.On})
	for _, vip := range lab.Topology.VIPs {
		if err := lab.Director.AddAddress("lo", netip.PrefixFrom(vip, vip.BitLen())); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range lab.Servers {
		listener, err := s.Listen(t.Context(), netip.MustParseAddrPort("[::]:8080"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
			}
		}()
	}
	var dp *ipvs.Dataplane
	if err := lab.Director.Do(func() (err error) {
		dp, err = ipvs.Open(t.Context(), ipvs.Options{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dp.Close(); err != nil {
			t.Error(err)
		}
	})
	return &laboratory{serve(t, dp), lab}
}

// vip is the address of the service that the client i uses.
func (l *laboratory) vip(i int) netip.AddrPort {
	vips := l.lab.Topology.VIPs
	return netip.AddrPortFrom(vips[i%len(vips)], 80)
}

// converse makes a connection and has what it says echoed, once, or until all is
// over, and counts the answers.
func (l *laboratory) converse(ctx context.Context, to netip.AddrPort, over <-chan struct{}, answers *atomic.Uint64) error {
	c, err := l.lab.Client.Dial(ctx, "tcp", netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	for {
		said := fmt.Appendf(nil, "%20d", answers.Load())
		if _, err := c.Write(said); err != nil {
			return fmt.Errorf("after %d answers: %w", answers.Load(), err)
		}
		heard := make([]byte, len(said))
		if _, err := io.ReadFull(c, heard); err != nil {
			return fmt.Errorf("after %d answers: %w", answers.Load(), err)
		}
		if string(heard) != string(said) {
			return fmt.Errorf("after %d answers: %q came back, want %q", answers.Load(), heard, said)
		}
		answers.Add(1)
		if over == nil || closed(over) || ctx.Err() != nil {
			return nil
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// goOn reads the counters of the services and servers with traffic, by the real
// ipvsadm; none may be less than it was.
func (l *laboratory) goOn(counted map[string][]uint64) {
	l.t.Helper()
	service, seen := "", 0
	out := reals(l.t, l.lab.Director, "", "-L", "-n", "--stats", "--exact").Out
	for _, line := range strings.Split(out, "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) < 7:
			continue
		case words[0] != "->":
			service = words[0] + " " + words[1]
		}
		if !strings.HasPrefix(service, "TCP ") {
			continue
		}
		what, numbers := service+" "+words[1], words[2:]
		before, now := counted[what], make([]uint64, len(numbers))
		fell := false
		for i, text := range numbers {
			var err error
			if now[i], err = strconv.ParseUint(text, 10, 64); err != nil {
				l.t.Fatalf("ipvsadm -L --stats --exact: %q: %v", line, err)
			}
			fell = fell || before != nil && now[i] < before[i]
		}
		if fell {
			l.t.Errorf("%s: counters %v, were %v", what, now, before)
		}
		counted[what] = now
		seen++
	}
	if want := len(l.lab.Topology.VIPs) * (1 + len(l.lab.Servers)); seen != want {
		l.t.Errorf("%d services and servers in\n%s, want %d", seen, out, want)
	}
}

// sum is how many connections the services have counted.
func sum(counted map[string][]uint64) (connections uint64) {
	for what, numbers := range counted {
		if words := strings.Fields(what); words[1] == words[2] { // a service
			connections += numbers[0]
		}
	}
	return connections
}

// lineSet are the lines, which the real ipvsadm sorts.
func lineSet(text string) map[string]bool {
	lines := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	return lines
}
