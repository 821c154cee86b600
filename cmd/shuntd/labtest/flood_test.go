package labtest

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// flooded is a one-armed lab with a service that is attacked, web, another, shop, and
// one by UDP, dns, on a small table.
type flooded struct {
	pair
	shop, dns netip.AddrPort
}

// tableEnv names how many connections the flooded table is made for, in place of few:
// make flood sets it.
const tableEnv = "SHUNT_FLOOD"

// floodedTable is how many that are.
func floodedTable(t *testing.T) int {
	t.Helper()
	text := os.Getenv(tableEnv)
	if text == "" {
		return 1024
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1024 {
		t.Fatalf("%s=%q: want a number of connections, 1024 at least", tableEnv, text)
	}
	return n
}

// invented are the sources of floods (RFC 2544: benchmarks; they have no host here).
var invented = netip.MustParsePrefix("198.18.0.0/15")

func startFlooded(t *testing.T, method string) flooded {
	t.Helper()
	f := flooded{
		pair: startPair(t, method, "--max-connections", strconv.Itoa(floodedTable(t))),
		shop: netip.AddrPortFrom(vip4, 81), dns: netip.AddrPortFrom(vip4, 53),
	}
	if _, err := f.lab.ServeHTTP(81); err != nil {
		t.Fatal(err)
	}
	if _, err := f.lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	f.d.do(t, "service add tcp://192.0.2.10:81 --name shop --scheduler rr\nservice add udp://192.0.2.10:53 --name dns --scheduler rr")
	for _, s := range f.lab.Servers {
		f.d.do(t, "server add shop "+netip.AddrPortFrom(s.Addr4, 81).String()+" --method "+method+
			"\nserver add dns "+netip.AddrPortFrom(s.Addr4, 53).String()+" --method "+method)
	}
	return f
}

// prove has each connection used until the director is sure of its client: where it
// sees no replies, by packets a second and more apart.
func prove(t *testing.T, method string, calls []*call) {
	t.Helper()
	if method == nat {
		return // the handshake was enough
	}
	for range 3 {
		<-time.After(1300 * time.Millisecond) // a second, and a tick
		askAll(t, calls)
	}
}

func askAll(t *testing.T, calls []*call) {
	t.Helper()
	var all sync.WaitGroup
	for _, c := range calls {
		all.Go(func() {
			if err := c.ask(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Floods of ten times the table's size cost no proven connection of any service its
// entry, its packets or its counters, and new clients of another service nothing.
func TestFlood(t *testing.T) {
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			f := startFlooded(t, method)
			random := directortest.Random(t)
			var held []*call
			for _, to := range []netip.AddrPort{f.vip, f.shop} {
				for range 20 {
					held = append(held, mustOpen(t, f.lab.Client, to))
				}
			}
			prove(t, method, held)
			for _, c := range read[[]api.Connection](t, f.d, "conn", "list") {
				if !c.Proven {
					t.Fatalf("not proven: %+v", c)
				}
			}
			before := f.d.pairings(t, held)
			l := pair{lab: f.lab, d: f.d, vip: f.shop}.startPacedLoad(t, 20*time.Millisecond)
			for _, flood := range []directortest.Flood{
				{Kind: directortest.FloodSYN, To: f.vip},
				{Kind: directortest.FloodHandshake, To: f.vip},
				{Kind: directortest.FloodUDP, To: f.dns},
			} {
				flood.Sources, flood.Count = invented, 10*floodedTable(t)
				counted, _ := f.d.counters(t, nameOf(flood.To))
				done, begun := l.done.Load(), time.Now()
				sent, err := f.lab.Flood(flood, random)
				if err != nil {
					t.Fatal(err)
				}
				seconds, during := time.Since(begun).Seconds(), l.done.Load()-done
				l.more(t, 20)
				askAll(t, held)
				if after := f.d.pairings(t, held); !slices.Equal(before, after) {
					t.Errorf("%s: pairings before %q, after %q", flood.Kind, before, after)
				}
				now, _ := f.d.counters(t, nameOf(flood.To))
				if made := now.Connections - counted.Connections; made < uint64(flood.Count)*9/10 || made > uint64(flood.Count)+100 {
					t.Errorf("%s: %d packets of %d sources made %d connections", flood.Kind, sent, flood.Count, made)
				}
				t.Logf("figure: %s %-9s %8d packets of %7d sources at a table for %d, %7.0f a second: %d of %[7]d proven connections answer; of another service, %d requests meanwhile, 0 failed",
					method, flood.Kind, sent, flood.Count, floodedTable(t), float64(sent)/seconds, len(held), during)
			}
			l.end()
			events := f.d.events(t)
			if events["evicted"] == 0 || events["table-full"] > 0 {
				t.Errorf("the table was not flooded, or was full: %d evicted, %d refused", events["evicted"], events["table-full"])
			}
			// A flood's guessed acknowledgments may come when their entries have been given up.
			f.d.noFaults(t, "midstream")
		})
	}
}

// nameOf is the service that the floods' target is of.
func nameOf(to netip.AddrPort) string {
	if to.Port() == 53 {
		return "dns"
	}
	return "web"
}

// A guard goes on and off by itself; while it is on, a flood leaves no entry, and
// clients with real stacks connect.
func TestGuard(t *testing.T) {
	for _, method := range []string{nat, dr} {
		t.Run(method, func(t *testing.T) {
			t.Parallel() // most of it is a wait
			f := startFlooded(t, method)
			f.d.do(t, "service edit web --guard auto --guard-on 500 --guard-off 100")
			held := mustOpen(t, f.lab.Client, f.vip)
			since := f.d.lastEvent(t)
			stop, ended := make(chan struct{}), make(chan error, 1)
			go func() {
				random := directortest.Random(t)
				for {
					select {
					case <-stop:
						ended <- nil
						return
					default:
					}
					if _, err := f.lab.Flood(directortest.Flood{Kind: directortest.FloodSYN, To: f.vip, Sources: invented, Count: 500}, random); err != nil {
						ended <- err
						return
					}
					<-time.After(20 * time.Millisecond)
				}
			}()
			f.d.tells(t, since, "guard-on", f.vip.String())
			entries := f.d.connections(t, "--service", "web")
			f.requests(t, 20)
			if err := held.ask(); err != nil {
				t.Error(err)
			}
			made := f.d.connections(t, "--service", "web")
			if made > entries+20 {
				t.Errorf("the flood made entries with the guard on: %d before, %d after", entries, made)
			}
			close(stop)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			await(t, "the guard goes off", func() bool { return len(f.d.told(t, since, "guard-off")) > 0 })
			if events := f.d.events(t); events["guard"] == 0 || events["guard-answered"] == 0 {
				t.Errorf("the guard answered %d segments and was answered %d times", events["guard"], events["guard-answered"])
			}
			f.requests(t, 4)
			f.d.noFaults(t, "guard-answered", "midstream")
		})
	}
}
