package ldirectord_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// ldirectordLimit is how long the real ldirectord may take; a guest is slow.
const ldirectordLimit = 300 * time.Second

// TestGuestLdirectord lets the real ldirectord set up the kernel by the fixtures
// that have no checks, and compares what is there with what they translate to.
func TestGuestLdirectord(t *testing.T) {
	ipvs.Guest(t)
	for _, name := range []string{"kernel.cf", "lenient.cf"} {
		t.Run(name, func(t *testing.T) { asked(t, name) })
	}
}

// asked compares a fixture's translation with what ldirectord makes of it, and
// empties the kernel's table.
func asked(t *testing.T, name string) {
	want := imported(t, name).State
	path, err := filepath.Abs(filepath.Join("testdata", "fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/ldirectord", "-d", path, "start")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Logf("ldirectord: %v", err)
		}
		if left := ipvs.Ipvsadm(t, nil, "", "-C"); left != (ipvs.Result{}) {
			t.Errorf("ipvsadm -C: %+v", left)
		}
	}()
	if diff := ipvs.Await(t, want, ldirectordLimit); diff != "" {
		t.Errorf("the kernel has (-translated +kernel):\n%s\nldirectord said:\n%s", diff, log.String())
	}
}
