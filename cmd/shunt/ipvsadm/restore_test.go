package ipvsadm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
)

const twoServices = `-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1
-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 2
-A -u 192.0.2.1:53 -s wlc -p 300
`

// A restore is all or nothing, and says which line is at fault.
func TestRestoreRefused(t *testing.T) {
	for _, test := range []struct {
		name, program, input string
		args                 []string
		want                 result
	}{
		{"service_exists", program, "-D -u 192.0.2.1:53\n-A -t 192.0.2.1:80\n", []string{"-R"}, result{
			Err: "Service already exists\nshunt: line 2: -A -t 192.0.2.1:80\nshunt: nothing was changed\n", Status: 255,
		}},
		{"server_of_no_service", restoreProgram, "# a comment\n\n-A -t 192.0.2.9:80\n-a -t 192.0.2.1:80 -r 10.0.0.1\n", nil, result{
			Err: "Service not defined\nshunt: line 4: -a -t 192.0.2.1:80 -r 10.0.0.1\nshunt: nothing was changed\n", Status: 255,
		}},
		{"misused", program, "-D -u 192.0.2.1:53\nipvsadm -A -t 192.0.2.1\n-C\n", []string{"-R"}, result{
			Err: "Zero port specified for non-persistent service\nshunt: line 2: -A -t 192.0.2.1\nshunt: nothing was changed\n", Status: 2,
		}},
		{"unknown_option", program, "-C\n-A -t 192.0.2.3:80 --nope\n", []string{"-R"}, result{
			Err: "--nope: unknown option\nshunt: line 2: -A -t 192.0.2.3:80 --nope\nshunt: nothing was changed\n", Status: 255,
		}},
		{"no_command", restoreProgram, "hello\n", nil, result{
			Err: "Try `ipvsadm-restore -h' or 'ipvsadm-restore --help' for more information.\nshunt: line 1: hello\nshunt: nothing was changed\n", Status: 255,
		}},
		{"restore_in_restore", program, "-C\n-R\n", []string{"-R"}, result{
			Err: "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\nshunt: line 2: -R\nshunt: nothing was changed\n", Status: 255,
		}},
		{"not_on_this_plane", program, "-C\n-A -f 7\n", []string{"-R"}, result{
			Err: "Operation not supported\nshunt: apply: services[0] fwmark://7: a service of a firewall mark is not there on the xdp data plane\nhint: " +
				planeHint + "\nshunt: nothing was changed\n", Status: 255,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, dp := fake(t, director.PlaneXDP)
			if got := d.run(program, twoServices, "-R"); got != (result{}) {
				t.Fatalf("-R: %+v", got)
			}
			dp.Operations()
			if diff := cmp.Diff(test.want, d.run(test.program, test.input, test.args...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if ops := dp.Operations(); len(ops) > 0 {
				t.Errorf("the data plane was told %v", ops)
			}
			sorted := "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 2\n-A -u 192.0.2.1:53 -s wlc -p 300\n"
			if diff := cmp.Diff(sorted, d.saved()); diff != "" {
				t.Errorf("something was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// ipvsadm-restore replaces the table by one change, in which what stays is not
// touched.
func TestRestoreReplaces(t *testing.T) {
	d, dp := fake(t, director.PlaneXDP)
	if got := d.run(program, twoServices, "-R"); got != (result{}) {
		t.Fatalf("-R: %+v", got)
	}
	dp.Operations()
	applies := dp.Applies()
	input := "# made by hand\n-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 5\n\n-a -t 192.0.2.1:80 -r 10.0.0.3:80 -g -w 1\n-Z\n"
	if got := d.run(restoreProgram, input, "whatever"); got != (result{}) {
		t.Fatalf("ipvsadm-restore: %+v", got)
	}
	var got []string
	for _, op := range dp.Operations() {
		got = append(got, fmt.Sprintf("%T", op))
	}
	// No service is removed but the one that is not in the file.
	want := []string{"director.RemoveService", "director.RemoveServer", "director.EditServer", "director.AddServer"}
	less := func(s []string) map[string]int {
		counts := map[string]int{}
		for _, text := range s {
			counts[text]++
		}
		return counts
	}
	if diff := cmp.Diff(less(want), less(got)); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	if n := dp.Applies() - applies; n != 1 {
		t.Errorf("%d changes of the data plane, want 1", n)
	}
	if keys := dp.Zeroed(); len(keys) != 1 {
		t.Errorf("zeroed %v, want all once", keys)
	}
	// Nothing on the standard input is an empty table, as for the script.
	if got := d.run(restoreProgram, ""); got != (result{}) || d.saved() != "" {
		t.Errorf("an empty restore: %+v, left %q", got, d.saved())
	}
}

// Lines that show something show what the change made.
func TestRestoreShows(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	got := d.run(program, "-L -n\n-A -t 192.0.2.1:80\n-S -n\n-L --timeout\n-L -t 192.0.2.2:80\n-S\n", "-R")
	want := result{
		Out: "IP Virtual Server version  (size=0)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  192.0.2.1:80 wlc\n" +
			"-A -t 192.0.2.1:80 -s wlc\nTimeout (tcp tcpfin udp): 900 120 300\n",
		Err: "No such service\n", Status: 1, // which ends ipvsadm: the last line is not reached
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSaveScript(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	d.script("-A -t 192.0.2.1:80")
	for _, args := range [][]string{{"-n"}, {"ignored", "-n"}} {
		if diff := cmp.Diff(result{Out: "-A -t 192.0.2.1:80 -s wlc\n"}, d.run("/usr/sbin/"+saveProgram, "", args...)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", args, diff)
		}
	}
	want := result{Err: "ipvsadm-save: Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format.\n", Status: 1}
	if diff := cmp.Diff(want, d.run("/usr/sbin/"+saveProgram, "", "-x")); diff != "" {
		t.Errorf("-x (-want +got):\n%s", diff)
	}
}

// A service that ipvsadm has no words for is no part of the file, which is told.
func TestSaveOmits(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	d.script("-A -t 192.0.2.1:80")
	key, err := director.ParseServiceKey("tcp://192.0.2.0/24:8000-8999")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.director.AddService(t.Context(), director.Request{Who: "test"}, director.Service{Key: key, VIP: director.VIPExternal}); err != nil {
		t.Fatal(err)
	}
	want := result{
		Out: "-A -t 192.0.2.1:80 -s wlc\n",
		Err: "Operation not supported\nshunt: service tcp://192.0.2.0/24:8000-8999: ipvsadm has no prefixes and no ranges of ports: not supported\n" +
			"hint: `shunt export` has words for everything\n",
		Status: 1,
	}
	if diff := cmp.Diff(want, d.run(saveProgram, "", "-n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// every is a table with each method, flag, tunnel and family that the features
// allow, as -S prints it.
func every(f director.Features) string {
	var text strings.Builder
	schedulers := map[string][]string{"sh": {"", "sh-port", "sh-fallback,sh-port"}, "mh": {"", "mh-fallback", "mh-fallback,mh-port"}}
	port, services := 0, 0
	add := func(service string, family string) {
		fmt.Fprintf(&text, "-A %s\n", service)
		id := strings.Join(strings.Fields(service)[:2], " ")
		if strings.Contains(service, " -6") {
			id += " -6"
		}
		server, hosts := func(n int) string { return fmt.Sprintf("10.0.0.%d:%d", n, port) }, 1
		if family == "6" {
			server = func(n int) string { return fmt.Sprintf("[2001:db8:1::%x]:%d", n, port) }
		}
		methods := []string{"-m", "-g"}
		if services++; f.Tunnels && services%5 == 1 {
			for _, t := range []string{"ipip", "gue --tun-port 5555 --tun-nocsum", "gue --tun-port 1 --tun-csum", "gue --tun-port 65535 --tun-remcsum", "gre --tun-nocsum", "gre --tun-csum"} {
				methods = append(methods, "-i")
				methods[len(methods)-1] += " -w %d --tun-type " + t
			}
		}
		for i, m := range methods {
			if !strings.Contains(m, "%d") {
				m += " -w %d"
			}
			fmt.Fprintf(&text, "-a %s -r %s %s\n", id, server(hosts+i), fmt.Sprintf(m, []int{0, 1, 65535}[i%3]))
		}
	}
	for _, family := range []string{"4", "6"} {
		address := func() string { port++; return fmt.Sprintf("192.0.2.1:%d", port) }
		prefixes := []string{"", " -M 255.255.255.0", " -M 0.0.0.0"}
		if family == "6" {
			address = func() string { port++; return fmt.Sprintf("[2001:db8::1]:%d", port) }
			prefixes = []string{"", " -M 64", " -M 1"}
		}
		for _, s := range director.Schedulers() {
			flags := schedulers[string(s)]
			if flags == nil {
				flags = []string{"", "flag-1", "flag-1,flag-2,flag-3"}
			}
			for i, flag := range flags {
				if flag != "" {
					flag = " -b " + flag
				}
				add("-t "+address()+" -s "+string(s)+flag, family)
				add("-u "+address()+" -s "+string(s)+" -p 60"+prefixes[i]+" -o"+flag, family)
				if f.SCTP {
					add("--sctp-service "+address()+" -s "+string(s)+flag, family)
				}
				if f.Engines {
					add("-u "+address()+" -s "+string(s)+" -p 2678400"+prefixes[i]+" --pe sip"+flag, family)
				}
			}
		}
		if f.Marks {
			port = 0
			six := map[string]string{"4": "", "6": " -6"}[family]
			add("-f 7"+six+" -s rr", family)
			add("-f 2147483647"+six+" -s rr -p 1 -o", family)
		}
		port = 0
		add("-t "+map[string]string{"4": "192.0.2.2:0", "6": "[2001:db8::2]:0"}[family]+" -s rr -p 1", family)
		port = 1000
	}
	return text.String()
}

// What is saved restores to what is saved, whatever it is.
func TestSaveRestoreSave(t *testing.T) {
	for _, plane := range []string{director.PlaneXDP, director.PlaneIPVS} {
		t.Run(plane, func(t *testing.T) {
			d, dp := fake(t, plane)
			roundTrip(t, d, every(dp.Features()))
		})
	}
}

// roundTrip restores the lines, which must come back as they are, whatever their
// order; and again from what was saved.
func roundTrip(t *testing.T, d *daemon, lines string) {
	t.Helper()
	if got := d.run(restoreProgram, lines); got != (result{}) {
		t.Fatalf("ipvsadm-restore: %+v", got)
	}
	first := d.saved()
	if diff := cmp.Diff(grouped(lines), grouped(first)); diff != "" {
		t.Errorf("what was restored (-) and what is saved (+):\n%s", diff)
	}
	if n := strings.Count(first, "\n"); n < 100 {
		t.Errorf("only %d lines", n)
	}
	d.script("-C")
	if got := d.run(program, first, "-R"); got != (result{}) {
		t.Fatalf("-R: %+v", got)
	}
	if diff := cmp.Diff(first, d.saved()); diff != "" {
		t.Errorf("saved, restored and saved (-first +second):\n%s", diff)
	}
}

// grouped returns the lines of servers by that of their service.
func grouped(text string) map[string]map[string]bool {
	groups := map[string]map[string]bool{}
	var group map[string]bool
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "-A") {
			group = map[string]bool{}
			groups[line] = group
		} else {
			group[line] = true
		}
	}
	return groups
}
