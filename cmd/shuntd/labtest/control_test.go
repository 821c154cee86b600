package labtest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
)

// often is the part of a configuration by which the kernel is compared often.
const often = "director: {reconcile: 100ms}\n"

// writeFile writes a file, its folders too, and returns its path.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newPair is a one-armed lab with as many servers, which answer on the ports,
// and a daemon that begins with the file of the text. Its service web is at the
// virtual address, port 80.
func newPair(t *testing.T, servers int, text string, ports ...uint16) (p pair, file string) {
	t.Helper()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: servers, Clients: 4})
	for _, port := range ports {
		if _, err := lab.ServeHTTP(port); err != nil {
			t.Fatal(err)
		}
	}
	file = writeFile(t, filepath.Join(t.TempDir(), "shunt.yaml"), text)
	p = pair{lab: lab, d: startDaemon(t, lab, "--config", file), vip: netip.AddrPortFrom(vip4, 80)}
	for i := range p.servers {
		p.servers[i] = netip.AddrPortFrom(lab.Servers[i].Addr4, 80).String()
	}
	return p, file
}

// client returns a client of the daemon's API.
func (d *daemon) client(t *testing.T) *api.Client {
	t.Helper()
	c := api.NewSocketClient(d.socket)
	t.Cleanup(c.Close)
	return c
}

// drift asks the daemon what it has seen.
func (d *daemon) drift(t *testing.T) api.Drift {
	t.Helper()
	drift, err := d.client(t).Drift(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return drift
}

// head is the number of the newest revision.
func (d *daemon) head(t *testing.T) uint64 {
	t.Helper()
	return read[api.Status](t, d, "status").Revision
}

// compared waits until the kernel was compared with what is desired as often.
func (d *daemon) compared(t *testing.T, times int) {
	t.Helper()
	client := d.client(t)
	var last time.Time
	for range times + 1 { // the first may have begun before
		await(t, "the kernel is compared", func() bool {
			drift, err := client.Drift(t.Context())
			if err != nil || drift.Checked == nil || !drift.Checked.After(last) {
				return false
			}
			last = *drift.Checked
			return true
		})
	}
}

// told returns the kept events of the names behind one.
func (d *daemon) told(t *testing.T, after uint64, names ...string) []api.Event {
	t.Helper()
	page, err := d.client(t).Events(t.Context(), api.EventQuery{After: &after, Limit: 1000, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return page.Events
}

// lastEvent is the id of the newest event.
func (d *daemon) lastEvent(t *testing.T) uint64 {
	t.Helper()
	page, err := d.client(t).Events(t.Context(), api.EventQuery{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return page.Next
}

// tells waits for an event of the name behind one whose message has the text.
func (d *daemon) tells(t *testing.T, after uint64, name, text string) {
	t.Helper()
	await(t, "event "+name+" with "+text, func() bool {
		for _, e := range d.told(t, after, name) {
			if strings.Contains(e.Message, text) {
				return true
			}
		}
		return false
	})
}

// whilePaused runs f while no thread of the daemon runs.
func (d *daemon) whilePaused(t *testing.T, f func()) {
	t.Helper()
	process := d.process.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = process.Signal(syscall.SIGCONT) }() // a dead one shows later
	await(t, "the daemon is stopped", func() bool { return strings.HasPrefix(status(t, process.Pid, "State"), "T") })
	f()
}

// silence is how long a client waits that is to get nothing. A late answer would
// be taken for none: it makes a test weaker, and never fail.
const silence = 300 * time.Millisecond

// refused tries to connect and says how that failed: "nothing" came, or there was
// a "reset". The test fails if it succeeded.
func refused(t *testing.T, ns *directortest.Namespace, from netip.Addr, to netip.AddrPort) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), silence)
	defer cancel()
	local := netip.AddrPort{}
	if from.IsValid() {
		local = netip.AddrPortFrom(from, 0)
	}
	conn, err := ns.Dial(ctx, "tcp", local, to)
	switch timeout := (interface{ Timeout() bool })(nil); {
	case err == nil:
		_ = conn.Close()
		t.Errorf("connected from %s to %s", from, to)
		return "connected"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "reset"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "nothing"
	default:
		return err.Error()
	}
}
