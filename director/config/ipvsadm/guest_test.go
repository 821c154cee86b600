package ipvsadm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// result is what a program leaves behind.
type result = ipvs.Result

// real runs the real ipvsadm.
func real(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return ipvs.Ipvsadm(t, nil, stdin, args...)
}

// run runs a program with all its arguments, its name among them.
func run(t *testing.T, path string, args ...string) result {
	t.Helper()
	return ipvs.Run(t, &exec.Cmd{Path: path, Args: args}, "")
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
	count := 150
	if text := os.Getenv("SHUNT_IPVSADM_LINES"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatalf("SHUNT_IPVSADM_LINES=%q: want a number", text)
		}
	}
	r := directortest.Random(t)
	var lines [][]string
	for range count {
		lines = append(lines, draw(r))
	}
	return lines
}

// compareParse returns what ipvsadm does with a line that it refuses; zero if the
// line goes to the kernel.
func compareParse(t *testing.T, line []string) result {
	t.Helper()
	got := real(t, "", line...)
	command, err := ipvsadm.Parser{}.Parse(line)
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
	switch got.Status {
	case 0:
		return got.Err == ""
	case ipvsadm.ExitFailed, ipvsadm.ExitRefused:
		return slices.ContainsFunc(errnos(), func(e syscall.Errno) bool {
			return got.Err == fmt.Sprintln(ipvsadm.Refusal(o, e))
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
