package labtest

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// fails starts a daemon that must end by itself.
func (d *daemon) fails(t *testing.T, code int, texts ...string) {
	t.Helper()
	r := d.offline(t, d.args...)
	if r.code != code {
		t.Errorf("exit code %d, want %d: %s", r.code, code, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("it does not say %q: %s", text, r.stderr)
		}
	}
}

// noPins wants nothing left by a daemon that did not start.
func (d *daemon) noPins(t *testing.T) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(d.pins)); err != nil || len(entries) > 0 {
		t.Errorf("a daemon that did not start left %v, %v", entries, err)
	}
}

func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	c := p.on(t, 0)
	configuration := p.d.configuration(t)
	t.Run("on_the_same_socket", func(t *testing.T) {
		d := newDaemon(t, p.lab.Director, p.lab.DirectorLinks)
		d.args = append(d.args, "--socket", p.d.socket)
		d.fails(t, 1, "another shuntd is running", "hint: stop it first")
		d.noPins(t)
	})
	t.Run("with_the_same_pins", func(t *testing.T) {
		d := newDaemon(t, p.lab.Director, p.lab.DirectorLinks)
		d.args = append(d.args, "--pin-dir", p.d.pins)
		d.fails(t, 1, p.d.pins, "another shuntd", "--pin-dir")
		d.noPins(t)
	})
	t.Run("on_the_same_interface", func(t *testing.T) {
		d := newDaemon(t, p.lab.Director, p.lab.DirectorLinks)
		d.fails(t, 1, "attach to eth0", "shunt_root")
		d.noPins(t)
	})
	if err := c.ask(); err != nil {
		t.Error(err)
	}
	p.requests(t, 10)
	if after := p.d.configuration(t); after != configuration {
		t.Errorf("configuration before:\n%safter:\n%s", configuration, after)
	}
	p.d.noFaults(t)
}

func TestADaemonInEachOfTwoNamespaces(t *testing.T) {
	t.Parallel()
	a, b := startPair(t, nat), startPair(t, nat)
	a.requests(t, 20)
	b.requests(t, 10)
	for p, want := range map[*pair]uint64{&a: 20, &b: 10} {
		if total, _ := p.d.counters(t, "web"); total.Connections != want {
			t.Errorf("the director counted %d connections, want its own %d", total.Connections, want)
		}
	}
	a.d.do(t, "detach")
	a.d.wait(t)
	nothingLeft(t, a.lab, a.d)
	b.requests(t, 10)
}

// An interface that is not named any more is let go at a restart; the others
// and the connections stay.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Servers: 3})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab)
	d.do(t, "service add tcp://192.0.2.10:80 --name web --scheduler rr")
	for _, s := range lab.Servers {
		d.do(t, "server add web "+s.Addr4.String()+" --method nat")
	}
	to := netip.AddrPortFrom(vip4, 80)
	for range 3 {
		mustOpen(t, lab.Client, to)
	}
	if got := len(read[api.Status](t, d, "status").Interfaces); got != 4 {
		t.Errorf("attached to %d interfaces, want 4", got)
	}
	d.stop(t)
	all := d.args
	d.args = append(d.args[:len(d.args)-2:len(d.args)-2], "--log-level", "info") // without eth3
	d.start(t)
	gone := netip.AddrPortFrom(lab.Servers[2].Addr4, 80).String()
	if s := d.server(t, "web", gone); s.Reachable || !strings.Contains(s.Reason, "eth3, which is not one of director.interfaces") {
		t.Errorf("server %+v: want it unreachable, with the reason", s)
	}
	for range 6 {
		if c := mustOpen(t, lab.Client, to); c.server == lab.Servers[2].Name {
			t.Error("a new connection went to the server behind eth3")
		}
	}
	d.stop(t)
	d.args = all
	d.start(t)
	await(t, "the server is back", func() bool { return d.server(t, "web", gone).Reachable })
	d.noFaults(t)
}

func TestGenericModeIsSaidLoudly(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat, "--generic")
	if !strings.Contains(p.d.log.String(), "level=WARN msg=\"GENERIC MODE") {
		t.Errorf("it said:\n%s", p.d.log)
	}
	if out := p.d.shunt(t, "status"); !strings.Contains(out, "eth0 (generic: slow, for tests only)") {
		t.Errorf("status:\n%s", out)
	}
	p.requests(t, 20)
	if total, _ := p.d.counters(t, "web"); total.Connections != 20 {
		t.Errorf("the director counted %d connections, want 20", total.Connections)
	}
	p.d.noFaults(t)
}

// What the file says and what was added by the CLI are there after a restart.
func TestFileAndCommandsTogether(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shunt.yaml")
	text := `
director: {connections: {timeouts: {udp: 30s}}}
services:
  - name: web
    listen: tcp://192.0.2.10:80
    method: nat
    servers: [{address: 10.2.0.11, weight: 2}, {address: 10.2.0.12}]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed})
	if _, err := lab.ServeHTTP(80); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab, "--config", path)
	d.do(t, "service add tcp://192.0.2.20:80 --name added --scheduler sh --flags sh-port\nserver add added 10.2.0.12 --method nat --weight 7\ntimeouts --tcp 1h")
	before := d.configuration(t)
	d.kill()
	d.start(t)
	if after := d.configuration(t); after != before {
		t.Errorf("configuration before:\n%safter:\n%s", before, after)
	}
	for _, vip := range []string{"192.0.2.10:80", "192.0.2.20:80"} {
		if err := mustOpen(t, lab.Client, netip.MustParseAddrPort(vip)).ask(); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(before, "1h0m0s") || !strings.Contains(before, "30s") {
		t.Errorf("configuration %s", before)
	}
	d.noFaults(t)
}
