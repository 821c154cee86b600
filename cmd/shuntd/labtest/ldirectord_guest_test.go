package labtest

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// furtherCommands are those that ldirectord runs for what the lab's configuration has
// not: firewall marks, tunnels, readdquiescent, and a table that somebody else has
// changed.
const furtherCommands = `-A -f 7 -s wrr -p 600 -M 255.255.255.0
-A -f 7 -6 -s wlc
-A -t 192.0.2.10:25 -s mh -b mh-port
-A -t 192.0.2.10:25 -s rr
-A -t 192.0.2.10:26 -s nosuch
-a -f 7 -x 0 -y 0 -r 10.2.0.11:0 -g -w 1
-a -f 7 -x 0 -y 0 -r 10.2.0.12:80 -m -w 1
-a -f 7 -6 -x 0 -y 0 -r [fd00:2::11]:0 -i -w 1
-a -t 192.0.2.10:25 -x 0 -y 0 -r 10.2.0.11:2525 -m -w 0
-a -t 192.0.2.10:25 -x 0 -y 0 -r 10.2.0.12:2525 -g -w 1
-a -t 192.0.2.10:25 -r 10.2.0.15:25 -m -w 0
-a -t 192.0.2.10:25 -r 10.2.0.15:25 -m -w 1
-e -f 7 -r 10.2.0.11:0 -g -w 0
-e -f 7 -6 -x 5 -y 2 -r [fd00:2::11]:0 -i -w 3
-e -t 192.0.2.10:25 -r 10.2.0.99:25 -m -w 0
-E -f 7 -s wrr
-E -f 7 -6 -s wlc -p 60
-E -t 192.0.2.10:27 -s rr
-d -f 7 -r 10.2.0.11:0
-d -f 7 -6 -r [fd00:2::11]:0
-d -t 192.0.2.10:25 -r 10.2.0.99:25
-D -f 7
-D -f 7 -6
-D -t 192.0.2.10:25
-D -t 192.0.2.10:27
`

// listEvery is after how many commands the lists are compared: a process takes 0.15 s
// in the guest.
const listEvery = 5

// TestGuestLdirectordsCommands runs each command line that ldirectord does by the real
// ipvsadm and by Shunt, each in a network namespace with an IPVS of its own, and
// compares what they say, and what ldirectord reads between them.
func TestGuestLdirectordsCommands(t *testing.T) {
	ipvs.Guest(t)
	var lines []string
	for _, text := range []string{knownCommands(t, "quiescent"), knownCommands(t, "removing"), furtherCommands} {
		for line := range strings.Lines(text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	// In an order in which most are obeyed.
	slices.SortStableFunc(lines, func(a, b string) int {
		const order = "AaeEdD"
		return cmp.Compare(strings.IndexByte(order, a[1]), strings.IndexByte(order, b[1]))
	})

	d := kernelDaemon(t, newNamespace(t, "shunt"))
	link := filepath.Join(t.TempDir(), "ipvsadm")
	if err := os.Symlink(filepath.Join(binaries, "shunt"), link); err != nil {
		t.Fatal(err)
	}
	ours := func(args ...string) result {
		cmd := d.ns.Command(t.Context(), link, args...)
		cmd.Env = []string{"SHUNT_SOCKET=" + d.socket}
		return execute(t, cmd)
	}
	real := newNamespace(t, "ipvsadm")
	reals := func(args ...string) result {
		return execute(t, real.Command(t.Context(), "/usr/sbin/ipvsadm", args...))
	}

	obeyed := 0
	for i, line := range lines {
		want, got := reals(strings.Fields(line)...), ours(strings.Fields(line)...)
		if d := diff.Diff(want, got, diff.AllowUnexported(result{})); d != "" {
			t.Errorf("ipvsadm %s (-real +ours):\n%s", line, d)
		}
		if want.code == 0 {
			obeyed++
		}
		if i%listEvery != 0 && i != len(lines)-1 {
			continue
		}
		for _, list := range [][]string{{"-L", "-n"}, {"-L", "-n", "--thresholds"}} {
			want, got := reals(list...), ours(list...)
			if d := diff.Diff(want, got, diff.AllowUnexported(result{})); d != "" {
				t.Fatalf("behind ipvsadm %s, ipvsadm %s (-real +ours):\n%s", line, strings.Join(list, " "), d)
			}
		}
	}
	if obeyed < len(lines)*2/3 {
		t.Errorf("only %d of %d command lines are obeyed", obeyed, len(lines))
	}
	t.Logf("%d command lines, %d obeyed", len(lines), obeyed)
}

func newNamespace(t *testing.T, name string) *directortest.Namespace {
	t.Helper()
	n, err := directortest.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ok(t, n.Close()) })
	return n
}

// kernelDaemon starts a daemon whose data plane is the kernel's IPVS.
func kernelDaemon(t *testing.T, ns *directortest.Namespace) *daemon {
	t.Helper()
	folder, err := os.MkdirTemp("", "shunt-lab-") // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	d := &daemon{ns: ns, socket: filepath.Join(folder, "s"), state: filepath.Join(folder, "state")}
	d.args = []string{"--dataplane", "ipvs", "--socket", d.socket, "--state", d.state}
	t.Cleanup(func() {
		if d.process != nil {
			d.kill()
		}
		if t.Failed() && d.log != nil {
			t.Logf("shuntd said:\n%s", d.log)
		}
	})
	d.start(t)
	return d
}
