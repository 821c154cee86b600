package labtest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director/api"
)

// The sizes of the scale test: what the control plane's goals are given for.
const (
	manyServices = 1000
	manyServers  = 10 // of each
)

// manyPorts are the ports of each of the two servers that are spoken to.
var manyPorts = [manyServers / 2]uint16{8001, 8002, 8003, 8004, 8005}

// manyVIP is the address of the i-th of many services.
func manyVIP(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i%250)}), uint16(1000+i/250))
}

// manyConfigured is a file with all of them, on addresses that somebody else puts
// on the host.
func manyConfigured() string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range manyServices {
		fmt.Fprintf(&b, "  - name: s%d\n    listen: tcp://%s\n    scheduler: rr\n    vip: external\n    method: nat\n    servers:\n", i, manyVIP(i))
		for k, port := range manyPorts {
			fmt.Fprintf(&b, "      - {address: 10.2.0.11:%d, weight: %d}\n      - {address: 10.2.0.12:%[1]d}\n", port, k+1)
		}
	}
	return b.String()
}

// TestThousandServices applies, lists, spoils, restarts and rolls back 1000
// services of 10 servers each.
func TestThousandServices(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 2, "services: []\n", manyPorts[:]...)
	many := writeFile(t, filepath.Join(filepath.Dir(file), "many.yaml"), manyConfigured())
	// sample asks some services, each until all its servers have answered.
	sample := func(indices ...int) {
		t.Helper()
		var jobs []job
		for _, i := range indices {
			for range manyServers {
				jobs = append(jobs, job{service: fmt.Sprint(i), address: manyVIP(i), size: 100})
			}
		}
		for service, answers := range send(t, p.lab.Client, jobs, 1) {
			if answers[p.lab.Servers[0].Name] != 5 || answers[p.lab.Servers[1].Name] != 5 {
				t.Errorf("service s%s is answered by %v, want all servers in turn", service, answers)
			}
		}
	}
	some := []int{0, 1, 249, 250, 500, 999}
	out := p.d.shunt(t, "apply", "-f", many)
	if lines := strings.Count(out, "\n"); lines != manyServices*(1+manyServers)+1 || !strings.HasSuffix(out, "revision 2: 11000 steps done\n") {
		t.Errorf("%d lines, the last is %q", lines, out[len(out)-60:])
	}
	sample(some...)
	if s := read[api.Status](t, p.d, "status"); s.Services != manyServices || s.Servers != manyServices*manyServers || s.Unreachable > 0 {
		t.Errorf("status counts %d services, %d servers, %d unreachable", s.Services, s.Servers, s.Unreachable)
	}
	if out := p.d.shunt(t, "service", "list"); strings.Count(out, "\n") != manyServices+1 {
		t.Errorf("service list has %d lines", strings.Count(out, "\n"))
	}
	p.d.unchanged(t, func() {
		if out := p.d.shunt(t, "apply", "-f", many); out != "nothing to change: this is revision 2\n" {
			t.Errorf("again:\n%.400s", out)
		}
	})
	kernel := inKernel(t, p.d.pins)
	if len(kernel) != manyServices {
		t.Errorf("the kernel has %d services", len(kernel))
	}
	same := func() {
		t.Helper()
		if diff := cmp.Diff(kernel, inKernel(t, p.d.pins)); diff != "" {
			t.Errorf("the kernel (-before +after):\n%.2000s", diff)
		}
	}

	t.Run("one_edit_of_many", func(t *testing.T) {
		p.d.do(t, "server edit s500 10.2.0.11:8001 --weight 0\nserver edit s500 10.2.0.11:8001 --weight 1")
		if head := p.d.head(t); head != 4 {
			t.Errorf("revision %d", head)
		}
		same()
		sample(500)
	})
	t.Run("drift_of_some", func(t *testing.T) {
		before := p.d.drift(t)
		p.d.whilePaused(t, func() {
			index, services := p.d.pinned(t, "service_index"), p.d.pinned(t, "services")
			for _, i := range some {
				key, at := p.d.indexed(t, manyVIP(i))
				ok(t, index.Delete(key))
				spoil(t, services, at, func(s *bpf.KernelService) { *s = bpf.KernelService{} })
			}
			refused(t, p.lab.Client, netip.Addr{}, manyVIP(some[2]))
		})
		want := uint64(len(some) * (1 + manyServers))
		await(t, "all is repaired", func() bool { return p.d.drift(t).Repaired-before.Repaired >= want })
		p.d.compared(t, 1)
		if d := p.d.drift(t); d.Repaired-before.Repaired != want || d.Failed > 0 || len(d.Pending)+len(d.Foreign) > 0 {
			t.Errorf("drift: found %d, repaired %d of %d, pending %d, foreign %d", d.Found, d.Repaired, want, len(d.Pending), len(d.Foreign))
		}
		same()
		sample(some...)
	})
	t.Run("restarts", func(t *testing.T) {
		p.d.kill()
		sample(some[0])
		p.d.start(t)
		if !strings.Contains(p.d.log.String(), "steps=0") {
			t.Errorf("a restart of the daemon changed the kernel:\n%s", p.d.log)
		}
		same()
		p.d.stop(t)
		if r := p.d.offline(t, "detach", "--pin-dir", p.d.pins); r.code != 0 {
			t.Fatalf("shuntd detach: %s", r.stderr)
		}
		p.d.start(t)
		same()
		sample(some...)
	})
	t.Run("rolled_back_and_forth", func(t *testing.T) {
		if r := p.d.try(t, "rollback", "1"); r.code != 1 || !strings.Contains(r.stderr, "1000 of 1000 services") {
			t.Errorf("exit code %d: %.400s", r.code, r.stderr)
		}
		p.d.shunt(t, "rollback", "1", "--force", "--yes")
		if left := inKernel(t, p.d.pins); len(left) > 0 {
			t.Errorf("%d services are left in the kernel", len(left))
		}
		p.d.shunt(t, "rollback", "2")
		same()
		sample(slices.Concat(some, []int{123, 456})...)
		if out := p.d.shunt(t, "diff", "2"); out != "no difference\n" {
			t.Errorf("revision 2 differs:\n%.400s", out)
		}
	})
	if d := p.d.drift(t); len(d.Pending)+len(d.Foreign) > 0 {
		t.Errorf("pending %d, foreign %d", len(d.Pending), len(d.Foreign))
	}
	p.d.noFaults(t, "service-removed")
}
