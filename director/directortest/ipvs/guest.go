package ipvs

import (
	"os"
	"testing"
)

// GuestEnv names the variable that says which guest the tests run in: uml for
// scripts/guest/uml.sh, qemu for scripts/guest/run.sh.
const GuestEnv = "SHUNT_GUEST"

// Guest skips the test where the variable names no guest with IPVS. Where it does
// and there is no IPVS, the test fails: a module that is missing must not pass.
func Guest(t testing.TB) {
	t.Helper()
	switch guest := os.Getenv(GuestEnv); guest {
	case "uml", "ipvs":
	default:
		t.Skipf("needs a guest with IPVS: %s=%q, run scripts/check.sh differential", GuestEnv, guest)
	}
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Fatalf("%s is set, but the kernel has no IPVS: %v", GuestEnv, err)
	}
}
