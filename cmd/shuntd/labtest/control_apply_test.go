package labtest

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/api"
)

// The configuration of the tests of apply, and what becomes of it.
const (
	planned = often + `
services:
  - name: web
    listen: tcp://192.0.2.10:80
    scheduler: rr
    method: nat
    servers: [{address: 10.2.0.11}, {address: 10.2.0.12}]
`
	grown = `
services:
  - name: web
    listen: tcp://192.0.2.10:80
    scheduler: wrr
    method: nat
    servers: [{address: 10.2.0.11, weight: 3}, {address: 10.2.0.12}, {address: 10.2.0.13, weight: 2}]
`
	// impossible fails in its last step: the virtual address is eth0's.
	impossible = grown + `
  - name: good
    listen: udp://192.0.2.99:53
    access: {deny: [10.9.0.0/16]}
    method: nat
    servers: [{address: 10.2.0.13}]
  - name: wrong
    listen: udp://203.0.113.1:53
    method: nat
    servers: [{address: 10.2.0.11}]
`
)

// unchanged runs f, which must leave the revision and the kernel as they are.
func (d *daemon) unchanged(t *testing.T, f func()) {
	t.Helper()
	head, kernel, configuration := d.head(t), inKernel(t, d.pins), d.configuration(t)
	access := readPinnedHash[[24]byte, uint32](t, d.pinned(t, "access"))
	f()
	if now := d.head(t); now != head {
		t.Errorf("revision %d, before it was %d", now, head)
	}
	if diff := cmp.Diff(kernel, inKernel(t, d.pins)); diff != "" {
		t.Errorf("the kernel (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(configuration, d.configuration(t)); diff != "" {
		t.Errorf("configuration (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(access, readPinnedHash[[24]byte, uint32](t, d.pinned(t, "access"))); diff != "" {
		t.Errorf("access lists (-before +after):\n%s", diff)
	}
}

func TestApplyBreaksNoConnection(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 3, planned, 80)
	held := []*call{p.on(t, 0), p.on(t, 1)}
	next := writeFile(t, filepath.Join(filepath.Dir(file), "next.yaml"), grown)
	l := p.startLoad(t)
	l.more(t, 50)

	var plan string
	p.d.unchanged(t, func() { plan = p.d.shunt(t, "apply", "-f", next, "--dry-run") })
	for _, step := range []string{
		"scheduler rr → wrr", "edit server 10.2.0.11:80 of tcp://192.0.2.10:80: weight 1 → 3",
		"add server 10.2.0.13:80 to tcp://192.0.2.10:80: method nat, weight 2",
	} {
		if !strings.Contains(plan, step) {
			t.Errorf("the plan lacks %q:\n%s", step, plan)
		}
	}
	if strings.Contains(plan, "10.2.0.12") || strings.Contains(plan, "remove") {
		t.Errorf("the plan touches what is right, or replaces:\n%s", plan)
	}
	applied := p.d.shunt(t, "apply", "-f", next, "--why", "more load")
	if want := plan + "revision 2: 3 steps done\n"; applied != want {
		t.Errorf("applied:\n%swant the plan, and\n%s", applied, want)
	}
	l.more(t, 50)
	l.end()
	for _, c := range held {
		ok(t, c.ask())
	}
	if answers := p.requests(t, 12); answers[p.lab.Servers[0].Name] != 6 || answers[p.lab.Servers[1].Name] != 2 || answers[p.lab.Servers[2].Name] != 4 {
		t.Errorf("answers %v, want 6, 2 and 4 by the weights", answers)
	}
	p.d.unchanged(t, func() {
		if out := p.d.shunt(t, "apply", "-f", next); !strings.Contains(out, "nothing to change: this is revision 2") {
			t.Errorf("again:\n%s", out)
		}
	})

	c := mustOpen(t, p.lab.Client, p.vip)
	if out := p.d.shunt(t, "rollback", "1", "--yes"); !strings.Contains(out, "- remove server 10.2.0.13:80") || !strings.Contains(out, "revision 3: 3 steps done") {
		t.Errorf("rolled back:\n%s", out)
	}
	p.serves(t)
	for _, c := range append(held, c) {
		if c.server != p.lab.Servers[2].Name {
			ok(t, c.ask())
		}
	}
	if out := p.d.shunt(t, "diff", "1"); !strings.Contains(out, "no difference") {
		t.Errorf("after the rollback, revision 1 differs:\n%s", out)
	}
	p.d.noFaults(t, "server-removed")
}

// A step that the kernel refuses is named; what was done before it is undone, in
// the kernel too, and traffic does not notice.
func TestFailingApplyIsUndone(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 3, planned, 80)
	held := []*call{p.on(t, 0), p.on(t, 1)}
	wrong := writeFile(t, filepath.Join(filepath.Dir(file), "wrong.yaml"), impossible)
	ok(t, p.lab.Director.AddAddress("eth0", netip.MustParsePrefix("203.0.113.1/32")))
	last := p.d.lastEvent(t)
	l := p.startLoad(t)
	p.d.unchanged(t, func() {
		r := p.d.try(t, "apply", "-f", wrong)
		if r.code != 1 || !strings.Contains(r.stderr, "add service udp://203.0.113.1:53: ") || !strings.Contains(r.stderr, "203.0.113.1 is on eth0 already") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	l.more(t, 50)
	l.end()
	if hasAddress(t, p.lab.Director, "lo", netip.MustParseAddr("192.0.2.99")) {
		t.Error("the address of a service that was undone is on lo")
	}
	p.d.tells(t, last, "change-failed", "udp://203.0.113.1:53")
	p.d.tells(t, last, "rolled-back", "undone")
	p.d.compared(t, 2)
	if d := p.d.drift(t); d.Found > 0 || len(d.Foreign) > 0 {
		t.Errorf("drift %+v", d)
	}
	p.serves(t)
	for _, c := range held {
		ok(t, c.ask())
	}
	p.d.noFaults(t)
}

func TestGuardAndFolder(t *testing.T) {
	t.Parallel()
	p, file := newPair(t, 2, planned, 80, 8081)
	folder := filepath.Join(filepath.Dir(file), "all")
	empty := writeFile(t, filepath.Join(filepath.Dir(file), "empty.yaml"), "services: []\n")
	c := p.on(t, 0)
	p.d.unchanged(t, func() {
		r := p.d.try(t, "apply", "-f", empty, "--yes")
		if r.code != 1 || !strings.Contains(r.stderr, "1 of 1 services") || !strings.Contains(r.stderr, "--force") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
		// The daemon refuses by itself: the CLI is not the guard.
		_, err := p.d.client(t).Apply(t.Context(), api.Configuration{Services: []api.ServiceConfig{}}, api.Terms{})
		if err == nil || !strings.Contains(err.Error(), "1 of 1 services") {
			t.Errorf("the API says %v", err)
		}
	})
	ok(t, c.ask())

	// The same service, and another one in a file beside it.
	writeFile(t, filepath.Join(folder, "shunt.yaml"), "include: [conf.d/]\n"+planned)
	writeFile(t, filepath.Join(folder, "conf.d", "six.yaml"), `
services:
  - listen: tcp://[2001:db8::10]:80
    method: nat
    servers: [{address: "[fd00:2::b]:8081"}, {address: "[fd00:2::c]:8081"}]
`)
	writeFile(t, filepath.Join(folder, "conf.d", "notes.txt"), "not read: {")
	if out := p.d.shunt(t, "apply", "-f", filepath.Join(folder, "shunt.yaml")); !strings.Contains(out, "+ add service tcp://[2001:db8::10]:80") || strings.Contains(out, "192.0.2.10") {
		t.Errorf("applied:\n%s", out)
	}
	p.serves(t, netip.AddrPortFrom(vip6, 80))
	writeFile(t, filepath.Join(folder, "conf.d", "zz.yaml"), "services:\n  - listen: tcp://[2001:db8::10]:80\n    method: nat\n    servers: []\n")
	p.d.unchanged(t, func() {
		r := p.d.try(t, "apply", "-f", filepath.Join(folder, "shunt.yaml"))
		if r.code == 0 || !strings.Contains(r.stderr, "conf.d/zz.yaml:2:") || !strings.Contains(r.stderr, "six.yaml") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	ok(t, c.ask())
	p.d.noFaults(t)
}
