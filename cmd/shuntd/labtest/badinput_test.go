package labtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/directortest"
)

func TestBadCommands(t *testing.T) {
	t.Parallel()
	p := startPair(t, nat)
	before := p.d.configuration(t)
	for _, test := range []struct {
		name, command string
		code          int
		want          string
	}{
		{"duplicate_service", "service add tcp://192.0.2.10:80", 1, "exists already"},
		{"duplicate_name", "service add tcp://192.0.2.11:80 --name web", 1, `name "web"`},
		{"duplicate_server", "server add web 10.2.0.11:80 --method nat", 1, "exists already"},
		{"port_0", "service add tcp://192.0.2.11:0", 1, "port 0"},
		{"port_0_of_a_server", "server add web 10.2.0.13:0 --method nat", 1, "port 0"},
		{"wrong_family", "server add web [fd00:2::b]:80 --method nat", 1, "address family"},
		{"multicast", "service add tcp://224.0.0.1:80", 1, "multicast"},
		{"multicast_IPv6", "service add udp://[ff02::1]:53", 1, "multicast"},
		{"unspecified", "service add tcp://0.0.0.0:80", 1, "0.0.0.0"},
		{"unknown_protocol", "service add sctp://192.0.2.11:80", 1, "sctp"},
		{"unknown_scheduler", "service add tcp://192.0.2.11:80 --scheduler best", 1, "want rr, wrr, lc, wlc"},
		{"flag_of_another_scheduler", "service add tcp://192.0.2.11:80 --scheduler wlc --flags sh-port", 1, "has no flags"},
		{"prefix_of_persistence", "service add tcp://192.0.2.11:80 --persistent 5m --prefix 33", 1, "prefix 33"},
		{"one_packet_tcp", "service add tcp://192.0.2.11:80 --one-packet", 1, "udp"},
		{"thresholds", "server edit web 10.2.0.11:80 --upper 3 --lower 4", 1, "lower threshold 4"},
		{"bits_beyond_the_prefix", "service add tcp://192.0.2.11/24:80", 1, "192.0.2.0/24"},
		{"range_of_ports", "service add tcp://192.0.2.11:90-80", 1, "range of ports"},
		{"drain_of_nobody", "server drain web 10.2.0.99:80", 1, "not found"},
		{"unknown_service", "server add nobody 10.2.0.13:80 --method nat", 1, "not found"},
		{"unknown_server", "server edit web 10.2.0.99:80 --weight 2", 1, "not found"},
		{"method_missing", "server add web 10.2.0.13:80", 2, "--method is required"},
		{"unknown_method", "server add web 10.2.0.13:80 --method teleport", 1, "teleport"},
		{"tunnel_to_another_port", "server add web 10.2.0.13:8080 --method tunnel", 1, "does not rewrite"},
		{"full_NAT_without_addresses", "server add web 10.2.0.13:80 --method fullnat", 1, "fullnat"},
		{"dr_with_another_port", "server add web 10.2.0.13:8080 --method dr", 1, "does not rewrite"},
		{"weight_of_ipvs", "server edit web 10.2.0.11:80 --weight 65536", 1, "the xdp data plane has weights up to 65535"},
		{"weight_too_large", "server edit web 10.2.0.11:80 --weight 2147483648", 2, "2147483647"},
		{"weight_no_number", "server edit web 10.2.0.11:80 --weight heavy", 2, "heavy"},
		{"timeout_0", "timeouts --tcp 0s", 1, "out of range"},
		{"timeout_without_unit", "timeouts --tcp 5", 2, "not a duration"},
		{"timeout_too_long", "timeouts --udp 999999h", 1, "31 days"},
		{"unknown_command", "service destroy web", 2, "unknown command"},
		{"unknown_flag", "service add tcp://192.0.2.11:80 --colour red", 2, "colour"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := p.d.try(t, strings.Fields(test.command)...)
			if r.code != test.code || !strings.Contains(r.stderr, test.want) || !strings.HasPrefix(r.stderr, "shunt: ") {
				t.Errorf("exit code %d, want %d and %q: %s", r.code, test.code, test.want, r.stderr)
			}
			if after := p.d.configuration(t); after != before {
				t.Errorf("configuration before:\n%safter:\n%s", before, after)
			}
		})
	}
	p.requests(t, 4)
}

func TestBadStarts(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Servers: 1})
	prepare := func(t *testing.T) *daemon { return newDaemon(t, lab.Director, []string{"eth0"}) }
	file := func(t *testing.T, text string) []string {
		path := filepath.Join(t.TempDir(), "shunt.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"--config", path}
	}
	for _, test := range []struct {
		name  string
		flags func(*testing.T) []string
		code  int
		want  []string
	}{
		{"unknown_interface", func(*testing.T) []string { return []string{"--interface", "eth77"} }, 1, []string{`interface "eth77"`}},
		{"table_too_small", func(*testing.T) []string { return []string{"--max-connections", "5"} }, 2, []string{"out of range: want 1Ki to"}},
		{"unknown_key", func(t *testing.T) []string { return file(t, "director:\n  colour: red\n") }, 2, []string{"shunt.yaml:2:3", "colour"}},
		{"duplicate_services", func(t *testing.T) []string {
			return file(t, "services:\n- {listen: 'tcp://192.0.2.1:80', method: nat, servers: []}\n- {listen: 'tcp://192.0.2.1:80', method: nat, servers: []}\n")
		}, 2, []string{"shunt.yaml:3:", "already"}},
		{"port_0", func(t *testing.T) []string {
			return file(t, "services:\n- {listen: 'tcp://192.0.2.1:0', method: nat, servers: []}\n")
		}, 2, []string{"shunt.yaml:2:", "port 0"}},
		{"multicast", func(t *testing.T) []string {
			return file(t, "services:\n- {listen: 'tcp://224.0.0.9:80', method: nat, servers: []}\n")
		}, 2, []string{"shunt.yaml:2:", "multicast"}},
		{"wrong_family", func(t *testing.T) []string {
			return file(t, "services:\n- {listen: 'tcp://192.0.2.1:80', method: nat, servers: [{address: 'fd00::1'}]}\n")
		}, 2, []string{"shunt.yaml:2:", "address family"}},
		{"missing_file", func(*testing.T) []string { return []string{"--config", "/nowhere.yaml"} }, 2, []string{"/nowhere.yaml"}},
		{"no_bpffs", func(t *testing.T) []string {
			return []string{"--pin-dir", filepath.Join(t.TempDir(), "pins")}
		}, 1, []string{"mount -t bpf bpf /sys/fs/bpf"}},
		{"address_taken", func(t *testing.T) []string {
			return file(t, "services:\n- {listen: 'tcp://10.1.0.1:80', method: nat, servers: []}\n")
		}, 1, []string{"10.1.0.1 is on eth0 already", "vip: external"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := prepare(t)
			d.args = append(d.args, test.flags(t)...)
			d.fails(t, test.code, test.want...)
			d.noPins(t)
		})
	}

	t.Run("no_bpffs_mounted", func(t *testing.T) {
		d := prepare(t)
		r := execute(t, d.ns.Command(t.Context(), "unshare", append([]string{
			"--mount", "--propagation", "private", "sh", "-c", `umount /sys/fs/bpf && exec "$@"`, "sh", filepath.Join(binaries, "shuntd"),
		}, append(d.args, "--pin-dir", "/sys/fs/bpf/shunt")...)...))
		if r.code != 1 || !strings.Contains(r.stderr, "mount -t bpf bpf /sys/fs/bpf") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
		d.noPins(t)
	})
	t.Run("foreign_pin", func(t *testing.T) {
		d := prepare(t)
		foreign := filepath.Join(d.pins, "mine")
		if err := os.MkdirAll(foreign, 0o700); err != nil {
			t.Fatal(err)
		}
		d.fails(t, 1, foreign, "remove it or give another --pin-dir")
		if r := d.offline(t, "detach", "--pin-dir", d.pins); r.code != 1 || !strings.Contains(r.stderr, foreign) {
			t.Errorf("detach: exit code %d: %s", r.code, r.stderr)
		}
		if entries, err := os.ReadDir(d.pins); err != nil || len(entries) != 1 {
			t.Errorf("the folder has %v, %v: want what was there and no more", entries, err)
		}
	})
	for name, drop := range map[string][]string{
		"without_capabilities": {"--bounding-set=-all", "--inh-caps=-all"},
		"as_nobody":            {"--reuid=65534", "--regid=65534", "--clear-groups"},
	} {
		t.Run(name, func(t *testing.T) {
			d := prepare(t)
			if err := os.Chmod(filepath.Dir(d.socket), 0o777|os.ModeSticky); err != nil {
				t.Fatal(err)
			}
			r := execute(t, d.ns.Command(t.Context(), "setpriv", append(append(drop, filepath.Join(binaries, "shuntd")), d.args...)...))
			if r.code != 1 || !strings.Contains(r.stderr, "hint: run as root, or with the capabilities CAP_NET_ADMIN, CAP_BPF") {
				t.Errorf("exit code %d: %s", r.code, r.stderr)
			}
			d.offline(t, "detach", "--pin-dir", d.pins)
			d.noPins(t)
		})
	}
	for _, name := range lab.DirectorLinks {
		l, err := lab.Director.Netlink().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
			t.Errorf("%s has an XDP program", name)
		}
	}
}
