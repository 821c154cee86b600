package labtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestBulk has iperf3 fill each way in both directions, while what clients, servers and
// the router before the far server get and send is captured: tshark finds no malformed
// packet and no wrong checksum in it, outside of tunnels and inside.
func TestBulk(t *testing.T) {
	t.Parallel()
	r := startRouted(t, routing{})
	folder := t.TempDir()
	captures := []*capture{
		startCapture(t, r.lab.Client, "eth0", filepath.Join(folder, "client.pcap")),
		startCapture(t, r.lab.Far, "eth1", filepath.Join(folder, "far.pcap")),
	}
	for _, s := range r.lab.Servers {
		captures = append(captures, startCapture(t, s.Namespace, "eth0", filepath.Join(folder, s.Name+".pcap")))
	}
	for _, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			r.fill(t, o)
			r.fill(t, o, "--reverse")
			total, _ := r.d.counters(t, "tcp-"+o.name)
			if total.Connections != 4 || total.In.Bytes < bulk/2 {
				t.Errorf("the director counted %+v, want a connection to steer by and one of data for each direction", total)
			}
		})
	}
	noChecksumErrors(t, r.lab)
	r.d.noFaults(t)
	for _, c := range captures {
		c.end(t)
	}
}

// fill has iperf3 send bulk octets, and be told that all have come.
func (r *routed) fill(t *testing.T, o target, direction ...string) {
	t.Helper()
	listening := newLogText()
	// One for each transfer: after the last it is busy for a while.
	server := o.server.Command(t.Context(), "iperf3", "--server", "--port", fmt.Sprint(o.at.Port()), "--forceflush")
	server.Stdout, server.Stderr = listening, listening
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill() // it does not end by itself
		_ = server.Wait()
	}()
	select {
	case <-listening.contains("Server listening"):
	case <-time.After(limit):
		t.Fatalf("iperf3 does not listen: %s", listening)
	}
	args := append(direction, "--client", o.vip.Addr().String(), "--port", fmt.Sprint(o.vip.Port()), "--bytes", fmt.Sprint(bulk),
		"--window", "64K", // what is on the way when all is sent is not waited for
		"--json")
	result := execute(t, r.lab.Client.Command(t.Context(), "iperf3", args...))
	var report struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(result.stdout), &report); err != nil {
		t.Fatalf("iperf3 %s: exit code %d: %v\n%s%s", direction, result.code, err, result.stdout, result.stderr)
	}
	if result.code != 0 || report.Error != "" || report.End.Received.Bytes < bulk/2 {
		t.Errorf("iperf3 %s: exit code %d: %s%.0f octets came\n%s", direction, result.code, report.Error, report.End.Received.Bytes, r.d.shunt(t, "drops"))
	}
}

// capture is a running tcpdump.
type capture struct {
	in   *directortest.Namespace
	of   string
	path string
	cmd  *directortest.Cmd
}

func startCapture(t *testing.T, n *directortest.Namespace, link, path string) *capture {
	t.Helper()
	c := &capture{in: n, of: n.Name + " " + link, path: path, cmd: n.Command(t.Context(), "tcpdump", "-n", "-i", link, "-s", "0", "-B", "16384", "-w", path, "-Z", "root")}
	log := newLogText()
	c.cmd.Stderr = log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-log.contains("listening on"):
	case <-time.After(limit):
		t.Fatalf("tcpdump on %s does not listen: %s", c.of, log)
	}
	return c
}

// end ends the capture and has tshark judge it.
func (c *capture) end(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("tcpdump on %s: %v", c.of, err)
	}
	if _, err := os.Stat(c.path); err != nil {
		t.Fatal(err)
	}
	checks := []string{"ip", "tcp", "udp"}
	fields := []string{"ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status", "gre.checksum.status"}
	args := []string{
		"tshark", "-n", "-r", c.path, "-T", "fields", "-e", "_ws.malformed", "-e", "tcp.checksum.ffff",
		// Ports are iperf3's and any: what else has them is not what is in the packets.
		"-d", "tcp.port==1-65535,data", "-d", "udp.port==1-65535,data",
	}
	for _, protocol := range checks {
		args = append(args, "-o", protocol+".check_checksum:TRUE")
	}
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	r := execute(t, c.in.Command(t.Context(), args[0], args[1:]...))
	if r.code != 0 {
		t.Fatalf("tshark: exit code %d: %s", r.code, r.stderr)
	}
	good, packets, shown, allOnes := 0, 0, 0, 0
	for line := range strings.Lines(r.stdout) {
		packets++
		values := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		bad := values[0] != ""
		// TCP's checksum is 0xffff where 0 is meant. It is right for all who add it up, and a
		// Linux host sends it (net/core/dev.c, skb_checksum_help), but for tshark it is bad (RFC 1624).
		isAllOnes := values[1] != ""
		if isAllOnes {
			allOnes++
		}
		for i, of := range values[2:] { // each may be there more than once: outside and inside
			statuses := strings.Split(of, ",")
			bad = bad || slices.Contains(statuses, "0") && !(isAllOnes && fields[i] == "tcp.checksum.status")
			if slices.Contains(statuses, "1") {
				good++
			}
		}
		if bad && shown < 5 {
			shown++
			t.Errorf("%s: packet %d is malformed or has a wrong checksum: %q of _ws.malformed, tcp.checksum.ffff, %q", c.of, packets, values, fields)
		}
	}
	if packets < 1000 || good < packets {
		t.Errorf("%s: %d packets with %d right checksums: too few to judge", c.of, packets, good)
	}
	t.Logf("%s: %d packets, TCP's checksum 0xffff in %d", c.of, packets, allOnes)
}
