package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/realserver/agent/role"
)

// TestCheck: what is wrong is said in each format, and by the exit code.
func TestCheck(t *testing.T) {
	s := newServer(t)
	const words = "check --method dr --vip 192.0.2.1 --interface eth0"
	want := checked{Findings: []checkedThing{
		{role.Problem, "eth0", "arp_ignore is 0: it answers ARP for the virtual addresses: clients' packets pass the director by", "sysctl -w net/ipv4/conf/all/arp_ignore=1 net/ipv4/conf/eth0/arp_ignore=1"},
		{role.Problem, "eth0", "arp_announce is 0: it asks by ARP in the name of virtual addresses, by which others learn that they are here", "sysctl -w net/ipv4/conf/all/arp_announce=2 net/ipv4/conf/eth0/arp_announce=2"},
	}}
	table := ""
	for _, f := range want.Findings {
		table += "problem: eth0: " + f.Text + "\n  " + f.Mend + "\n"
	}
	const unfit = "shunt-agent: the host does not fit its role\nhint: `shunt-agent prepare` mends what it can, given the same flags; with --dry-run it says what it would do\n"
	s.want(words, exitFailed, table+"firewall rules were not looked at\n", unfit)
	for format, parse := range map[string]func([]byte, *checked) error{
		"json": func(b []byte, v *checked) error { return json.Unmarshal(b, v) },
		"yaml": func(b []byte, v *checked) error { return yaml.Load(b, v) },
	} {
		code, stdout, _ := s.run(words + " -o " + format)
		var got checked
		s.ok(parse([]byte(stdout), &got))
		if diff := cmp.Diff(want, got); code != exitFailed || diff != "" {
			t.Errorf("%s: code %d (-want +got)\n%s", format, code, diff)
		}
	}
	s.want("check -m dr --vip 192.0.2.1 -i eth7", exitFailed, "", "shunt-agent: no such interface: \"eth7\"\nhint: `ip link` lists the interfaces\n")
	s.want("check -m dr --vip 192.0.2.1", exitFailed, "", "shunt-agent: find the interface that directors' packets come by: no route leads to directors or elsewhere\n"+
		"hint: name it: --interface, or interfaces below host in the settings\n")
}

// TestPrepare makes what settings and flags say, and takes it back.
func TestPrepare(t *testing.T) {
	s := newServer(t)
	folder := t.TempDir()
	state := " --state " + filepath.Join(folder, "prepared.json")
	settings := func(host string) string {
		path := filepath.Join(folder, "agent.yaml")
		s.ok(os.WriteFile(path, []byte("agent: s1\ndirectors: [\"https://127.0.0.1:1\"]\ntoken-file: "+filepath.Join(folder, "none")+"\n"+
			"members: [{pool: web, address: \"10.0.0.2:80\", method: nat}, {pool: dns, address: 10.0.0.2, method: dr}]\n"+host), 0o600))
		return path
	}
	// Who prepares by other means need not say what that takes.
	s.want("prepare --at-start --config "+settings("")+state, exitOK, "", "")
	code, _, stderr := s.run("prepare --config " + settings("") + state)
	if code != exitUsage || !strings.Contains(stderr, "agent.yaml: host: no virtual address") || !strings.Contains(stderr, "no director's address") {
		t.Errorf("settings without a host: code %d, %q", code, stderr)
	}
	config := settings("host: {prepare: true, vips: [192.0.2.1, 198.51.100.0/24], interfaces: [eth0], directors: [10.0.0.9], route: true}\n")
	const changes = `sysctl net/ipv4/conf/all/arp_ignore=1 (was 0)
sysctl net/ipv4/conf/eth0/arp_ignore=1 (was 0)
sysctl net/ipv4/conf/all/arp_announce=2 (was 0)
sysctl net/ipv4/conf/eth0/arp_announce=2 (was 0)
local-route 198.51.100.0/24
route 0.0.0.0/0 via 10.0.0.9
`
	would := "would set " + strings.ReplaceAll(strings.TrimSuffix(changes, "\n"), "\n", "\nwould set ") + "\n"
	const nobody = "shunt-agent: warning: port 80: nobody listens on it\n"
	s.want("prepare --dry-run --config "+config+state, exitOK, would, nobody)
	s.want("prepare --at-start --config "+config+state, exitOK, changes, nobody)
	s.want("prepare --config "+config+state, exitOK, "nothing to change: the host is prepared\n", nobody)
	code, stdout, _ := s.run("check --config " + config)
	if code != exitFailed || !strings.Contains(stdout, "problem: https://127.0.0.1:1: ask for pool web at https://127.0.0.1:1: read the token: ") {
		t.Errorf("a director that cannot be asked: code %d, %s", code, stdout)
	}
	// More by another command adds up.
	s.want("prepare -m ipip --vip 192.0.2.9 -i eth0"+state, exitOK,
		"address 192.0.2.9/32 on lo\ndecapsulation: ipip on eth0 for 192.0.2.9 (was: none)\n",
		"shunt-agent: warning: eth0: its MTU of 1500 leaves clients' packets 1480 octets in their tunnels: the director tells clients, and those that do not heed it hang; "+
			"an MTU of 1520 on the way from the director, or mss: 1440 of the service, spares them that; mend: ip link set eth0 mtu 1520\n")
	s.want("decap start -i eth0 --vip 192.0.2.9 --vip 192.0.2.1", exitOK, "eth0: native mode, ipip, gue, gre\n", "")
	s.ok(s.Sysctl("net/ipv4/conf/all/arp_ignore", "2"))
	code, stdout, stderr = s.runAlone("undo" + state)
	wantOut := `route 0.0.0.0/0 via 10.0.0.9: none (was there)
local-route 198.51.100.0/24: none (was there)
sysctl net/ipv4/conf/eth0/arp_announce=0 (was 2)
sysctl net/ipv4/conf/all/arp_announce=0 (was 2)
sysctl net/ipv4/conf/eth0/arp_ignore=0 (was 1)
`
	wantErr := "shunt-agent: warning: left alone, as it was changed since: decapsulation: ipip on eth0 for 192.0.2.9 (was: none)\n" +
		"shunt-agent: warning: left alone, as it was changed since: sysctl net/ipv4/conf/all/arp_ignore=1 (was 0)\n"
	if diff := cmp.Diff([]any{exitOK, "address 192.0.2.9/32 on lo: none (was there)\n" + wantOut, wantErr}, []any{code, stdout, stderr}); diff != "" {
		t.Errorf("undo (-want +got)\n%s", diff)
	}
	if value, err := s.ReadSysctl("net/ipv4/conf/all/arp_ignore"); err != nil || value != "2" {
		t.Errorf("what another set is %q, %v", value, err)
	}
	s.ok(s.AddAddress("eth0", netip.MustParsePrefix("192.0.2.7/24")))
	code, stdout, stderr = s.run("prepare -m dr --vip 192.0.2.7 -i eth0" + state)
	if code != exitFailed || stdout != "" || !strings.HasPrefix(stderr, "shunt-agent: the host is not prepared: nothing was changed: 192.0.2.7: it is on eth0") {
		t.Errorf("a host that cannot be prepared: code %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, _ = s.runAlone("undo" + state)
	if code != exitOK || stdout != "nothing to undo\n" {
		t.Errorf("undo after a host that was not prepared: code %d, %q", code, stdout)
	}
	s.want("decap stop", exitOK, "stopped; interfaces: 1\n", "")
}

// TestLeaving: the service manager waits for the drain, whatever its unit says.
func TestLeaving(t *testing.T) {
	if got, want := leaving(time.Hour), "STOPPING=1\nEXTEND_TIMEOUT_USEC=3630000000"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestRunNotifies: the unit is ready once the settings are read, and is told of the drain.
func TestRunNotifies(t *testing.T) {
	folder := t.TempDir()
	socket := filepath.Join(folder, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	config := filepath.Join(folder, "agent.yaml")
	if err := os.WriteFile(config, []byte("agent: s1\ndirectors: [\"https://127.0.0.1:1\"]\ntoken-file: /none\ndrain: 0s\nmembers: [{pool: web, address: 10.0.0.2, method: nat}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "run", "--config", config)
	cmd.Env = append(os.Environ(), "SHUNT_AGENT_TEST=1", "NOTIFY_SOCKET="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000"} {
		buffer := make([]byte, 256)
		if err := manager.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := manager.Read(buffer)
		if string(buffer[:n]) != want {
			t.Errorf("told %q, %v, want %q", buffer[:n], err, want)
		}
		if want == "READY=1" {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
