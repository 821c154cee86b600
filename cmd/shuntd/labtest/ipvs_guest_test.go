package labtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// saved is what the real ipvsadm saves of the kernel's services.
func (d *daemon) saved(t *testing.T) []string {
	t.Helper()
	r := execute(t, d.ns.Command(t.Context(), "ipvsadm", "-S", "-n"))
	if r.code != 0 {
		t.Fatalf("ipvsadm -Sn: %s", r.stderr)
	}
	var lines []string
	for line := range strings.Lines(r.stdout) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// wantSaved compares it.
func (d *daemon) wantSaved(t *testing.T, when string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.saved(t)); diff != "" {
		t.Errorf("%s: ipvsadm -Sn (-want +got):\n%s", when, diff)
	}
}

// answerer is who answers at the address.
func answerer(t *testing.T, client *http.Client, to netip.AddrPort) string {
	t.Helper()
	got, err := client.Get(fmt.Sprintf("http://%s/", to))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if _, err := io.Copy(io.Discard, got.Body); err != nil {
		t.Error(err)
	}
	return got.Header.Get(directortest.HeaderServer)
}

// The daemon directs the kernel's IPVS: what shunt says the real ipvsadm sees, traffic
// outlives the daemon, and what is somebody else's is left alone.
func TestGuestDaemon(t *testing.T) {
	ipvs.Guest(t)
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 2, Forwarding: directortest.On})
	if _, err := lab.ServeHTTP(8080); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-A", "-u", "192.0.2.99:53", "-s", "sh"}, {"-a", "-u", "192.0.2.99:53", "-r", "10.2.0.99", "-m"}} {
		if r := execute(t, lab.Director.Command(t.Context(), "ipvsadm", args...)); r.code != 0 {
			t.Fatalf("ipvsadm %v: %s", args, r.stderr)
		}
	}
	foreign := []string{"-A -u 192.0.2.99:53 -s sh", "-a -u 192.0.2.99:53 -r 10.2.0.99:53 -m -w 1"}
	web := netip.AddrPortFrom(vip4, 80)
	servers := []string{
		"-a -t 192.0.2.10:80 -r 10.2.0.11:8080 -m -w 1",
		"-a -t 192.0.2.10:80 -r 10.2.0.12:8080 -m -w 1",
	}
	all := append([]string{"-A -t 192.0.2.10:80 -s rr", servers[0], servers[1]}, foreign...)

	d := kernelDaemon(t, lab.Director)
	d.do(t, `
		service add tcp://192.0.2.10:80 --name web --scheduler rr
		server add web 10.2.0.11:8080 --method nat
		server add web 10.2.0.12:8080 --method nat
	`)
	d.wantSaved(t, "as shunt said", all...)
	if status := read[api.Status](t, d, "status"); status.Dataplane != "ipvs" || status.Services != 1 || len(status.Interfaces) != 0 {
		t.Errorf("status %+v, want one service on ipvs", status)
	}
	for _, field := range []string{"CapEff", "CapPrm", "CapBnd"} {
		if got := status(t, d.process.Process.Pid, field); got != fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN|1<<unix.CAP_NET_RAW) {
			t.Errorf("%s is %s, want CAP_NET_ADMIN, and CAP_NET_RAW for pings, alone", field, got)
		}
	}
	wantReady(t, d)

	held := lab.Client.HTTPClient(directortest.ClientOptions{KeepAlive: directortest.On})
	t.Cleanup(held.CloseIdleConnections)
	fresh := lab.Client.HTTPClient(directortest.ClientOptions{})
	name := answerer(t, held, web)
	flows := func(when string) {
		t.Helper()
		if again := answerer(t, held, web); again != name {
			t.Errorf("%s: the connection went to %s, want %s", when, again, name)
		}
		got := map[string]int{}
		for range 4 {
			got[answerer(t, fresh, web)]++
		}
		if want := map[string]int{"server1": 2, "server2": 2}; !cmp.Equal(want, got) {
			t.Errorf("%s: answers %v, want %v", when, got, want)
		}
	}
	flows("with the daemon")
	if list := d.shunt(t, "conn", "list", "--service", "web"); !strings.Contains(list, "ESTABLISHED") {
		t.Errorf("no established connection is listed:\n%s", list)
	}

	d.stop(t)
	flows("after its end")
	d.start(t)
	d.wantSaved(t, "after a restart", all...)
	flows("after a restart")

	d.kill()
	flows("after kill -9")
	if r := execute(t, lab.Director.Command(t.Context(), "ipvsadm", "-E", "-t", "192.0.2.10:80", "-s", "sh")); r.code != 0 {
		t.Fatal(r.stderr)
	}
	d.start(t)
	d.wantSaved(t, "after kill -9 and a restart", all...)
	flows("after kill -9 and a restart")
	if drift := d.shunt(t, "drift"); !strings.Contains(drift, "udp://192.0.2.99:53") {
		t.Errorf("the foreign service is not shown:\n%s", drift)
	}

	// Detach takes what is Shunt's, whether a daemon is there or not.
	d.shunt(t, "detach")
	d.wait(t)
	d.wantSaved(t, "after detach", foreign...)
	noAddress(t, lab.Director, "after detach")
	d.start(t)
	d.wantSaved(t, "started again", all...)
	d.kill()
	cmd := lab.Director.Command(t.Context(), filepath.Join(binaries, "shuntd"), "detach", "--dataplane", "ipvs", "--state", d.state)
	if r := execute(t, cmd); r.code != 0 {
		t.Errorf("shuntd detach: %s", r.stderr)
	}
	d.wantSaved(t, "after shuntd detach", foreign...)
	noAddress(t, lab.Director, "after shuntd detach")
}

// noAddress wants no virtual address on the host.
func noAddress(t *testing.T, ns *directortest.Namespace, when string) {
	t.Helper()
	if r := execute(t, ns.Command(t.Context(), "ip", "address", "show", "dev", "lo")); strings.Contains(r.stdout, vip4.String()) {
		t.Errorf("%s: the virtual address is on the host:\n%s", when, r.stdout)
	}
}

// wantReady asks the daemon whether it is ready.
func wantReady(t *testing.T, d *daemon) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		},
	}}
	answer, err := client.Get("http://shuntd/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("readyz: %s, %v: %s", answer.Status, err, text)
	}
}
