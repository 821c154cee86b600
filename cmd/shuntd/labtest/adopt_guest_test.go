package labtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// What is adopted and exported is there again, as the real ipvsadm saves it, after the
// kernel has lost it and Shunt its state. What could not be kept so is not adopted.
func TestGuestAdoptExportRestore(t *testing.T) {
	ipvs.Guest(t)
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	ipvsadm := func(line string) {
		t.Helper()
		if r := execute(t, lab.Director.Command(t.Context(), "ipvsadm", strings.Fields(line)...)); r.code != 0 {
			t.Fatalf("ipvsadm %s: %s", line, r.stderr)
		}
	}
	d := kernelDaemon(t, lab.Director)
	for _, line := range []string{
		"-A -t 192.0.2.1:80 -s wlc -p 50 -M 255.255.0.0", "-a -t 192.0.2.1:80 -r 10.2.0.11:8080 -m -w 3",
		"-A -t 192.0.2.2:80 -s wlc -p 50 -M 255.0.255.0",
		"-A -f 7 -s mh -b mh-port", "-a -f 7 -r 10.2.0.11 -i --tun-type gue --tun-port 5555 --tun-csum",
	} {
		ipvsadm(line)
	}
	r := d.try(t, "import", "--adopt", "--why", "ipvsadm is gone") // at once: no list is waited for
	if want := "adopted tcp://192.0.2.1:80\nadopted fwmark://7\n"; r.code != 1 || r.stdout != want {
		t.Errorf("exit %d, output\n%swant 1 and\n%s", r.code, r.stdout, want)
	}
	if want := "adopt service tcp://192.0.2.2:80: service tcp://192.0.2.2:80: netmask 255.0.255.0 of clients is no prefix"; !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "1 of 3 services could not be adopted") {
		t.Errorf("errors\n%swant %s", r.stderr, want)
	}
	await(t, "the foreign service with its mask", func() bool {
		return strings.Contains(d.try(t, "service", "show", "tcp://192.0.2.2:80").stdout, "50s for each 255.0.255.0")
	})
	ipvsadm("-D -t 192.0.2.2:80")
	saved := d.saved(t)
	file := filepath.Join(t.TempDir(), "exported.yaml")
	if err := os.WriteFile(file, []byte(d.shunt(t, "export")), 0o600); err != nil {
		t.Fatal(err)
	}

	d.stop(t)
	ipvsadm("-C")
	if err := os.RemoveAll(d.state); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	d.wantSaved(t, "started anew")
	d.shunt(t, "sync", "start", "backup", "--interface", "lo")
	d.shunt(t, "apply", "-f", file, "--yes")
	d.wantSaved(t, "restored", saved...)
	if list := d.shunt(t, "sync", "list"); !strings.Contains(list, "no sync daemon runs") {
		t.Errorf("there was none:\n%s", list)
	}
}
