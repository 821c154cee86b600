package kernel_test

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// The contract: what every driver must do, with ipvsadm as the judge. It runs in
// the guest:
//
//	CGO_ENABLED=0 SHUNT_GUEST=uml go test -exec "$PWD/scripts/guest/uml.sh" ./director/ipvs/kernel

// drivers are those of this architecture.
func drivers() []string {
	if runtime.GOARCH == "amd64" {
		return []string{kernel.DriverGenetlink, kernel.DriverLibipvs}
	}
	return []string{kernel.DriverGenetlink}
}

// forEach runs a part of the contract on every driver, each in a namespace of its
// own. A driver that was given up on the way has failed.
func forEach(t *testing.T, test func(*fixture)) {
	ipvs.Guest(t)
	for _, name := range drivers() {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, name)
			test(f)
			if f.Name() != name {
				t.Errorf("the driver is %s at the end", f.Name())
			}
		})
	}
}

// fixture is a driver in a namespace where sync0 is an interface, and 192.0.2.0/24
// and 2001:db8::/64 are local.
type fixture struct {
	kernel.Driver
	t         *testing.T
	ctx       context.Context
	namespace *directortest.Namespace
}

func newFixture(t *testing.T, driver string) *fixture {
	t.Helper()
	n, err := directortest.NewNamespace(strings.ReplaceAll(t.Name(), "/", "-"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	f := &fixture{t: t, ctx: t.Context(), namespace: n}
	f.run("ip", "link", "add", "sync0", "type", "dummy")
	f.run("ip", "link", "set", "sync0", "up")
	f.run("ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo")
	f.run("ip", "-6", "route", "add", "local", "2001:db8::/64", "dev", "lo")
	err = n.Do(func() error {
		f.Driver, err = kernel.Open(t.Context(), kernel.Options{Driver: driver, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) run(name string, args ...string) string {
	f.t.Helper()
	out, err := f.namespace.Command(f.ctx, name, args...).Output()
	if err != nil {
		f.t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// judge returns ipvsadm's lines below the titles, their columns apart by one
// space.
func (f *fixture) judge(args ...string) []string {
	f.t.Helper()
	lines := strings.Split(strings.TrimSuffix(f.run("ipvsadm", append([]string{"-Ln"}, args...)...), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return lines[3:]
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) service(id kernel.ServiceID) kernel.ServiceEntry {
	f.t.Helper()
	s, err := f.Service(f.ctx, id)
	f.must(err)
	return s
}

func (f *fixture) services() []kernel.ServiceEntry {
	f.t.Helper()
	s, err := f.Services(f.ctx)
	f.must(err)
	return s
}

var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func (f *fixture) equal(what string, want, got any) {
	f.t.Helper()
	if diff := cmp.Diff(want, got, compareAddresses, cmpopts.EquateEmpty()); diff != "" {
		f.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func address(protocol kernel.Protocol, s string) kernel.ServiceID {
	return kernel.ServiceID{Protocol: protocol, Address: netip.MustParseAddrPort(s)}
}

// plain is a service whose netmask is whole.
func plain(id kernel.ServiceID, scheduler string) kernel.Service {
	s := kernel.Service{ServiceID: id, Scheduler: scheduler, Prefix: 32}
	if id.Family() == kernel.IPv6 {
		s.Prefix = 128
	}
	return s
}

func with(s kernel.Service, change func(*kernel.Service)) kernel.Service {
	change(&s)
	return s
}

var (
	web  = address(kernel.TCP, "192.0.2.1:80")
	web6 = address(kernel.TCP, "[2001:db8::1]:80")
	dns  = address(kernel.UDP, "192.0.2.1:53")
)
