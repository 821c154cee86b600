package ipvsadm

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/director"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/directortest"
	guest "github.com/shunt-lb/shunt/director/directortest/ipvs"
)

// Mangled save files, and words in any order, crash nothing and change all that
// they say, and no more, or nothing.
func TestMangled(t *testing.T) {
	d, _ := fake(t, director.PlaneIPVS)
	mangle(t, d, 400, d.saved)
}

// did compares what a restore by the program has left, and what the data plane holds
// of it, with what the lines of the input come to on the state before.
func (d *daemon) did(t *testing.T, called, input string, before director.State, holds string) {
	t.Helper()
	text, said := []byte(input), newTable(before)
	if called == restoreProgram {
		text, said.state.Services = language.StripComments(text), nil
	}
	for _, line := range (language.Parser{Program: called, Names: language.System{}}).Restore(text) {
		if line.Err != nil {
			t.Fatalf("%q: made a revision in spite of %v", input, line.Err)
		}
		if !isChange(line.Command.Operation) {
			continue
		}
		if r := said.change(line.Command); r != nil {
			t.Fatalf("%q: made a revision in spite of %v", input, r)
		}
	}
	want := guest.Comparable(said.state)
	if diff := cmp.Diff(want, guest.Comparable(d.director.State()), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%q: (-said +done):\n%s", input, diff)
	}
	saved, omitted := language.Writer{}.Save(want.Services)
	if len(omitted) > 0 {
		t.Fatalf("%q: %v", input, omitted)
	}
	if diff := cmp.Diff(inOrder(saved), inOrder(holds)); diff != "" {
		t.Fatalf("%q: (-said +held):\n%s", input, diff)
	}
}

// inOrder returns the lines sorted: ipvsadm's order depends on the kernel's.
func inOrder(text string) []string {
	return slices.Sorted(strings.Lines(text))
}

// mangle hands inputs to the daemon; holds is what its data plane holds.
func mangle(t *testing.T, d *daemon, inputs int, holds func() string) {
	t.Helper()
	random := directortest.Random(t)
	good := every(director.IPVSFeatures())
	groups := strings.Split(strings.TrimPrefix(good, "-A"), "\n-A")
	for i := range groups {
		groups[i] = strings.TrimSuffix(groups[i], "\n") + "\n"
	}
	words := strings.Fields(good + " -A -E -D -C -R -S -L -Z -a -e -d -n -c --set --start-daemon --stop-daemon master backup --syncid 7 -x -y 5 --nope -h -v \x00 - -- -at -Ln --stats= http :: [] [::]:0 999999999999999999999 -1 0x10")
	changed := 0
	for range inputs {
		var input string
		switch random.IntN(2) {
		case 0: // a file with wounds, or none
			var text []byte
			for range 1 + random.IntN(3) {
				text = append(text, "-A"+groups[random.IntN(len(groups))]...)
			}
			for range random.IntN(3) {
				at := random.IntN(len(text))
				switch random.IntN(3) {
				case 0:
					text[at] = byte(random.IntN(256))
				case 1:
					text = append(text[:at:at], text[min(len(text), at+random.IntN(40)):]...)
				default:
					text = append(text[:at:at], append([]byte(words[random.IntN(len(words))]+" "), text[at:]...)...)
				}
			}
			input = string(text)
		default:
			for range 1 + random.IntN(4) {
				for range 1 + random.IntN(8) {
					input += words[random.IntN(len(words))] + " "
				}
				input += "\n"
			}
		}
		before, head := holds(), d.director.Head()
		called := []string{program, restoreProgram}[random.IntN(2)]
		got := d.run(called, input, "-R")
		revision := head.Number
		switch now := d.director.Head().Number; {
		case got.Status != 0 && got.Err == "":
			t.Fatalf("%q: status %d without a word", input, got.Status)
		case now == revision && holds() != before, now > revision+1:
			t.Fatalf("%q: half applied: revision %d, was %d: %+v", input, now, revision, got)
		case now > revision:
			changed++
			d.did(t, called, input, head.State, holds())
		case got.Status == 0 && strings.Contains(got.Err, "nothing was changed"):
			t.Fatalf("%q: succeeded, and did not: %+v", input, got)
		}
		line := strings.Fields(input)[:min(6, len(strings.Fields(input)))]
		if got := d.run(program, input, line...); got.Status != 0 && got.Err == "" {
			t.Fatalf("%q: status %d without a word", line, got.Status)
		}
	}
	t.Logf("%d of %d inputs changed something", changed, inputs)
	if changed == 0 {
		t.Error("no input changed anything: the draws are bad")
	}
}
