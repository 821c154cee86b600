package keepalived_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// keepalivedLimit is how long the real keepalived may take; a guest is slow.
const keepalivedLimit = 60 * time.Second

// TestGuestKeepalived lets the real keepalived set up the kernel by the fixtures
// that have no checkers, and compares what is there with what they translate to.
// That is also what tells mistakes that keepalived forgives from those it does not.
func TestGuestKeepalived(t *testing.T) {
	ipvs.Guest(t)
	for _, args := range [][]string{{"link", "add", "dummy0", "type", "dummy"}, {"addr", "add", "192.0.2.200/24", "dev", "dummy0"}, {"link", "set", "dummy0", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	for name, options := range fixtures {
		if name == "web.conf" || name == "checks.conf" {
			continue // their servers are where no check finds them
		}
		t.Run(name, func(t *testing.T) {
			want := imported(t, name).State
			args := []string{"-n", "-l", "-G", "-D", "-C", "-f", filepath.Join("testdata", "fixtures", name), "-p", "/run/k.pid", "-c", "/run/kc.pid"}
			if options.ID != "" {
				args = append(args, "-i", options.ID)
			}
			cmd := exec.Command("/usr/sbin/keepalived", args...)
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
					t.Logf("keepalived: %v", err)
				}
				if left := ipvs.Installed(t); len(left.Services) > 0 {
					t.Errorf("keepalived left %v", left.Services)
				}
			}()
			if diff := ipvs.Await(t, want, keepalivedLimit); diff != "" {
				t.Errorf("the kernel has (-translated +kernel):\n%s\nkeepalived said:\n%s", diff, log.String())
			}
		})
	}
}
