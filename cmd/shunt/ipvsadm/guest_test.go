package ipvsadm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs"
)

// lists are all modes of -L, and -S, as the input of -R: one process of the real
// ipvsadm shows them all. The order of services with --nosort changes from
// namespace to namespace, so that is for one service.
const lists = `-L -n
-L -n --stats
-L -n --rate
-L -n --stats --exact
-L -n --rate --exact
-L -n --thresholds
-L -n --persistent-conn
-L -n --tun-info
-L -n -c
-L -n -c --persistent-conn
-L --timeout
-L --daemon
-S -n
`

// pair is Shunt's ipvsadm, over a daemon of the IPVS data plane, and the real one,
// each in a namespace with an IPVS of its own in the same kernel.
type pair struct {
	*daemon
	own, real *directortest.Namespace
}

// newPair makes one. Outside the guest the test is skipped.
func newPair(t *testing.T) *pair {
	t.Helper()
	guest.Guest(t)
	p := &pair{own: namespace(t, "shunt"), real: namespace(t, "real")}
	var dp *ipvs.Dataplane
	if err := p.own.Do(func() (err error) {
		dp, err = ipvs.Open(t.Context(), ipvs.Options{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dp.Close(); err != nil {
			t.Error(err)
		}
	})
	p.daemon = serve(t, dp)
	return p
}

func namespace(t *testing.T, name string) *directortest.Namespace {
	t.Helper()
	n, err := directortest.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// reals runs the real ipvsadm in the namespace.
func reals(t testing.TB, n *directortest.Namespace, input string, args ...string) result {
	t.Helper()
	return guest.Ipvsadm(t, n, input, args...)
}

// same runs a command line by both and compares what they say.
func (p *pair) same(t *testing.T, line string) (taken bool) {
	t.Helper()
	args := strings.Fields(line)
	want, got := reals(t, p.real, "", args...), p.run("ipvsadm", "", args...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ipvsadm %s (-real +Shunt's):\n%s", line, diff)
	}
	return want.Status == 0
}

// sameLists compares all lists.
func (p *pair) sameLists(t *testing.T, after string) {
	t.Helper()
	want, got := reals(t, p.real, lists, "-R"), p.run("ipvsadm", lists, "-R")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lists after %s (-real +Shunt's):\n%s", after, diff)
	}
}

// Command lines from the matrix of options that the kernel takes or refuses, in
// sequences that fill a table and empty it again. A process costs dearly in the
// guest, so the real ipvsadm reads several lines by -R: it goes on after one that
// the kernel refuses. Statuses of single lines are compared by TestGuestDrawn.
func TestGuestMatrix(t *testing.T) {
	p := newPair(t)
	var lines []string
	var got result
	taken, refused := 0, 0
	flush := func() {
		want := reals(t, p.real, strings.Join(lines, "\n")+"\n", "-R")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n(-real +Shunt's):\n%s", strings.Join(lines, "\n"), diff)
		}
		p.sameLists(t, strings.Join(lines, "\n"))
		lines, got = nil, result{}
		if t.Failed() {
			t.Fatalf("after %d lines", taken+refused)
		}
	}
	for _, line := range matrix() {
		// ipvsadm waits for ever for the end of a sync daemon that has not run
		// yet (see director/ipvs/kernel, StopSync): others run meanwhile.
		if strings.HasPrefix(line, "--stop-daemon") && len(lines) > 0 {
			flush()
		}
		r := p.ipvsadm(line)
		if r.Status == language.ExitUsage { // it would end -R
			if len(lines) > 0 {
				flush()
			}
			if want := reals(t, p.real, "", strings.Fields(line)...); want != r {
				t.Errorf("ipvsadm %s: %+v, of the real one %+v", line, r, want)
			}
			refused++
			continue
		}
		got = result{Out: got.Out + r.Out, Err: got.Err + r.Err, Status: r.Status}
		if r.Status == 0 {
			taken++
		} else {
			refused++
		}
		lines = append(lines, line)
		// A list that fails ends -R too.
		if len(lines) == 15 || r.Status == language.ExitFailed {
			flush()
		}
	}
	if len(lines) > 0 {
		flush()
	}
	t.Logf("taken: %d, refused: %d", taken, refused)
	if taken < 150 || refused < 50 {
		t.Error("the matrix is too small")
	}
}

// Drawn command lines, one at a time, with the status of each.
func TestGuestDrawn(t *testing.T) {
	p := newPair(t)
	random := directortest.Random(t)
	taken, refused := 0, 0
	for i := range 150 {
		line := drawn(random)
		if strings.HasPrefix(line, "--stop-daemon") {
			p.sameLists(t, "before "+line) // as in TestGuestMatrix: time for the daemon
		}
		if p.same(t, line) {
			taken++
		} else {
			refused++
		}
		if i%10 == 9 {
			p.sameLists(t, line)
		}
		if t.Failed() {
			t.Fatalf("after %d lines", i+1)
		}
	}
	t.Logf("taken: %d, refused: %d", taken, refused)
	if taken < 25 || refused < 25 {
		t.Error("the draws are bad")
	}
}

// Without -n the names of hosts and ports are shown, and saved.
func TestGuestNames(t *testing.T) {
	p := newPair(t)
	for _, line := range []string{
		"-A -t 127.0.0.1:80", "-a -t 127.0.0.1:http -r localhost:https -m", "-a -t 127.0.0.1:80 -r 127.0.0.1:1 -m",
		"-A -t [::1]:443", "-a -t [::1]:443 -r [::1]:80 -g", "-A -f 7", "-a -f 7 -r 127.0.0.1:80 -m", "-a -f 7 -r nowhere.invalid -m",
		"-A -u 127.0.0.1:domain", "-A -u 127.0.0.1:http", "-A --sctp-service 127.0.0.1:80",
	} {
		p.same(t, line)
	}
	for _, line := range []string{"", "-L", "-l", "-S", "-L --stats", "-L -t 127.0.0.1:http", "-L -c"} {
		p.same(t, line)
	}
	if out := p.ipvsadm("-L").Out; !strings.Contains(out, "  -> localhost:https ") {
		t.Errorf("there are no names:\n%s", out)
	}
}
