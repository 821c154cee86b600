package ipvsadm

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/realserver"
)

// fake returns a daemon over a data plane in memory that can what the plane of the
// name can.
func fake(t testing.TB, plane string) (*daemon, *directortest.Fake) {
	t.Helper()
	features, err := director.FeaturesOf(plane)
	if err != nil {
		t.Fatal(err)
	}
	return fakeOf(t, features)
}

func fakeOf(t testing.TB, features director.Features) (*daemon, *directortest.Fake) {
	t.Helper()
	dp := directortest.NewFake(director.State{Timeouts: conntrack.DefaultTimeouts()})
	dp.SetFeatures(features)
	return serve(t, dp), dp
}

// wholeXDP is what the XDP plane is made for.
func wholeXDP() director.Features {
	f := director.XDPFeatures()
	f.Tunnels, f.FullNAT, f.MSS = true, true, true
	return f
}

// script runs command lines that must all be taken.
func (d *daemon) script(lines ...string) {
	d.t.Helper()
	for _, line := range lines {
		if got := d.ipvsadm(line); got != (result{}) {
			d.t.Fatalf("ipvsadm %s: %+v", line, got)
		}
	}
}

// saved is what -S -n prints.
func (d *daemon) saved() string {
	d.t.Helper()
	got := d.ipvsadm("-S -n")
	if got.Err != "" || got.Status != 0 {
		d.t.Fatalf("ipvsadm -S -n: %+v", got)
	}
	return got.Out
}

// The first lines are ipvsadm's, of the table of libipvs.c; Shunt's reasons follow
// where they are not the kernel's.
func TestRefusals(t *testing.T) {
	const (
		service = "-A -t 192.0.2.1:80"
		server  = "-a -t 192.0.2.1:80 -r 10.0.0.1 -m"
		invalid = "Invalid operation.  Possibly wrong module version, address not unicast, ...\n"
	)
	for _, test := range []struct {
		name   string
		before []string
		line   string
		want   string // on the standard error; the status is 255
	}{
		{"service_exists", []string{service}, service, "Service already exists\n"},
		{"before_its_scheduler_is_missed", []string{service}, service + " -s nope", "Service already exists\n"},
		{"no_scheduler", nil, service + " -s nope", "Scheduler or persistence engine not found\n"},
		{"no_engine", nil, service + " -p 60 --pe nope", "Scheduler or persistence engine not found\n"},
		{"edits_no_service", []string{service}, "-E -t 192.0.2.1:81", "No such service\n"},
		{"edits_to_no_scheduler", []string{service}, "-E -t 192.0.2.1:80 -s nope", "Scheduler or persistence engine not found\n"},
		{"deletes_no_service", []string{service}, "-D -u 192.0.2.1:80", "No such service\n"},
		{"zeroes_no_service", nil, "-Z -t 192.0.2.1:80", "No such service\n"},
		{"adds_to_no_service", nil, server, "Service not defined\n"},
		{"edits_in_no_service", nil, "-e -t 192.0.2.1:80 -r 10.0.0.1", "Service not defined\n"},
		{"deletes_in_no_service", nil, "-d -t 192.0.2.1:80 -r 10.0.0.1", "Service not defined\n"},
		{"server_exists", []string{service, server}, server, "Destination already exists\n"},
		{"edits_no_server", []string{service, server}, "-e -t 192.0.2.1:80 -r 10.0.0.2", "No such destination\n"},
		{"deletes_no_server", []string{service, server}, "-d -t 192.0.2.1:80 -r 10.0.0.1:81", "No such destination\n"},
		{"thresholds", []string{service}, server + " -x 1 -y 2", "Numerical result out of range\n"},
		{"thresholds_before_existence", []string{service, server}, server + " -x 1 -y 2", "Numerical result out of range\n"},
		{"thresholds_of_no_server", []string{service}, "-e -t 192.0.2.1:80 -r 10.0.0.1 -m -y 2", "Numerical result out of range\n"},
		{"multicast_server", []string{service}, "-a -t 192.0.2.1:80 -r 224.0.0.1 -m", invalid},
		{"link_local_server", []string{"-A -t [2001:db8::1]:80"}, "-a -t [2001:db8::1]:80 -r [fe80::1]:80 -m", invalid},
		{"daemon_runs", []string{"--start-daemon master"}, "--start-daemon master", "Daemon has already run\n"},
		{"no_daemon_runs", []string{"--start-daemon master"}, "--stop-daemon backup", "No daemon is running\n"},
		{
			"daemon_beside_mixed_families",
			[]string{service, "-a -t 192.0.2.1:80 -r [2001:db8::9]:80 -i"},
			"--start-daemon master", invalid,
		},
		{
			"mixed_families_beside_a_daemon",
			[]string{service, "--start-daemon backup"},
			"-a -t 192.0.2.1:80 -r [2001:db8::9]:80 -i", invalid,
		},
		{
			"no_scheduling_at_all", nil, service + " -s none",
			invalid + "shunt: a service without a scheduler is of no use\n",
		},
		{
			"mask_that_is_no_prefix", nil, service + " -p -M 255.0.255.0",
			invalid + "shunt: service tcp://192.0.2.1:80: netmask 255.0.255.0 is no prefix: not supported\n",
		},
		{
			"engine_without_persistence", nil, service + " --pe sip",
			invalid + "shunt: service tcp://192.0.2.1:80: persistence engine sip without persistence (-p): not supported\n",
		},
		{
			"virtual_address_of_nobody", nil, "-A -t 0.0.0.0:80",
			invalid + "shunt: service tcp://0.0.0.0:80: virtual address 0.0.0.0 is unspecified: want a unicast address\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, _ := fake(t, director.PlaneIPVS)
			d.script(test.before...)
			before := d.saved()
			if diff := cmp.Diff(result{Err: test.want, Status: 255}, d.ipvsadm(test.line)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, d.saved()); diff != "" {
				t.Errorf("something was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// What the XDP plane lacks is refused as ipvsadm refuses, with the reason.
func TestUnsupported(t *testing.T) {
	d, dp := fake(t, director.PlaneXDP)
	d.script("-A -t 192.0.2.1:80")
	dp.Operations()
	for _, test := range []struct{ line, because string }{
		{"-A -f 7", "apply: services[1] fwmark://7: a service of a firewall mark is not there on the xdp data plane"},
		{"-A --sctp-service 192.0.2.1:80", "apply: services[1] sctp://192.0.2.1:80: sctp is not there on the xdp data plane"},
		{"-A -t 192.0.2.2:80 -p --pe sip", "apply: services[1] tcp://192.0.2.2:80: a persistence engine is not there on the xdp data plane"},
		{"-a -t 192.0.2.1:80 -r 10.0.0.1 -w 65536", "apply: services[0] tcp://192.0.2.1:80: servers[0]: weight 65536: the xdp data plane has weights up to 65535"},
		{"--start-daemon master", "apply: sync: a sync daemon is not there on the xdp data plane"},
	} {
		want := result{Err: "Operation not supported\nshunt: " + test.because + "\nhint: " + planeHint + "\n", Status: 255}
		if diff := cmp.Diff(want, d.ipvsadm(test.line)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.line, diff)
		}
	}
	if ops := dp.Operations(); len(ops) > 0 {
		t.Errorf("the data plane was told %v", ops)
	}
}

// Tunnels are there on the XDP plane as on the kernel's, to servers of the other
// address family too.
func TestTunnelsOnXDP(t *testing.T) {
	d, _ := fakeOf(t, wholeXDP())
	d.script(
		"-A -t 192.0.2.1:80 -s rr",
		"-a -t 192.0.2.1:80 -r 10.0.0.1 -i",
		"-a -t 192.0.2.1:80 -r 10.0.0.2 -i --tun-type gue --tun-port 5555 --tun-remcsum",
		"-a -t 192.0.2.1:80 -r 10.0.0.3 -g",
		"-e -t 192.0.2.1:80 -r 10.0.0.3 -i --tun-type gre --tun-csum -w 3",
		"-a -t 192.0.2.1:80 -r [2001:db8::3]:80 -i",
	)
	const saved = `-A -t 192.0.2.1:80 -s rr
-a -t 192.0.2.1:80 -r 10.0.0.1:80 -i -w 1 --tun-type ipip
-a -t 192.0.2.1:80 -r 10.0.0.2:80 -i -w 1 --tun-type gue --tun-port 5555 --tun-remcsum
-a -t 192.0.2.1:80 -r 10.0.0.3:80 -i -w 3 --tun-type gre --tun-csum
-a -t 192.0.2.1:80 -r [2001:db8::3]:80 -i -w 1 --tun-type ipip
`
	if diff := cmp.Diff(saved, d.saved()); diff != "" {
		t.Errorf("saved (-want +got):\n%s", diff)
	}
	const listed = `IP Virtual Server version  (size=0)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  192.0.2.1:80 rr
  -> 10.0.0.1:80                  Tunnel  ipip          1      0          0         $
  -> 10.0.0.2:80                  Tunnel  gue:5555:r+c  1      0          0         $
  -> 10.0.0.3:80                  Tunnel  gre:+c        3      0          0         $
  -> [2001:db8::3]:80             Tunnel  ipip          1      0          0         $
`
	if diff := cmp.Diff(listed, strings.ReplaceAll(d.ipvsadm("-L -n --tun-info").Out, " \n", " $\n")); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if got := d.ipvsadm("-a -t 192.0.2.1:80 -r 10.0.0.4 -i --tun-type gue"); got.Status == 0 {
		t.Errorf("gue without a port: %+v", got)
	}
	// A restore makes the same.
	d.script("-C")
	if got := d.run(restoreProgram, saved); got != (result{}) {
		t.Fatalf("ipvsadm-restore: %+v", got)
	}
	if diff := cmp.Diff(saved, d.saved()); diff != "" {
		t.Errorf("saved again (-want +got):\n%s", diff)
	}
}

// A server of full NAT is listed by a word of its own, and no part of a save file,
// which is told.
func TestFullNAT(t *testing.T) {
	d, _ := fakeOf(t, wholeXDP())
	d.script("-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m")
	key := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}
	server := realserver.Server{Address: netip.MustParseAddrPort("10.0.0.2:8080"), Method: realserver.FullNAT, Weight: 1}
	if _, err := d.director.AddServer(t.Context(), director.Request{Who: "test"}, key, server); err != nil {
		t.Fatal(err)
	}
	if got := d.ipvsadm("-L -n"); !strings.Contains(got.Out, "\n  -> 10.0.0.2:8080                FullNAT 1      0          0         \n") {
		t.Errorf("listed %+v", got)
	}
	want := result{
		Out:    "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 1\n",
		Err:    "Operation not supported\nshunt: server 10.0.0.2:8080 of tcp://192.0.2.1:80: ipvsadm has no method fullnat: not supported\nhint: `shunt export` has words for everything\n",
		Status: 1,
	}
	if diff := cmp.Diff(want, d.run(saveProgram, "", "-n")); diff != "" {
		t.Errorf("saved (-want +got):\n%s", diff)
	}
}

// -E and -e set what is left out to its default; what ipvsadm has no words for
// stays.
func TestEdit(t *testing.T) {
	d, _ := fakeOf(t, wholeXDP())
	key := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}
	client := netip.MustParsePrefix("198.51.100.0/24")
	was := director.Service{
		Key: key, Name: "web", Scheduler: director.SourceHash, Flags: director.SchedulerFlags{Port: true}, VIP: director.VIPManaged,
		Access: director.Access{Deny: []netip.Prefix{client}}, Persistence: director.Persistence{Timeout: conntrack.MinTimeout, Prefix: 24},
		Timeouts: conntrack.Timeouts{TCP: conntrack.MinTimeout}, Rules: director.Rules{SloppyTCP: true},
		Limits:  director.Limits{Rate: 50, Source: director.SourceLimits{Prefix: 24, Connections: 5}},
		Guard:   director.SourceGuard{Mode: director.GuardAuto, On: 50, Off: 10},
		MSS:     1400,
		Servers: []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Method: realserver.NAT, Weight: 7, Upper: 9, Lower: 3}},
	}
	if _, err := d.director.AddService(t.Context(), director.Request{Who: "test"}, was); err != nil {
		t.Fatal(err)
	}
	d.script("-E -t 192.0.2.1:80")
	want := was
	want.Scheduler, want.Flags, want.Persistence = director.WeightedLeastConnection, director.SchedulerFlags{}, director.Persistence{}
	d.has(want)

	// Without a method it is dr, whose port is the service's: another server.
	if got := d.ipvsadm("-e -t 192.0.2.1:80 -r 10.0.0.1:8080"); got.Err != "No such destination\n" {
		t.Errorf("-e without -m: %+v", got)
	}
	d.script("-e -t 192.0.2.1:80 -r 10.0.0.1:8080 -m")
	want.Servers = []realserver.Server{{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Method: realserver.NAT, Weight: 1}}
	d.has(want)

	// A restore that names the service keeps what it has no words for too.
	if got := d.run(restoreProgram, "-A -t 192.0.2.1:80 -s rr\n"); got != (result{}) {
		t.Fatalf("ipvsadm-restore: %+v", got)
	}
	want.Scheduler, want.Servers = director.RoundRobin, nil
	d.has(want)
}

// has compares the services that are desired.
func (d *daemon) has(want ...director.Service) {
	d.t.Helper()
	equal := cmp.Options{
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	got := d.director.State().Services
	for i := range got {
		if len(got[i].Servers) == 0 {
			got[i].Servers = nil
		}
	}
	if diff := cmp.Diff(want, got, equal); diff != "" {
		d.t.Errorf("services (-want +got):\n%s", diff)
	}
}

// A server that is being drained goes on draining whatever -e says of it, and its
// weight in force is 0; -S has the one it will have again.
func TestDraining(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	d.script("-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1 -m -w 5")
	key := director.ServiceKey{Protocol: conntrack.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}
	if _, err := d.director.DrainServer(t.Context(), director.Request{Who: "test"}, director.Drain{Service: key, Server: netip.MustParseAddrPort("10.0.0.1:80")}); err != nil {
		t.Fatal(err)
	}
	note := result{Err: "shunt: server 10.0.0.1:80 of tcp://192.0.2.1:80 is being drained: its weight stays 0 until that ends\n" +
		"hint: `shunt server drain tcp://192.0.2.1:80 10.0.0.1:80 --cancel` ends it\n"}
	if diff := cmp.Diff(note, d.ipvsadm("-e -t 192.0.2.1:80 -r 10.0.0.1 -m -w 6")); diff != "" {
		t.Errorf("-e (-want +got):\n%s", diff)
	}
	if server := d.director.State().Services[0].Servers[0]; !server.Draining || server.Weight != 6 {
		t.Errorf("server %+v", server)
	}
	if want := "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 6\n"; d.saved() != want {
		t.Errorf("-S: %q, want %q", d.saved(), want)
	}
	if out := d.ipvsadm("-L -n").Out; !strings.Contains(out, "-> 10.0.0.1:80                  Masq    0      0 ") {
		t.Errorf("-L: %s", out)
	}
	if diff := cmp.Diff(note, d.run(restoreProgram, d.saved())); diff != "" {
		t.Errorf("restore (-want +got):\n%s", diff)
	}
	d.script("-e -t 192.0.2.1:80 -r 10.0.0.1 -m -w 0") // as it is
}

// A change of what is Shunt's reads the kernel as often as the daemon must: once.
func TestReadsOfTheKernel(t *testing.T) {
	d, dp := fake(t, director.PlaneIPVS)
	d.script("-A -t 192.0.2.1:80")
	for _, line := range []string{
		"-a -t 192.0.2.1:80 -r 10.0.0.1 -m", "-e -t 192.0.2.1:80 -r 10.0.0.1 -m -w 0", "-E -t 192.0.2.1:80 -s rr",
		"-d -t 192.0.2.1:80 -r 10.0.0.1", "-D -t 192.0.2.1:80",
	} {
		before := dp.Founds()
		d.script(line)
		if n := dp.Founds() - before; n != 1 {
			t.Errorf("ipvsadm %s: %d readings, want 1", line, n)
		}
	}
}

// Services that somebody else has are shown, and refused with a reason.
func TestForeign(t *testing.T) {
	d, dp := fake(t, director.PlaneIPVS)
	d.script("-A -t 192.0.2.1:80")
	dp.Meddle(func(s *director.State) {
		s.Services = append(s.Services, director.Service{
			Key: director.MarkKey(7, netip.IPv4Unspecified()), Scheduler: "rr", VIP: director.VIPExternal,
		})
		s.Sync = append(s.Sync, director.SyncDaemon{Role: director.SyncMaster, Interface: "eth0"}.Normalize())
	})
	because := "shunt: fwmark://7 is in the kernel, and not Shunt's\nhint: " + adoptHint + "\n"
	for _, test := range []struct{ line, want string }{
		{"-A -f 7", "Service already exists\n" + because},
		{"-E -f 7", "No such service\n" + because},
		{"-D -f 7", "No such service\n" + because},
		{"-a -f 7 -r 10.0.0.1", "Service not defined\n" + because},
		{"-e -f 7 -r 10.0.0.1", "Service not defined\n" + because},
		{"-d -f 7 -r 10.0.0.1", "Service not defined\n" + because},
		{"--start-daemon master", "Daemon has already run\n"},
		{"--stop-daemon master", "No daemon is running\nshunt: the master sync daemon is in the kernel, and not Shunt's\n"},
	} {
		if diff := cmp.Diff(result{Err: test.want, Status: 255}, d.ipvsadm(test.line)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.line, diff)
		}
	}
	if want := "-A -t 192.0.2.1:80 -s wlc\n-A -f 7 -s rr\n"; d.saved() != want {
		t.Errorf("-S: %q, want %q", d.saved(), want)
	}
	// -C takes what is Shunt's, and says what is left.
	want := result{Err: "shunt: services in the kernel that are not Shunt's, and stay there: 1\nhint: " + adoptHint + "\n"}
	if diff := cmp.Diff(want, d.ipvsadm("-C")); diff != "" {
		t.Errorf("-C (-want +got):\n%s", diff)
	}
	if want := "-A -f 7 -s rr\n"; d.saved() != want {
		t.Errorf("-S after -C: %q, want %q", d.saved(), want)
	}
	// Counters are everybody's.
	d.script("-Z -f 7", "-Z")
	if diff := cmp.Diff([]director.ServiceKey{director.MarkKey(7, netip.IPv4Unspecified()), {}}, dp.Zeroed(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("zeroed (-want +got):\n%s", diff)
	}
}

// 0.0.0.0 without a port, and [::], stand for all, as in ipvsadm.
func TestZeroAll(t *testing.T) {
	d, dp := fake(t, director.PlaneIPVS)
	d.script("-Z -t 0.0.0.0", "-Z -u [::]:0")
	if keys := dp.Zeroed(); len(keys) != 2 || keys[0] != (director.ServiceKey{}) || keys[1] != (director.ServiceKey{}) {
		t.Errorf("zeroed %v", keys)
	}
}

func TestTimeoutsAndDaemons(t *testing.T) {
	d, _ := fake(t, director.PlaneIPVS)
	d.script("--set 100 0 7", "--start-daemon backup --syncid 9", "--start-daemon master --mcast-interface eth1 --mcast-group ff02::5 --mcast-port 99 --mcast-ttl 3 --sync-maxlen 1400")
	if diff := cmp.Diff(result{Out: "Timeout (tcp tcpfin udp): 100 120 7\n"}, d.ipvsadm("-L --timeout")); diff != "" {
		t.Errorf("--timeout (-want +got):\n%s", diff)
	}
	want := []director.SyncDaemon{
		{Role: "master", Interface: "eth1", MaxLength: 1400, Group: netip.MustParseAddr("ff02::5"), Port: 99, TTL: 3},
		{Role: "backup", Interface: "eth0", ID: 9, Group: director.DefaultSyncGroup, Port: 8848, TTL: 1},
	}
	if diff := cmp.Diff(want, d.director.State().Sync, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("daemons (-want +got):\n%s", diff)
	}
	d.script("--stop-daemon master", "-C")
	if left := d.director.State().Sync; len(left) != 1 || left[0] != want[1] {
		t.Errorf("daemons left: %v", left)
	}
	d.script("--stop-daemon backup")
	if left := d.director.State().Sync; len(left) > 0 {
		t.Errorf("the last daemon is left: %v", left)
	}
}

// Whoever changes something meanwhile is heard: the command is applied to what
// they made.
func TestConflict(t *testing.T) {
	d, _ := fake(t, director.PlaneXDP)
	d.script("-A -t 192.0.2.1:80")
	rivals := 0
	d.meanwhile = func() {
		if rivals++; rivals <= 3 {
			line := fmt.Sprintf("-a -t 192.0.2.1:80 -r 10.0.0.%d -m", rivals)
			other := *d
			other.meanwhile = nil
			other.script(line)
		}
	}
	d.script("-A -t 192.0.2.2:80")
	d.meanwhile = nil
	want := "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 1\n" +
		"-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m -w 1\n-A -t 192.0.2.2:80 -s wlc\n"
	if diff := cmp.Diff(want, d.saved()); diff != "" {
		t.Errorf("-S (-want +got):\n%s", diff)
	}
}

// A change that the data plane refuses leaves nothing.
func TestDataplaneFails(t *testing.T) {
	d, dp := fake(t, director.PlaneIPVS)
	d.script("-A -t 192.0.2.1:80")
	before := d.saved()
	for _, test := range []struct {
		err  error
		want string
	}{
		{director.ErrNoScheduler, "Scheduler or persistence engine not found\n"},
		{director.ErrFull, "Memory allocation problem\n"},
		{director.ErrInvalid, "Invalid operation.  Possibly wrong module version, address not unicast, ...\n"},
		{errors.New("the kernel is on fire"), "Invalid operation.  Possibly wrong module version, address not unicast, ...\nshunt: apply: add service tcp://192.0.2.2:80: the kernel is on fire\n"},
	} {
		dp.FailIf(func(director.Operation) error { return test.err })
		got := d.ipvsadm("-A -t 192.0.2.2:80")
		if !strings.HasPrefix(got.Err, test.want) || got.Status != 255 || got.Out != "" {
			t.Errorf("%v: %+v, want %q", test.err, got, test.want)
		}
		got = d.run(program, "-A -t 192.0.2.2:80\n-A -t 192.0.2.3:80\n", "-R")
		if first, _, _ := strings.Cut(test.want, "\n"); !strings.HasPrefix(got.Err, first) || !strings.HasSuffix(got.Err, "shunt: nothing was changed\n") || got.Status != 255 {
			t.Errorf("-R: %v: %+v, want %q", test.err, got, test.want)
		}
		dp.FailIf(nil)
		if diff := cmp.Diff(before, d.saved()); diff != "" {
			t.Errorf("%v (-before +after):\n%s", test.err, diff)
		}
	}
}
