package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// limit ends a wait that leads nowhere, on a machine with much else to do too: where a
// start takes a second it has been seen to take fifteen.
const limit = time.Minute

// binaries is the folder with shuntd and shunt, built once for all tests.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// binariesEnv names the folder of binaries that were built before: in a guest there
// is no compiler.
const binariesEnv = "SHUNT_BIN"

func run(m *testing.M) int {
	if binaries = os.Getenv(binariesEnv); binaries == "" {
		folder, err := build()
		defer os.RemoveAll(folder)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		binaries = folder
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// build builds the binaries as the Makefile does; other users may run them.
func build() (string, error) {
	folder, err := os.MkdirTemp("", "shunt-bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		return folder, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", folder+string(filepath.Separator),
		"github.com/shunt-lb/shunt/cmd/shuntd", "github.com/shunt-lb/shunt/cmd/shunt",
		"github.com/shunt-lb/shunt/cmd/shunt-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return folder, fmt.Errorf("build the binaries: %w\n%s", err, out)
	}
	return folder, nil
}
