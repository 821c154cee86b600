package ipvs

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
	"github.com/shunt-lb/shunt/realserver"
)

// rig is a data plane in a namespace of the guest's kernel.
type rig struct {
	*Dataplane
	ns  *directortest.Namespace
	spy *spy
}

// newRig opens one. Outside the guest the test is skipped.
func newRig(t *testing.T) *rig {
	t.Helper()
	guest.Guest(t)
	ns, err := directortest.NewNamespace("director")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return openIn(t, ns)
}

// openIn opens a data plane in the namespace, as a daemon that starts does.
func openIn(t *testing.T, ns *directortest.Namespace) *rig {
	t.Helper()
	r := &rig{ns: ns, spy: &spy{}}
	err := ns.Do(func() error {
		driver, err := kernel.Open(t.Context(), kernel.Options{})
		if err != nil {
			return err
		}
		r.spy.Driver = driver
		r.Dataplane, err = open(r.spy)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ipvsadm runs the real one and returns what it prints.
func (r *rig) ipvsadm(t *testing.T, args ...string) string {
	t.Helper()
	left := guest.Ipvsadm(t, r.ns, "", args...)
	if left.Status != 0 {
		t.Fatalf("ipvsadm %s: %+v", strings.Join(args, " "), left)
	}
	return left.Out
}

// script runs the real one once for each line.
func (r *rig) script(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		r.ipvsadm(t, strings.Fields(line)...)
	}
}

// saved compares what the kernel holds with lines as ipvsadm -Sn prints them.
func (r *rig) saved(t *testing.T, want ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSpace(r.ipvsadm(t, "-S", "-n")), "\n")
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if len(want) == 0 {
		want = []string{""}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ipvsadm -Sn (-want +got):\n%s", diff)
	}
}

func (r *rig) apply(t *testing.T, ops ...director.Operation) {
	t.Helper()
	if err := r.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) found(t *testing.T) director.State {
	t.Helper()
	found, err := r.Found(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// holds compares the services found.
func (r *rig) holds(t *testing.T, want ...director.Service) {
	t.Helper()
	if diff := cmp.Diff(want, r.found(t).Services, equal...); diff != "" {
		t.Errorf("found services (-want +got):\n%s", diff)
	}
}

var equal = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// key reads a service's URL.
func key(url string) director.ServiceKey {
	k, err := director.ParseServiceKey(url)
	if err != nil {
		panic(err)
	}
	return k
}

// service returns one with servers of weight 1.
func service(url string, method realserver.Method, servers ...string) director.Service {
	s := director.Service{Key: key(url), VIP: director.VIPExternal}
	for _, address := range servers {
		addr, err := director.ParseServerAddress(address)
		if err != nil {
			panic(err)
		}
		s.Servers = append(s.Servers, realserver.Server{Address: addr, Method: method, Weight: 1})
	}
	return s.Normalize()
}

// adding returns the operations that add the services.
func adding(services ...director.Service) []director.Operation {
	return director.Plan(director.State{Services: services}, director.State{})
}

// spy is a driver that notes what it was told to write, and fails where it is told
// to.
type spy struct {
	kernel.Driver

	mu     sync.Mutex
	writes []string
	lists  int // how often all services were read
	fail   func(write string) error
}

func (s *spy) Services(ctx context.Context) ([]kernel.ServiceEntry, error) {
	s.mu.Lock()
	s.lists++
	s.mu.Unlock()
	return s.Driver.Services(ctx)
}

// note records a write; an error forbids it.
func (s *spy) note(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	write := fmt.Sprintf(format, args...)
	if s.fail != nil {
		if err := s.fail(write); err != nil {
			return err
		}
	}
	s.writes = append(s.writes, write)
	return nil
}

// wrote compares the writes since the last call.
func (s *spy) wrote(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.writes); diff != "" {
		t.Errorf("writes to the kernel (-want +got):\n%s", diff)
	}
	s.writes = nil
}

func (s *spy) NewService(ctx context.Context, v kernel.Service) error {
	if err := s.note("new %s", v.ServiceID); err != nil {
		return err
	}
	return s.Driver.NewService(ctx, v)
}

func (s *spy) SetService(ctx context.Context, v kernel.Service) error {
	if err := s.note("set %s", v.ServiceID); err != nil {
		return err
	}
	return s.Driver.SetService(ctx, v)
}

func (s *spy) DeleteService(ctx context.Context, id kernel.ServiceID) error {
	if err := s.note("delete %s", id); err != nil {
		return err
	}
	return s.Driver.DeleteService(ctx, id)
}

func (s *spy) NewServer(ctx context.Context, id kernel.ServiceID, v kernel.Server) error {
	if err := s.note("new %s of %s", v.Address, id); err != nil {
		return err
	}
	return s.Driver.NewServer(ctx, id, v)
}

func (s *spy) SetServer(ctx context.Context, id kernel.ServiceID, v kernel.Server) error {
	if err := s.note("set %s of %s", v.Address, id); err != nil {
		return err
	}
	return s.Driver.SetServer(ctx, id, v)
}

func (s *spy) DeleteServer(ctx context.Context, id kernel.ServiceID, address netip.AddrPort) error {
	if err := s.note("delete %s of %s", address, id); err != nil {
		return err
	}
	return s.Driver.DeleteServer(ctx, id, address)
}

func (s *spy) SetTimeouts(ctx context.Context, v kernel.Timeouts) error {
	if err := s.note("set timeouts"); err != nil {
		return err
	}
	return s.Driver.SetTimeouts(ctx, v)
}

func (s *spy) StartSync(ctx context.Context, v kernel.SyncDaemon) error {
	if err := s.note("start %s", v.Role); err != nil {
		return err
	}
	return s.Driver.StartSync(ctx, v)
}

func (s *spy) StopSync(ctx context.Context, role kernel.SyncRole) error {
	if err := s.note("stop %s", role); err != nil {
		return err
	}
	return s.Driver.StopSync(ctx, role)
}

func (s *spy) Flush(ctx context.Context) error {
	if err := s.note("flush"); err != nil {
		return err
	}
	return s.Driver.Flush(ctx)
}

func (s *spy) Zero(ctx context.Context, id kernel.ServiceID) error {
	if err := s.note("zero %s", id); err != nil {
		return err
	}
	return s.Driver.Zero(ctx, id)
}
