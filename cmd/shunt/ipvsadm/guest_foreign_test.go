package ipvsadm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// others are services that the real ipvsadm makes, of all kinds that Shunt does not
// take.
const others = `-A -t 0.0.0.0:80
-a -t 0.0.0.0:80 -r 10.0.0.1 -m
-A -t 0.0.0.0:0 -p
-A -t 0.1.2.3:80
-A -u 224.0.0.5:80 -o
-A -t 255.255.255.255:80
-A -t [::]:80
-A -t [ff02::5]:80
-a -t [ff02::5]:80 -r [2001:db8::9]:0 -m
-A -t [::ffff:1.2.3.4]:80
-A -t 192.0.2.3:80 -s none
-A -t 192.0.2.4:80 --pe sip
-A -t 192.0.2.5:80 -p 60 -M 255.0.255.0
-A -f 9 -p 60 -M 0.255.0.0
-A -t 192.0.2.6:80
-a -t 192.0.2.6:80 -r 10.0.0.1:0 -m -w 2
-a -t 192.0.2.6:80 -r 10.0.0.1:80 -m -w 3
-a -t 192.0.2.6:80 -r 10.0.0.2:0 -i
`

// Somebody else's services are listed as ipvsadm lists them, whatever they are, and
// stand in no other's way.
func TestGuestOthers(t *testing.T) {
	p := newPair(t)
	made := reals(t, p.own, others, "-R")
	if diff := cmp.Diff(reals(t, p.real, others, "-R"), made); diff != "" || made.Err != "" || made.Status != 0 {
		t.Fatalf("ipvsadm -R: %+v\n%s", made, diff)
	}
	p.sameLists(t, "what others made")
	for line := range strings.Lines(others) {
		if !strings.HasPrefix(line, "-A") {
			continue
		}
		args := strings.Fields(line)
		name := strings.Join(args[1:3], " ")
		p.same(t, "-L -n "+name)
		p.same(t, "-Z "+name)
		got := p.ipvsadm(line)
		if want := "Service already exists\n"; !strings.HasPrefix(got.Err, want) || !strings.Contains(got.Err, "not Shunt's") || got.Status != 255 {
			t.Errorf("%s: %+v, want %q", strings.TrimSpace(line), got, want)
		}
		got = p.ipvsadm("-D " + name)
		if want := "No such service\n"; !strings.HasPrefix(got.Err, want) || !strings.Contains(got.Err, "not Shunt's") || got.Status != 255 {
			t.Errorf("-D %s: %+v, want %q", name, got, want)
		}
	}
	for _, line := range []string{
		"-A -t 192.0.2.200:80 -s rr", "-a -t 192.0.2.200:80 -r 10.0.0.7 -g", "-E -t 192.0.2.200:80 -s wrr", "-e -t 192.0.2.200:80 -r 10.0.0.7 -g -w 7",
	} {
		if !p.same(t, line) {
			t.Errorf("ipvsadm %s was refused", line)
		}
	}
	p.sameLists(t, "changes beside what others made")
	// A save file of all of them is restored where it comes from.
	saved := p.run(saveProgram, "", "-n")
	got := p.run(restoreProgram, saved.Out)
	if !strings.HasPrefix(got.Err, "shunt: services in the kernel that are not Shunt's, and stay there: 13\n") || got.Status != 0 {
		t.Errorf("restore: %+v of\n%s", got, saved.Out)
	}
	p.sameLists(t, "a restore")
	p.same(t, "-D -t 192.0.2.200:80")
	p.sameLists(t, "all was removed again")
}
