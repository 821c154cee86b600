package ipvsadm_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// result is what a program leaves behind.
type result struct {
	Exit   int
	Stdout string
	Stderr string
}

// real runs the real ipvsadm.
func real(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return run(t, "/usr/sbin/ipvsadm", stdin, append([]string{"ipvsadm"}, args...)...)
}

// run runs a program with all its arguments, its name among them.
func run(t *testing.T, path, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Cmd{Path: path, Args: args, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s as %q: %v", path, args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// TestGuestParse compares what Parse refuses with what the real ipvsadm does, and
// how: exit status and every byte. With SHUNT_UPDATE=1 it leaves the record for
// TestParseRecorded in the folder of uml.sh -o.
func TestGuestParse(t *testing.T) {
	ipvs.Guest(t)
	record := ""
	for _, lines := range []struct {
		name     string
		lines    [][]string
		recorded bool
	}{{"matrix", matrix(), true}, {"oddities", oddities, true}, {"drawn", drawn(t), false}} {
		t.Run(lines.name, func(t *testing.T) {
			refused := 0
			for _, line := range lines.lines {
				got := compareParse(t, line)
				if got != (result{}) {
					refused++
				}
				if lines.recorded {
					record += writeRecord(line, got)
				}
			}
			t.Logf("%d command lines, %d refused", len(lines.lines), refused)
		})
	}
	if os.Getenv("SHUNT_UPDATE") != "" {
		if err := os.WriteFile(filepath.Join(os.Getenv("SHUNT_OUT"), filepath.Base(recorded)), []byte(record), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// drawn are as many as SHUNT_IPVSADM_LINES says, from SHUNT_SEED on.
func drawn(t *testing.T) [][]string {
	seed, count := number(t, "SHUNT_SEED", 1), number(t, "SHUNT_IPVSADM_LINES", 150)
	t.Logf("SHUNT_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var lines [][]string
	for range count {
		lines = append(lines, draw(r))
	}
	return lines
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// compareParse returns what ipvsadm does with a line that it refuses; zero if the
// line goes to the kernel.
func compareParse(t *testing.T, line []string) result {
	t.Helper()
	got := real(t, "", line...)
	command, err := ipvsadm.Parse(line)
	if err == nil {
		if !isKernels(command.Operation, got) {
			t.Errorf("%q: accepted as %+v, but ipvsadm says %+v", line, command, got)
		}
		return result{}
	}
	if diff := cmp.Diff(got, outcome(t, err)); diff != "" {
		t.Errorf("%q (-ipvsadm +Parse):\n%s", line, diff)
	}
	return got
}

// isKernels reports whether ipvsadm got as far as the kernel: it was obeyed, or
// says what the kernel refuses.
func isKernels(o ipvsadm.Operation, got result) bool {
	switch got.Exit {
	case 0:
		return got.Stderr == ""
	case ipvsadm.ExitFailed, ipvsadm.ExitRefused:
		return slices.ContainsFunc(errnos(), func(e syscall.Errno) bool {
			return got.Stderr == fmt.Sprintln(ipvsadm.Refusal(o, e))
		})
	default:
		return false
	}
}

// errnos are all that Linux has.
func errnos() []syscall.Errno {
	var all []syscall.Errno
	for e := syscall.EPERM; e <= syscall.ERFKILL; e++ {
		all = append(all, e)
	}
	return all
}
