package ipvsadm

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/xdp"
)

// golden is what the real ipvsadm says to script, written by TestGuestGolden:
//
//	SHUNT_UPDATE=1 CGO_ENABLED=0 SHUNT_GUEST=uml go test -exec "$PWD/scripts/guest/uml.sh -o $PWD/cmd/shunt/ipvsadm/testdata" \
//		-run TestGuestGolden ./cmd/shunt/ipvsadm
const golden = "script.golden"

// script are the lines of the matrix that are for either data plane, and all lists
// after some of them.
func script() []string {
	lacks := regexp.MustCompile(`-f |--sctp-service|-i\b|--tun-type|--pe|-daemon`)
	var lines []string
	for _, line := range matrix() {
		if lacks.MatchString(line) {
			continue
		}
		if lines = append(lines, line); len(lines)%16 == 15 {
			lines = append(lines, "-R")
		}
	}
	return append(lines, "-R")
}

// record writes what a program says to each line of the script: the errors are
// marked, and -R reads lists.
func record(run func(input string, args ...string) result) string {
	var text strings.Builder
	for _, line := range script() {
		r := run(lists, strings.Fields(line)...)
		fmt.Fprintf(&text, "$ ipvsadm %s\n%s", line, r.Out)
		for e := range strings.Lines(r.Err) {
			text.WriteString("! " + e)
		}
		if r.Status != 0 {
			fmt.Fprintf(&text, "status %d\n", r.Status)
		}
	}
	return text.String()
}

// The golden file is what the real ipvsadm says, so that the comparison on the XDP
// data plane is one with it.
func TestGuestGolden(t *testing.T) {
	guest.Guest(t)
	real := namespace(t, "real")
	got := record(func(input string, args ...string) result { return reals(t, real, input, args...) })
	if os.Getenv("SHUNT_UPDATE") != "" {
		if err := os.WriteFile(filepath.Join(os.Getenv("SHUNT_OUT"), golden), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(readGolden(t), got); diff != "" {
		t.Errorf("%s is not what ipvsadm says (-it +ipvsadm):\n%s", golden, diff)
	}
}

func readGolden(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", golden))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// openXDP returns the XDP data plane on an interface of a namespace.
func openXDP(t *testing.T) *xdp.Dataplane {
	t.Helper()
	directortest.Privileged(t)
	pins := filepath.Join(directortest.Bpffs(t), "pins")
	ns, peer := namespace(t, "director"), namespace(t, "peer")
	if err := ns.AddVeth("eth0", peer, "eth0", 1500); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddAddress("eth0", netip.MustParsePrefix("10.0.0.254/24")); err != nil {
		t.Fatal(err)
	}
	var dp *xdp.Dataplane
	err := ns.Do(func() (err error) {
		dp, err = xdp.Open(t.Context(), xdp.Options{
			Interfaces: []string{"eth0"}, PinDir: pins, MaxConnections: 4096, MaxServers: 4096, MaxServices: 512, SchedulerWords: 1 << 21,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dp.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return dp
}

// On the XDP data plane the same lines are answered in the same words. What
// differs is the size of the table, which is another one.
func TestXDPGolden(t *testing.T) {
	d := serve(t, openXDP(t))
	size := regexp.MustCompile(`\(size=\d+\)`)
	got := record(func(input string, args ...string) result { return d.run(program, input, args...) })
	if !size.MatchString(got) {
		t.Error("there is no size of the table")
	}
	want := readGolden(t)
	if n := strings.Count(want, "$ ipvsadm "); n < 150 {
		t.Errorf("only %d lines", n)
	}
	if diff := cmp.Diff(strings.Split(size.ReplaceAllString(want, ""), "\n"), strings.Split(size.ReplaceAllString(got, ""), "\n")); diff != "" {
		t.Errorf("on XDP (-ipvsadm +Shunt's):\n%s", diff)
	}
}

// Saved, restored and saved on the programs in the kernel.
func TestXDPSaveRestoreSave(t *testing.T) {
	dp := openXDP(t)
	roundTrip(t, serve(t, dp), every(dp.Features()))
}

// And on the kernel's IPVS, where the real ipvsadm saves the same; twos is missing
// in the guest.
func TestGuestSaveRestoreSave(t *testing.T) {
	p := newPair(t)
	var lines strings.Builder
	for _, group := range strings.SplitAfter(every(director.IPVSFeatures()), "\n-A ") {
		if !strings.Contains(group, " -s twos") {
			lines.WriteString(group)
		}
	}
	roundTrip(t, p.daemon, strings.TrimSuffix("-A "+strings.TrimPrefix(lines.String(), "-A "), "\n-A "))
	saved := reals(t, p.own, "", "-S", "-n")
	if diff := cmp.Diff(saved, p.run(saveProgram, "", "-n")); diff != "" {
		t.Errorf("-S (-real +Shunt's):\n%s", diff)
	}
	// What the real one saved is restored by Shunt's, and the other way round.
	p.script("-C")
	if got := p.run(restoreProgram, saved.Out); got != (result{}) {
		t.Fatalf("restore what the real one saved: %+v", got)
	}
	if got := reals(t, p.real, p.saved(), "-R"); got != (result{}) {
		t.Fatalf("the real one restores what Shunt's saved: %+v", got)
	}
	p.sameLists(t, "the restore")
}

// Half applied to the kernel is nothing either.
func TestGuestMangled(t *testing.T) {
	p := newPair(t)
	mangle(t, p.daemon, 80, func() string { return reals(t, p.own, "", "-S", "-n").Out })
}
