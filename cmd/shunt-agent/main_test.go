package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

// TestMain lets the test's binary be the command, for shells that complete by it.
func TestMain(m *testing.M) {
	if os.Getenv("SHUNT_AGENT_TEST") == "1" {
		main()
	}
	os.Exit(m.Run())
}

func TestUsageErrors(t *testing.T) {
	const start = "decap start -i eth0 --vip 192.0.2.1 "
	for args, want := range map[string][2]string{
		"":                                      {"no command given", "shunt-agent"},
		"decap":                                 {"no command given", "shunt-agent decap"},
		"encap":                                 {`unknown command "encap"`, "shunt-agent"},
		"decap begin":                           {`unknown command "begin"`, "shunt-agent decap"},
		"--nope":                                {"unknown flag -nope", "shunt-agent"},
		"decap start --nope":                    {"unknown flag -nope", "shunt-agent decap start"},
		"decap start":                           {"no interface to attach to: give --interface", "shunt-agent decap start"},
		"decap start -i eth0":                   {"no virtual address: give --vip", "shunt-agent decap start"},
		"decap start -i":                        {"flag needs an argument: -i", "shunt-agent decap start"},
		start + "now":                           {`unexpected argument "now"`, "shunt-agent decap start"},
		start + "--vip 192.0.2":                 {`--vip: "192.0.2" is no address: want one such as 192.0.2.1, or a prefix such as 2001:db8::/64`, "shunt-agent decap start"},
		start + "--vip fe80::1%eth0":            {`--vip: "fe80::1%eth0" is no address: want one such as 192.0.2.1, or a prefix such as 2001:db8::/64`, "shunt-agent decap start"},
		start + "--from 10.0.0.1/33":            {`--from: "10.0.0.1/33" is no prefix: want one such as 10.0.0.0/24`, "shunt-agent decap start"},
		start + "--to 10.0.0.1/24":              {"--to: 10.0.0.1/24 has bits behind its length: want 10.0.0.0/24", "shunt-agent decap start"},
		start + "--type ipip,vxlan":             {`--type: unknown tunnel type "vxlan": want ipip, gue or gre`, "shunt-agent decap start"},
		start + "--gue-port 0":                  {`--gue-port: "0" is not a port: want 1 to 65535`, "shunt-agent decap start"},
		start + "--gue-port 65536":              {`--gue-port: "65536" is not a port: want 1 to 65535`, "shunt-agent decap start"},
		start + "--gue-port 1,2,3,4,5,6,7,8,9":  {"--gue-port: 9 ports: at most 8", "shunt-agent decap start"},
		"decap show all":                        {`unexpected argument "all"`, "shunt-agent decap show"},
		"decap show -o xml":                     {`unknown output format "xml": want table, json or yaml`, "shunt-agent decap show"},
		"decap stop it":                         {`unexpected argument "it"`, "shunt-agent decap stop"},
		"prepare":                               {"no method: give --method or --config", "shunt-agent prepare"},
		"prepare -m dsr":                        {`--method: unknown method "dsr": want dr, ipip, gue, gre, tunnel or nat`, "shunt-agent prepare"},
		"prepare -m dr":                         {"no virtual address: dr and tunnels want one: --vip, or host: {vips: [ADDRESS]} in the settings", "shunt-agent prepare"},
		"prepare -m nat":                        {"no director's address: nat wants it, for the route back to clients: --director, or host: {directors: [ADDRESS]} in the settings", "shunt-agent prepare"},
		"prepare -m dr --vip x":                 {`--vip: "x" is no address: want one such as 192.0.2.1, or a prefix such as 2001:db8::/64`, "shunt-agent prepare"},
		"prepare -m nat --director 10.0.0.1/8":  {"--director: 10.0.0.1/8 has bits behind its length: want 10.0.0.0/8", "shunt-agent prepare"},
		"prepare -m nat --client all":           {`--client: "all" is no address: want one such as 192.0.2.1, or a prefix such as 2001:db8::/64`, "shunt-agent prepare"},
		"prepare -m gue --gue-port 0":           {`--gue-port: "0" is not a port: want 1 to 65535`, "shunt-agent prepare"},
		"prepare -m dr --at-start":              {"--at-start: the settings say whether: give --config", "shunt-agent prepare"},
		"prepare -m dr --vip 192.0.2.1 --route": {"the route back is nat's: it is not among the methods", "shunt-agent prepare"},
		"prepare -c f --vip 192.0.2.1":          {"--vip: the settings of --config say that", "shunt-agent prepare"},
		"prepare all":                           {`unexpected argument "all"`, "shunt-agent prepare"},
		"check -m dr --vip 192.0.2.1 --port x":  {`--port: "x" is not a port: want one such as 80 or 53/udp`, "shunt-agent check"},
		"check -m dr --vip 192.0.2.1 -o xml":    {`unknown output format "xml": want table, json or yaml`, "shunt-agent check"},
		"check --route":                         {"unknown flag -route", "shunt-agent check"},
		"undo it":                               {`unexpected argument "it"`, "shunt-agent undo"},
		"undo --vip 192.0.2.1":                  {"unknown flag -vip", "shunt-agent undo"},
		"run":                                   {"no settings: give --config", "shunt-agent run"},
		"completion tcsh":                       {`unknown shell "tcsh": want bash, zsh or fish`, "shunt-agent completion"},
		"version 1":                             {`unexpected argument "1"`, "shunt-agent version"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"shunt-agent"}, strings.Fields(args)...), &stdout, &stderr)
		text := "shunt-agent: " + want[0] + "\nhint: `" + want[1] + " --help` shows how\n"
		if code != exitUsage || stdout.Len() > 0 || stderr.String() != text {
			t.Errorf("%q: code %d, stdout %q, stderr %q, want %q", args, code, stdout.String(), stderr.String(), text)
		}
	}
}

// server is a host on which the command is run.
type server struct {
	*directortest.Namespace

	t    *testing.T
	pins string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, pins: filepath.Join(directortest.Bpffs(t), "agent")}
	var err error
	s.Namespace, err = directortest.NewNamespace("server")
	s.ok(err)
	peer, err := directortest.NewNamespace("peer")
	s.ok(err)
	t.Cleanup(func() { s.ok(errors.Join(s.Close(), peer.Close())) })
	s.ok(s.AddVeth("eth0", peer, "eth0", 0))
	s.ok(s.AddBridge("br0"))
	s.ok(s.AddAddress("eth0", netip.MustParsePrefix("10.0.0.2/24")))
	s.ok(s.AddAddress("lo", netip.MustParsePrefix("192.0.2.1/32")))
	return s
}

func (s *server) ok(err error) {
	if err != nil {
		s.t.Helper()
		s.t.Fatal(err)
	}
}

// run runs the command in the namespace; the pin directory is given behind the words.
func (s *server) run(words string, more ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	var out, err bytes.Buffer
	args := append(append([]string{"shunt-agent"}, strings.Fields(words)...), "--pin-dir", s.pins)
	s.ok(s.Do(func() error {
		code = run(append(args, more...), &out, &err)
		return nil
	}))
	return code, out.String(), err.String()
}

// runAlone is run for commands that know no pins.
func (s *server) runAlone(words string) (code int, stdout, stderr string) {
	s.t.Helper()
	var out, err bytes.Buffer
	s.ok(s.Do(func() error {
		code = run(append([]string{"shunt-agent"}, strings.Fields(words)...), &out, &err)
		return nil
	}))
	return code, out.String(), err.String()
}

// want runs the command and compares all that it says.
func (s *server) want(words string, code int, stdout, stderr string) {
	s.t.Helper()
	gotCode, gotOut, gotErr := s.run(words)
	gotOut = strayPackets.ReplaceAllString(gotOut, "")
	if diff := cmp.Diff([]any{code, stdout, stderr}, []any{gotCode, gotOut, gotErr}); diff != "" {
		s.t.Errorf("%s (-want +got)\n%s", words, diff)
	}
}

// strayPackets is what the link's other end says by itself, as IPv6 does.
var strayPackets = regexp.MustCompile(`(?m)^other .*\n`)

const neverRan = "it is not running: `shunt-agent decap start` starts it\n"

// TestDecap is the life of it: started, shown, changed, stopped.
func TestDecap(t *testing.T) {
	s := newServer(t)
	s.want("decap show", exitOK, neverRan, "")
	s.want("decap stop", exitOK, "it was not running\n", "")
	s.want("decap start --interface eth0 --vip 192.0.2.1", exitOK, "eth0: native mode, ipip, gue, gre\n", "")
	s.want("decap show", exitOK, `INTERFACE  eth0
MODE       native
TYPES      ipip gue gre
GUE-PORTS  6080
VIPS       192.0.2.1
FROM       anywhere
TO         10.0.0.2

COUNTER  KIND   PACKETS  BYTES  MEANING
ipip     taken  0        0      taken out of ipip
gue      taken  0        0      taken out of gue
gre      taken  0        0      taken out of gre
`, "")
	const missing = "shunt-agent: warning: 2001:db8::/64 is not on this host, which does not accept its packets: ip route add local 2001:db8::/64 dev lo\n"
	const generic = "shunt-agent: warning: br0: generic mode, as asked for or as its driver has no native XDP: slower, and it wants packets as they came: ethtool -K br0 gro off\n"
	s.want("decap start -i eth0,br0 --vip 192.0.2.1 --vip 2001:db8::/64 --from 10.0.0.0/24,fd00::1 --to 10.0.0.0/24 --type gre,gue --gue-port 5555",
		exitOK, "eth0: native mode, gue, gre\nbr0: generic mode, gue, gre\n", missing+generic)
	want := shown{
		Interfaces: []shownInterface{{
			Name: "eth0", Mode: "native", Types: []string{"gue", "gre"}, GUEPorts: []uint16{5555},
			VIPs: []string{"192.0.2.1", "2001:db8::/64"}, From: []string{"10.0.0.0/24", "fd00::1"}, To: []string{"10.0.0.0/24"},
		}},
		Warnings: []string{strings.TrimSuffix(strings.TrimPrefix(missing, "shunt-agent: warning: "), "\n"), strings.TrimSuffix(strings.TrimPrefix(generic, "shunt-agent: warning: "), "\n")},
	}
	want.Interfaces = append(want.Interfaces, want.Interfaces[0])
	want.Interfaces[1].Name, want.Interfaces[1].Mode = "br0", "generic"
	for format, parse := range map[string]func([]byte, *shown) error{
		"json": func(b []byte, v *shown) error { return json.Unmarshal(b, v) },
		"yaml": func(b []byte, v *shown) error { return yaml.Load(b, v) },
	} {
		code, stdout, stderr := s.run("decap show -o " + format)
		var got shown
		s.ok(parse([]byte(stdout), &got))
		if code != exitOK || stderr != "" || len(got.Counters) < 20 || got.Counters[0].Name != "other" || got.Counters[0].Help == "" {
			t.Errorf("%s: code %d, stderr %q, counters %+v", format, code, stderr, got.Counters)
		}
		got.Counters = nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", format, diff)
		}
	}
	s.want("decap stop", exitOK, "stopped; interfaces: 2\n", "")
	s.want("decap show", exitOK, neverRan, "")
}

// TestDecap_failures end with 1, a reason and what to do.
func TestDecap_failures(t *testing.T) {
	s := newServer(t)
	const start = "decap start -i eth0 --vip 192.0.2.1"
	s.want("decap start -i eth7 --vip 192.0.2.1", exitFailed, "", "shunt-agent: no such interface: \"eth7\"\nhint: `ip link` lists the interfaces\n")

	passing, err := s.AttachPass("eth0")
	s.ok(err)
	code, _, stderr := s.run(start)
	if code != exitFailed || !strings.HasPrefix(stderr, "shunt-agent: attach to eth0: in use by another XDP program (see: ip link show dev eth0): ") ||
		!strings.HasSuffix(stderr, "\nhint: an interface has one XDP program: that of a director (shuntd) on the same host takes its packets first\n") {
		t.Errorf("another's program: code %d, %q", code, stderr)
	}
	s.ok(passing.Close())

	s.want(start, exitOK, "eth0: native mode, ipip, gue, gre\n", "")
	foreign := filepath.Join(s.pins, "folder")
	s.ok(os.Mkdir(foreign, 0o700))
	for _, words := range []string{start, "decap show", "decap stop"} {
		s.want(words, exitFailed, "", "shunt-agent: not shunt-agent's: "+foreign+"; remove it or give another --pin-dir\n")
	}
	s.ok(os.Remove(foreign))
	s.want("decap stop", exitOK, "stopped; interfaces: 1\n", "")

	folder := t.TempDir()
	code, _, stderr = s.run(start, "--pin-dir", filepath.Join(folder, "agent"))
	want := "shunt-agent: no BPF file system at " + folder + "; mount one with: mount -t bpf bpf /sys/fs/bpf\nhint: systemd mounts it at the boot; in a container, it must be given to that\n"
	if code != exitFailed || stderr != want {
		t.Errorf("no bpffs: code %d, %q, want %q", code, stderr, want)
	}

	s.ok(s.Do(func() error { // the thread ends with the function
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		var stdout, errors bytes.Buffer
		code := run(append([]string{"shunt-agent"}, append(strings.Fields(start), "--pin-dir", s.pins)...), &stdout, &errors)
		if code != exitFailed || !strings.HasPrefix(errors.String(), "shunt-agent: load the program (needs root, or ") || !strings.HasSuffix(errors.String(), "\nhint: run as root\n") {
			t.Errorf("without rights: code %d, %q", code, errors.String())
		}
		return nil
	}))
	if _, err := os.Stat(s.pins); err == nil {
		t.Error("a start that failed left its folder")
	}
}

// TestHelp: every command shows how it is used, and version says which it is.
func TestHelp(t *testing.T) {
	for args, want := range map[string]string{
		"--help": "what a real server does", "decap --help": "start", "decap start --help": "--gue-port PORT",
		"decap show --help": "--output FORMAT", "decap stop -h": "--pin-dir FOLDER", "version": "shunt-agent dev (go",
		"prepare --help": "--dry-run", "check --help": "--port PORT", "undo -h": "--state FILE",
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"shunt-agent"}, strings.Fields(args)...), &stdout, &stderr)
		if code != exitOK || !strings.Contains(stdout.String(), want) || stderr.Len() > 0 {
			t.Errorf("%s: code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}

// everyFlag calls f with each command's words and the flags it has.
func everyFlag(commands []*cli.Command, words string, f func(words string, flags []string)) {
	for _, c := range commands {
		var flags []string
		for _, flag := range c.Flags {
			if name := flag.Names()[0]; name != "help" && name != "generate-bash-completion" {
				flags = append(flags, name)
			}
		}
		f(words+c.Name, flags)
		everyFlag(c.Subcommands, words+c.Name+" ", f)
	}
}

// TestManPage: the page has every command and flag, and groff has nothing to say about it.
func TestManPage(t *testing.T) {
	const page = "../../scripts/package/shunt-agent.1"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.ReplaceAll(string(text), `\-`, "-")
	everyFlag(newApp(nil, nil).Commands, "", func(words string, flags []string) {
		if !strings.Contains(plain, words) {
			t.Errorf("the page does not name the command %q", words)
		}
		for _, flag := range flags {
			if !strings.Contains(plain, "--"+flag) {
				t.Errorf("the page does not name --%s of %s", flag, words)
			}
		}
	})
	if _, err := exec.LookPath("groff"); err != nil {
		if os.Getenv(directortest.RequireEnv) == "1" {
			t.Fatalf("%v: scripts/setup.sh installs it", err)
		}
		t.Skipf("%v: scripts/setup.sh installs it", err)
	}
	said, err := exec.Command("groff", "-man", "-Tutf8", "-ww", "-z", page).CombinedOutput()
	if err != nil || len(said) > 0 {
		t.Errorf("groff: %v\n%s", err, said)
	}
}

// TestCompletion asks the shells what can come next.
func TestCompletion(t *testing.T) {
	folder := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wrapper := "#!/bin/sh\nSHUNT_AGENT_TEST=1 exec " + self + ` "$@"` + "\n"
	if err := os.WriteFile(filepath.Join(folder, "shunt-agent"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	for shell, line := range map[string]string{
		"bash": `source completion/shunt-agent.bash; COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _shunt_agent; printf '%%s\n' "${COMPREPLY[@]}"`,
		"zsh": `compdef() { :; }; _describe() { print -l -- "${candidates[@]%%%%:*}"; }; source completion/shunt-agent.zsh
			words=(%s); CURRENT=$#words; _shunt_agent | grep -- "^${words[CURRENT]}"`,
		"fish": `source completion/shunt-agent.fish; set line %s; complete --do-complete "$line" | cut -f 1`,
	} {
		if _, err := exec.LookPath(shell); err != nil {
			if os.Getenv(directortest.RequireEnv) == "1" {
				t.Fatalf("%v: scripts/setup.sh installs it", err)
			}
			continue
		}
		for words, want := range map[string]string{
			"shunt-agent decap st":        "start stop",
			"shunt-agent decap start --i": "--interface",
			"shunt-agent decap stop --p":  "--pin-dir",
			"shunt-agent undo --s":        "--state",
		} {
			asked := words
			if shell == "fish" {
				asked = "'" + words + "'"
			}
			command := exec.Command(shell, "-c", strings.ReplaceAll(strings.Replace(line, "%s", asked, 1), "%%", "%"))
			if shell == "bash" || shell == "zsh" {
				command.Args[2] = strings.ReplaceAll(command.Args[2], "%%", "%")
			}
			command.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
			out, err := command.CombinedOutput()
			if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
				t.Errorf("%s, %q: %q, %v, want %q", shell, words, got, err, want)
			}
		}
	}
}
