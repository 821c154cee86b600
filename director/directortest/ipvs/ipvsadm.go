package ipvs

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

// Result is what a program left. Comparable.
type Result struct {
	Out, Err string
	Status   int
}

// Ipvsadm runs the real ipvsadm in the namespace, nil for the test's own, with the
// input.
func Ipvsadm(t testing.TB, in *directortest.Namespace, input string, args ...string) Result {
	t.Helper()
	if in == nil {
		return Run(t, exec.CommandContext(t.Context(), "ipvsadm", args...), input)
	}
	cmd := in.Command(t.Context(), "ipvsadm", args...)
	return result(t, cmd.Cmd, cmd.Run, input)
}

// Run runs the program, which may fail, with the input.
func Run(t testing.TB, cmd *exec.Cmd, input string) Result {
	t.Helper()
	return result(t, cmd, cmd.Run, input)
}

// result runs the program by a function: in a namespace it is not its own.
func result(t testing.TB, cmd *exec.Cmd, run func() error, input string) Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	err := run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", cmd, err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}
