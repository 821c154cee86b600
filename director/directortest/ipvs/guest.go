package ipvs

import (
	"os"
	"testing"
)

// GuestEnv names the variable that says that the tests run in a guest: in
// user-mode-linux by scripts/guest/uml.sh, or in QEMU by scripts/guest/run.sh -I.
const GuestEnv = "SHUNT_GUEST"

// Guest skips the test outside a guest. In one without IPVS the test fails: a
// module that is missing must not pass.
func Guest(t testing.TB) {
	t.Helper()
	if os.Getenv(GuestEnv) == "" {
		t.Skipf("needs a kernel with IPVS that is not the host's: set %s in a guest, as scripts/check.sh differential does", GuestEnv)
	}
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Fatalf("%s is set, but the kernel has no IPVS: %v", GuestEnv, err)
	}
}
