package health_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/health"
)

// asDaemon, set in the environment, has TestMain run whatRuns in place of the tests.
const asDaemon = "SHUNT_TEST_AS_DAEMON"

// TestScriptCapabilities runs scripts as the unit's daemon does: a user that is not root,
// with ambient capabilities, becomes another.
func TestScriptCapabilities(t *testing.T) {
	directortest.Privileged(t)
	cmd := exec.Command("/proc/self/exe") // Others may not go through the folders of the test's program.
	cmd.Env = append(os.Environ(), asDaemon+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 1, Gid: 1},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL},
	}
	output, err := cmd.CombinedOutput()
	none := strings.Repeat("0", 16)
	want := "CapAmb:\t00000000000010e0\n" +
		"nobody: Uid:\t65534\t65534\t65534\t65534\nCapPrm:\t" + none + "\nCapEff:\t" + none + "\nCapAmb:\t" + none + "\n" +
		"1: Uid:\t1\t1\t1\t1\nCapPrm:\t" + none + "\nCapEff:\t" + none + "\nCapAmb:\t" + none + "\n"
	if err != nil || string(output) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, output, want)
	}
}

// whatRuns tells the ambient capabilities of this process, and the users and capabilities
// of scripts that it runs: as nobody and as its own user.
func whatRuns() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "CapAmb:") {
			fmt.Print(line)
		}
	}
	for _, user := range []string{"nobody", "1"} {
		script := realserver.ScriptCheck{Command: []string{"/bin/grep", "-E", "^(Uid|CapPrm|CapEff|CapAmb):", "/proc/self/status"}, User: user}
		prober, err := health.NewProber(realserver.Check{Kind: realserver.CheckScript, Script: &script}, health.Target{Server: netip.MustParseAddrPort("192.0.2.7:80")}, nil, health.Env{})
		if err != nil {
			fmt.Println(err)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		result := prober.Probe(ctx)
		cancel()
		prober.Close()
		fmt.Printf("%s: %s\n", user, result.Detail)
		if result.Err != nil {
			fmt.Println(result.Err)
		}
	}
}
