package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

func TestDescribeTables(t *testing.T) {
	want := "connection tables: 1Mi IPv4, 256Ki IPv6, 176.0 MiB"
	if got := describeTables(1<<20, 1<<18, 176<<20); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDataplaneFlag(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "")
	if got := settingsOf(t, "--dataplane", "ipvs"); got.Dataplane != "ipvs" || got.Interfaces != nil {
		t.Errorf("dataplane %q on %v, want ipvs without an interface", got.Dataplane, got.Interfaces)
	}
	if got := settingsOf(t, "--interface", "eth0"); got.Dataplane != "xdp" {
		t.Errorf("dataplane %q, want xdp", got.Dataplane)
	}
	// What a file says for XDP alone does no harm to the other.
	if got := settingsOf(t, "--config", "testdata/full.yaml", "--dataplane", "ipvs"); got.Dataplane != "ipvs" {
		t.Errorf("dataplane %q, want ipvs", got.Dataplane)
	}
	marked := filepath.Join(t.TempDir(), "marked.yaml")
	if err := os.WriteFile(marked, []byte("services: [{listen: 'fwmark://7', servers: []}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := settingsOf(t, "--config", marked, "--dataplane", "ipvs"); got.Dataplane != "ipvs" {
		t.Errorf("dataplane %q, want ipvs", got.Dataplane)
	}
	for args, want := range map[string]string{
		"--config " + marked + " --interface eth0": marked + ":1:21: services[0] fwmark://7: a service of a firewall mark is not there on the xdp data plane",
		"--dataplane dpdk":                         `--dataplane: unknown data plane "dpdk": want xdp or ipvs`,
		"--dataplane=":                             "--dataplane: the value is empty",
		"--dataplane ipvs --interface eth0":        "--interface is for the xdp data plane: leave it out with ipvs",
		"--dataplane ipvs --generic":               "--generic is for the xdp data plane: leave it out with ipvs",
		"--dataplane ipvs --pin-dir /p":            "--pin-dir is for the xdp data plane: leave it out with ipvs",
		"--dataplane ipvs --max-connections 64Ki":  "--max-connections is for the xdp data plane: leave it out with ipvs",
		"detach --dataplane dpdk":                  `--dataplane: unknown data plane "dpdk": want xdp or ipvs`,
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"shuntd"}, strings.Fields(args)...), &stdout, &stderr)
		first, _, _ := strings.Cut(stderr.String(), "\n")
		if code != exitUsage || stdout.Len() > 0 || first != "shuntd: "+want {
			t.Errorf("%q: code %d, stdout %q, stderr %q: want %q", args, code, stdout.String(), stderr.String(), want)
		}
	}
}

func TestKernelWithoutIPVS(t *testing.T) {
	var stderr bytes.Buffer
	code := report(&stderr, fmt.Errorf("open the data plane: %w", kernel.ErrNotLoaded))
	want := "shuntd: open the data plane: " + kernel.ErrNotLoaded.Error() +
		"\nhint: modprobe ip_vs, and name it in a file in /etc/modules-load.d for the next boot; or use --dataplane xdp\n"
	if code != exitFailed || stderr.String() != want {
		t.Errorf("code %d, %q, want %q", code, stderr.String(), want)
	}
}

func TestSecondDaemonOfIPVS(t *testing.T) {
	var stderr bytes.Buffer
	code := report(&stderr, fmt.Errorf("open the data plane: %w: process 7", ipvs.ErrInUse))
	want := "shuntd: open the data plane: another shuntd manages the kernel's IPVS in this network namespace: process 7\n" +
		"hint: stop it first, or run this one in a network namespace of its own: each has one IPVS\n"
	if code != exitFailed || stderr.String() != want {
		t.Errorf("code %d, %q, want %q", code, stderr.String(), want)
	}
}

func TestCapabilitiesByPlane(t *testing.T) {
	for plane, want := range map[string][]cap.Value{
		"xdp":  {cap.NET_ADMIN, cap.BPF, cap.PERFMON, cap.NET_RAW},
		"ipvs": {cap.NET_ADMIN, cap.NET_RAW},
	} {
		if diff := cmp.Diff(want, neededBy(plane)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", plane, diff)
		}
	}
}

// What is Shunt's is what the newest revision has and what was intended since: of
// the latter, who put the address on the host is not known.
func TestOurs(t *testing.T) {
	store := &directortest.Store{}
	web := director.Service{Key: mustKey(t, "tcp://192.0.2.1:80"), VIP: director.VIPManaged}
	dns := director.Service{Key: mustKey(t, "udp://192.0.2.1:53"), VIP: director.VIPExternal}
	daemon := director.SyncDaemon{Role: director.SyncMaster}
	head := director.State{Services: []director.Service{web}, Sync: []director.SyncDaemon{daemon}}
	if err := errors.Join(
		store.Append(director.Revision{RevisionInfo: director.RevisionInfo{Number: 1}, State: head}),
		store.Intend([]director.ServiceKey{web.Key, dns.Key}),
	); err != nil {
		t.Fatal(err)
	}
	got, err := ours(store)
	want := director.State{Services: []director.Service{web, dns}, Sync: []director.SyncDaemon{daemon}}
	if err != nil || len(got.Services) != 2 || !got.Services[0].Identical(web) || !got.Services[1].Identical(dns) || len(got.Sync) != 1 {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// Without revisions nothing is Shunt's, and none are made.
func TestDetachWithoutRevisions(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"shuntd", "detach", "--dataplane", "ipvs", "--state", state}, &stdout, &stderr); code != exitOK ||
		!strings.Contains(stderr.String(), "nothing to detach") {
		t.Errorf("code %d, %q", code, stderr.String())
	}
	if files, err := filepath.Glob(state + "*"); err != nil || files != nil {
		t.Errorf("made %v, %v", files, err)
	}
}

func mustKey(t *testing.T, url string) director.ServiceKey {
	t.Helper()
	key, err := director.ParseServiceKey(url)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestIPVSBesideXDP: programs that take the packets make another data plane one
// that nobody sees.
func TestIPVSBesideXDP(t *testing.T) {
	pins := t.TempDir()
	if err := os.WriteFile(filepath.Join(pins, "settings"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openIPVS(t.Context(), config.Settings{PinDir: pins}, slog.New(slog.DiscardHandler))
	wrong, ok := errors.AsType[*usageError](err)
	if want := "the programs of the data plane xdp are in the kernel still (" + pins + "), and take the packets"; !ok || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}
	if !strings.Contains(wrong.hint, "shuntd detach --pin-dir "+pins) {
		t.Errorf("hint %q", wrong.hint)
	}
}
