package ipvsadm_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/realserver"
)

func TestParse(t *testing.T) {
	address := netip.MustParseAddrPort
	web := ipvsadm.Service{Protocol: conntrack.TCP, Address: address("192.0.2.1:80"), Scheduler: "wlc", Netmask: 0xffffffff}
	webKey := ipvsadm.Service{Protocol: conntrack.TCP, Address: address("192.0.2.1:80")}
	for _, c := range []struct {
		line string
		want ipvsadm.Command
	}{
		{"", ipvsadm.Command{Operation: ipvsadm.List}},
		{"-h -q", ipvsadm.Command{Operation: ipvsadm.Help}},
		{"--version x", ipvsadm.Command{Operation: ipvsadm.Version}},
		{"-C", ipvsadm.Command{Operation: ipvsadm.Flush}},
		{"-R", ipvsadm.Command{Operation: ipvsadm.Restore}},
		{"-Sn", ipvsadm.Command{Operation: ipvsadm.Save, Given: ipvsadm.OptNumeric}},
		{"-Z", ipvsadm.Command{Operation: ipvsadm.Zero}},
		{"-Zt 192.0.2.1:80", ipvsadm.Command{Operation: ipvsadm.Zero, Given: ipvsadm.OptService, Service: webKey}},
		{"-Z -t 0.0.0.0:0", ipvsadm.Command{Operation: ipvsadm.Zero}},
		{"-LnX --rate --nosort --sort", ipvsadm.Command{
			Operation: ipvsadm.List, Given: ipvsadm.OptNumeric | ipvsadm.OptExact | ipvsadm.OptRate | ipvsadm.OptNoSort,
		}},
		{"-A -t 192.0.2.1:http", ipvsadm.Command{Operation: ipvsadm.AddService, Given: ipvsadm.OptService, Service: web}},
		{"--add-service --udp-service=[2001:db8::1]:53 -ssh -bsh-port,flag-3 -M64 --ops -p5 --pe=sip", ipvsadm.Command{
			Operation: ipvsadm.AddService,
			Given: ipvsadm.OptService | ipvsadm.OptScheduler | ipvsadm.OptFlags | ipvsadm.OptNetmask | ipvsadm.OptOnePacket | ipvsadm.OptPersistent |
				ipvsadm.OptEngine,
			Service: ipvsadm.Service{
				Protocol: conntrack.UDP, Address: address("[2001:db8::1]:53"), Scheduler: "sh", Flags: ipvsadm.Flag2 | ipvsadm.Flag3,
				Persistent: true, Timeout: 5, Netmask: 64, Engine: "sip", OnePacket: true,
			},
		}},
		{"-E --sctp-service 192.0.2.1 -p -M 255.255.0.0", ipvsadm.Command{
			Operation: ipvsadm.EditService, Given: ipvsadm.OptService | ipvsadm.OptPersistent | ipvsadm.OptNetmask,
			Service: ipvsadm.Service{
				Protocol: conntrack.SCTP, Address: address("192.0.2.1:0"), Scheduler: "wlc", Persistent: true, Timeout: 360, Netmask: 0xffff0000,
			},
		}},
		{"-D -f 4294967295 -6", ipvsadm.Command{
			Operation: ipvsadm.DeleteService, Given: ipvsadm.OptService,
			Service: ipvsadm.Service{Protocol: conntrack.TCP, Address: address("[::]:0"), Mark: 4294967295},
		}},
		// Direct routing by default, and the service's port whatever was said.
		{"-a -t 192.0.2.1:80 -r 10.0.0.1:8080", ipvsadm.Command{
			Operation: ipvsadm.AddServer, Given: ipvsadm.OptService | ipvsadm.OptServer, Service: webKey,
			Server: ipvsadm.Server{Address: address("10.0.0.1:80"), Method: realserver.DR, Weight: 1},
		}},
		{"-e -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w0 -x 9 -y 3", ipvsadm.Command{
			Operation: ipvsadm.EditServer, Service: webKey,
			Given:  ipvsadm.OptService | ipvsadm.OptServer | ipvsadm.OptForward | ipvsadm.OptWeight | ipvsadm.OptUpper | ipvsadm.OptLower,
			Server: ipvsadm.Server{Address: address("10.0.0.1:8080"), Method: realserver.NAT, Upper: 9, Lower: 3},
		}},
		// A server that comes before its service does not know the port.
		{"-a -r 10.0.0.1 -m -t 192.0.2.1:80", ipvsadm.Command{
			Operation: ipvsadm.AddServer, Given: ipvsadm.OptService | ipvsadm.OptServer | ipvsadm.OptForward, Service: webKey,
			Server: ipvsadm.Server{Address: address("10.0.0.1:0"), Method: realserver.NAT, Weight: 1},
		}},
		{"-a -f 3 -r [fd00::1]:80 -i --tun-type gue --tun-port 5555 --tun-remcsum", ipvsadm.Command{
			Operation: ipvsadm.AddServer,
			Given: ipvsadm.OptService | ipvsadm.OptServer | ipvsadm.OptForward | ipvsadm.OptTunType | ipvsadm.OptTunPort |
				ipvsadm.OptTunRemoteChecksum,
			Service: ipvsadm.Service{Protocol: conntrack.TCP, Address: address("0.0.0.0:0"), Mark: 3},
			Server: ipvsadm.Server{
				Address: address("[fd00::1]:80"), Method: realserver.Tunnel, Weight: 1,
				Tunnel: realserver.TunnelOptions{Type: realserver.TunnelGUE, Port: 5555, Checksum: realserver.TunnelRemoteChecksum},
			},
		}},
		{"-d -t 192.0.2.1:80 -r 10.0.0.1:8080", ipvsadm.Command{
			Operation: ipvsadm.DeleteServer, Given: ipvsadm.OptService | ipvsadm.OptServer, Service: webKey,
			Server: ipvsadm.Server{Address: address("10.0.0.1:8080")},
		}},
		{"--set 10 0 30", ipvsadm.Command{Operation: ipvsadm.SetTimeouts, Set: ipvsadm.Timeouts{TCP: 10, UDP: 30}}},
		{"--start-daemon backup", ipvsadm.Command{
			Operation: ipvsadm.StartDaemon, Daemon: ipvsadm.Daemon{Role: ipvsadm.Backup, Interface: "eth0"},
		}},
		{"--start-daemon=master --mcast-interface averyveryverylongname --syncid 7 --sync-maxlen 1400 --mcast-group ff02::5 --mcast-port 9 --mcast-ttl 3", ipvsadm.Command{
			Operation: ipvsadm.StartDaemon,
			Given: ipvsadm.OptInterface | ipvsadm.OptSyncID | ipvsadm.OptMaxLength | ipvsadm.OptGroup | ipvsadm.OptPort |
				ipvsadm.OptTTL,
			Daemon: ipvsadm.Daemon{
				Role: ipvsadm.Master, Interface: "averyveryverylo", ID: 7, MaxLength: 1400, Group: netip.MustParseAddr("ff02::5"), Port: 9, TTL: 3,
			},
		}},
		{"--stop-daemon master --syncid 7", ipvsadm.Command{
			Operation: ipvsadm.StopDaemon, Given: ipvsadm.OptSyncID, Daemon: ipvsadm.Daemon{Role: ipvsadm.Master, ID: 7},
		}},
		// popt's !#:+ is the next argument that is no option.
		{"-A -t !#:+:80 192.0.2.1", ipvsadm.Command{Operation: ipvsadm.AddService, Given: ipvsadm.OptService, Service: web}},
	} {
		t.Run(c.line, func(t *testing.T) {
			got, err := ipvsadm.Parser{Names: fewNames{}}.Parse(strings.Fields(c.line))
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got\n%+v, want\n%+v", got, c.want)
			}
		})
	}
}

// recorded are command lines with what ipvsadm 1.31 of Debian 12 made of them:
// see TestGuestParse.
const recorded = "testdata/recorded.txt"

// TestParseRecorded compares Parse with what the real ipvsadm was seen to do,
// where there is no guest.
func TestParseRecorded(t *testing.T) {
	text, err := os.ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 700 {
		t.Fatalf("%s has %d lines: want the matrix and the oddities", recorded, len(lines))
	}
	for _, line := range lines {
		args, want := readRecord(t, line)
		_, err := ipvsadm.Parser{Names: fewNames{}}.Parse(args)
		if diff := cmp.Diff(want, outcome(t, err)); diff != "" {
			t.Errorf("%q (-ipvsadm +Parse):\n%s", args, diff)
		}
	}
}

// outcome is what ipvsadm does with a line that Parse returns the error for; zero
// for one that goes to the kernel.
func outcome(t *testing.T, err error) result {
	t.Helper()
	if err == nil {
		return result{}
	}
	var refused *ipvsadm.UsageError
	if !errors.As(err, &refused) {
		t.Fatalf("%T: %v, want a *UsageError", err, err)
	}
	return result{Status: refused.Exit, Err: refused.Stderr()}
}

// writeRecord returns a line of the record: status, error text and arguments.
func writeRecord(args []string, r result) string {
	line := fmt.Sprintf("%d %q", r.Status, r.Err)
	for _, arg := range args {
		line += fmt.Sprintf(" %q", arg)
	}
	return line + "\n"
}

func readRecord(t *testing.T, line string) (args []string, r result) {
	t.Helper()
	status, rest, _ := strings.Cut(line, " ")
	var err error
	if r.Status, err = strconv.Atoi(status); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	var words []string
	for rest != "" {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		words, rest = append(words, word), strings.TrimPrefix(rest[len(quoted):], " ")
	}
	r.Err = words[0]
	return words[1:], r
}

func TestParsePOSIX(t *testing.T) {
	_, err := ipvsadm.Parser{POSIX: true}.Parse([]string{"-L", "x", "-q"})
	if want := "unexpected argument x"; err == nil || err.Error() != want {
		t.Errorf("options first: %v, want %s", err, want)
	}
	_, err = ipvsadm.Parser{}.Parse([]string{"-L", "x", "-q"})
	if want := "-q: unknown option"; err == nil || err.Error() != want {
		t.Errorf("options anywhere: %v, want %s", err, want)
	}
}

func TestProgramName(t *testing.T) {
	p := ipvsadm.Parser{Program: "/sbin/balance"}
	_, err := p.Parse([]string{"-q"})
	if want := "Try `/sbin/balance -h' or '/sbin/balance --help' for more information."; err == nil || err.Error() != want {
		t.Errorf("hint %v, want %s", err, want)
	}
	if usage := p.Usage(); strings.Count(usage, "\n  /sbin/balance ") != 13 || strings.Contains(usage, "{") != strings.Contains(usage, "{master|backup}") {
		t.Errorf("usage:\n%s", usage)
	}
}

func TestSaveScript(t *testing.T) {
	for _, c := range []struct {
		args    string
		numeric bool
		refused bool
	}{{"", false, false}, {"-n", true, false}, {"x -n", true, false}, {"-n -x", false, true}, {"--numeric", false, true}} {
		numeric, err := ipvsadm.SaveScript("/sbin/ipvsadm-save", strings.Fields(c.args))
		if numeric != c.numeric || (err != nil) != c.refused {
			t.Errorf("%q: %t, %v", c.args, numeric, err)
		}
		want := result{Status: 1, Err: "ipvsadm-save: Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format.\n"}
		if diff := cmp.Diff(want, outcome(t, err)); c.refused && diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.args, diff)
		}
	}
}
