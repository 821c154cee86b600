package conformance

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// Dataplane is a data plane that is kept in order, as the daemon does.
type Dataplane interface {
	director.Dataplane
	Run(ctx context.Context) error
}

// Plane is a data plane under test.
type Plane struct {
	// Open opens it in the lab's director, as a daemon that starts does: what an
	// earlier one left there is found. The suite closes it.
	Open func(testing.TB, *directortest.Lab) Dataplane
	// Detach removes everything from the lab's director, after the last Close.
	Detach func(testing.TB, *directortest.Lab)
	// Forwarding is whether the director's kernel has to route for it.
	Forwarding directortest.Switch
}

// port is where the servers of the lab listen, and the services.
const port = 8080

// Run runs the suite.
func Run(t *testing.T, p Plane) {
	tests := allTests()
	var vips []netip.Addr
	for i := range tests {
		vips = append(vips, address(directortest.VIP4, i), address(directortest.VIP6, i))
	}
	lab := directortest.Start(t, directortest.Topology{
		Shape: directortest.OneArmed, Servers: 2, Clients: 4, VIPs: vips, Forwarding: p.Forwarding,
	})
	if _, err := lab.ServeHTTP(port); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.ServeUDP(port); err != nil {
		t.Fatal(err)
	}
	// A director that routes would tell the servers the short way to the client.
	for _, s := range lab.Servers {
		for _, kind := range []string{"all", "eth0"} {
			if err := s.Sysctl("net/ipv6/conf/"+kind+"/accept_redirects", "0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	decapsulates := new(bool)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := &bench{T: t, plane: p, lab: lab, decapsulates: decapsulates, vip4: vips[2*i], vip6: vips[2*i+1]}
			t.Cleanup(func() {
				b.close()
				p.Detach(t, lab)
			})
			b.open()
			test.run(b)
		})
	}
}

// test is one test of the suite.
type test struct {
	name string
	run  func(*bench)
}

func allTests() []test {
	return []test{
		{"services", testServices},
		{"edits", testEdits},
		{"order", testOrder},
		{"restart", testRestart},
		{"addresses", testAddresses},
		{"failures", testFailures},
		{"timeouts", testTimeouts},
		{"features", testFeatures},
		{"cancelled", testCancelled},
		{"closed", testClosed},
		{"concurrent", testConcurrent},
		{"http", testHTTP},
		{"udp", testUDP},
		{"counters", testCounters},
		{"zero", testZero},
		{"connections", testConnections},
		{"templates", testTemplates},
		{"drain", testDrain},
		{"flows_on", testFlowsOn},
	}
}

// address returns the n-th address after a. Each test has a virtual address of its
// own: a kernel that keeps connections of services that are gone would know the
// packets of another test.
func address(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// bench is a data plane in the lab, for one test.
type bench struct {
	*testing.T
	Dataplane
	plane Plane
	lab   *directortest.Lab
	stop  func()

	vip4, vip6 netip.Addr // the test's own
	// decapsulates is whether the lab's servers take packets out of tunnels by our
	// program: once one test has had them do so, they do for all that follow.
	decapsulates *bool
	queries      uint16 // that were sent
}

// open opens the data plane and runs it.
func (b *bench) open() {
	b.Helper()
	b.Dataplane = b.plane.Open(b, b.lab)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	dp := b.Dataplane
	go func() { done <- dp.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("run the data plane: %v", err)
		}
		if err := dp.Close(); err != nil {
			b.Errorf("close the data plane: %v", err)
		}
	}
}

// close closes it, if it is open.
func (b *bench) close() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

// reopen is a daemon that starts anew.
func (b *bench) reopen() {
	b.Helper()
	b.close()
	b.open()
}

func (b *bench) apply(ops ...director.Operation) {
	b.Helper()
	if err := b.Apply(b.Context(), ops); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) found() director.State {
	b.Helper()
	found, err := b.Found(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return found
}

// holds compares what is found, in the order of the keys.
func (b *bench) holds(want ...director.Service) {
	b.Helper()
	b.same("found", want, b.found().Services)
}

// same compares two values.
func (b *bench) same(what string, want, got any) {
	b.Helper()
	if diff := cmp.Diff(want, got, compare...); diff != "" {
		b.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// eventually waits for what happens by itself.
func (b *bench) eventually(what string, happened func() bool) {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); !happened(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("not in time: %s", what)
		}
	}
}

// settles waits until the value is as it is to be: counts come late.
func (b *bench) settles(what string, want any, read func() any) {
	b.Helper()
	got := read()
	for deadline := time.Now().Add(30 * time.Second); got != want && time.Now().Before(deadline); got = read() {
		time.Sleep(50 * time.Millisecond)
	}
	b.same(what, want, got)
}

// key reads a service's URL.
func key(url string) director.ServiceKey {
	k, err := director.ParseServiceKey(url)
	if err != nil {
		panic(err)
	}
	return k
}

// service returns one with the lab's servers.
func (b *bench) service(url string, method realserver.Method) director.Service {
	s := director.Service{Key: key(url), Scheduler: director.RoundRobin}
	for _, server := range b.lab.Servers {
		s.Servers = append(s.Servers, realserver.Server{
			Address: netip.AddrPortFrom(server.Addr(s.Key.Address.Addr()), s.Key.Address.Port()), Method: method, Weight: 1,
		})
	}
	return s.Normalize()
}

// adding returns the operations that add the services.
func adding(services ...director.Service) []director.Operation {
	return director.Plan(director.State{Services: services}.Normalize(), director.State{})
}

// stats returns the counters of the service.
func (b *bench) stats(key director.ServiceKey) director.ServiceStats {
	b.Helper()
	stats, err := b.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range stats.Services {
		if s.Key == key {
			return s
		}
	}
	b.Fatalf("no counters of %s", key)
	return director.ServiceStats{}
}
