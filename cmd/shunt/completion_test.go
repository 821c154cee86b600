package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/director"
)

// seededDaemon runs the seeded one for a Go test; SHUNT_SOCKET names it.
func seededDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{socket: filepath.Join(t.TempDir(), "run", "shuntd.sock")}
	d.seed()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop() })
	t.Setenv("SHUNT_SOCKET", d.socket)
	return d
}

// namesFrom are the schedulers whose names begin so.
func namesFrom(prefix string) string {
	var names []string
	for _, s := range director.Schedulers() {
		if strings.HasPrefix(string(s), prefix) {
			names = append(names, string(s))
		}
	}
	return strings.Join(names, " ")
}

// TestComplete: what can come next, in words without their help.
func TestComplete(t *testing.T) {
	if err := seededDaemon(t).register("blue"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ words, want string }{
		{"service s", "show"},
		{"servi a", "add adopt"},
		{"serv ", ""}, // service or server?
		{"help ", ""},
		{"status --o", "--output"},
		{"server drain web 10.0.0.11:8080 --deadline ", "5m 15m 1h none"},
		{"server drain web ", "10.0.0.11:8080 10.0.0.12:80"},
		{"drains ", "web udp://[2001:db8::10]:53"},
		{"status --watch=", "--watch=1s --watch=2s --watch=10s"},
		{"status -o ", "table json yaml"},
		{"status --output=j", "--output=json"},
		{"status --output ", "table json yaml"},
		{"status --c", "--cacert --cert --color"},
		{"--color ", "auto always never"},
		{"--color never sta", "status stats"},
		{"status -- --", ""},
		{"nonsense ", ""},
		{"service add ", ""},
		{"service add tcp://192.0.2.1:1 --scheduler m", "mh"},
		{"service edit web --no-s", "--no-sloppy-tcp"},
		{"scheduler simulate --hold ", "open closed"},
		{"scheduler simulate -s l", namesFrom("l")},
		{"service add x --no-s", ""},
		{"service edit web --conn-reuse-mode ", "0 1 3"},
		{"service edit web --mss ", "1400 1360 none"},
		{"service edit web --guard ", "auto on off"},
		{"service add x --flags sh-port,sh", "sh-port,sh-fallback"},
		{"service edit web --vip ", "managed external"},
		{"service show ", "web udp://[2001:db8::10]:53"},
		{"service show w", "web"},
		{"service show tcp", "tcp://192.0.2.10:80"},
		{"service show web ", ""},
		{"server add web ", ""},
		{"server add web 10.0.0.1 --method ", "nat dr tunnel fullnat local"},
		{"server add web 10.0.0.1 --tunnel gu", "gue:5555 gue:5555:full gue:5555:remote"},
		{"service add x --engine ", "sip none"},
		{"service add x --flags flag-1,f", "flag-1,flag-2 flag-1,flag-3"},
		{"sync st", "start stop"},
		{"sync start ", "master backup"},
		{"sync stop b", "backup"},
		{"zero ", "web udp://[2001:db8::10]:53"},
		{"server edit web ", "10.0.0.11:8080 10.0.0.12:80"},
		{"server edit we 10.0.0.12", "10.0.0.12:80"},
		{"server edit nobody ", ""},
		{"conn list --server [", "[2001:db8:1::1]:53"},
		{"conn kill --server [", "[2001:db8:1::1]:53"},
		{"conn kill --kind ", "connection template"},
		{"conn kill --state CLOSE", "CLOSE CLOSE_WAIT CLOSED"},
		{"conn list --state FIN", "FIN_WAIT"},
		{"conn count --by ", "client server state age idle"},
		{"conn top --by ", "client server"},
		{"conn top --sort ", "connections packets bytes"},
		{"conn ages --by ", "age idle"},
		{"conn watch --age ", ">1h <10s 1h..6h"},
		{"conn dump --server 10.0.0.11", "10.0.0.11:8080"},
		{"conn list -o ", "table json yaml jsonl"},
		{"conn watch -o ", "table jsonl"},
		{"conn load -f ", ":files"},
		{"conn explain w", "web"},
		{"conn list --service ", "web udp://[2001:db8::10]:53"},
		{"pool ", "list show resolve remove"},
		{"pool show ", "blue"},
		{"pool remove blue ", "s1 s2 s4"},
		{"token create --pool ", "blue"},
		{"rollback ", "1"},
		{"diff 1 ", "1"},
		{"diff 1 1 ", ""},
		{"service edit web --if-revision ", "1"},
		{"completion ", "bash zsh fish"},
		{"token create --role ", "agent viewer operator admin"},
		{"events --name drop", "drops-started drops-ended"},
		{"apply --file ", ":files"},
		{"config check ", ":files"},
		{"config check a ", ":files"},
		{"config check --dataplane ", "xdp ipvs"},
		{"--socket /nonexistent/s service show ", ""}, // silent where nobody answers
	} {
		t.Run(test.words, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"shunt", completeCommand}, strings.Split(test.words, " ")...)
			if code := run(t.Context(), args, streams{nil, &stdout, &stderr}); code != exitOK || stderr.Len() > 0 {
				t.Errorf("code %d, stderr %q", code, stderr.String())
			}
			var got []string
			for line := range strings.Lines(stdout.String()) {
				word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				got = append(got, word)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// shellCases are lines typed before a tab, and the words they then have.
var shellCases = []struct{ typed, want string }{
	{"shunt vers", "<shunt><version>"},
	{"shunt service list --out", "<shunt><service><list><--output>"},
	{"shunt service list -o js", "<shunt><service><list><-o><json>"},
	{"shunt service list --output=ya", "<shunt><service><list><--output=yaml>"},
	{"shunt service show we", "<shunt><service><show><web>"},
	{"shunt service show tcp://192.0.2.10:", "<shunt><service><show><tcp://192.0.2.10:80>"},
	{"shunt server edit web 10.0.0.11", "<shunt><server><edit><web><10.0.0.11:8080>"},
	{"shunt apply -f on", "<shunt><apply><-f><only-one.yaml>"},
}

// TestShells: the scripts do in the shells themselves what TestComplete says.
func TestShells(t *testing.T) {
	for _, shell := range []struct {
		name string
		args []string
	}{
		{"bash", []string{"--norc", "--noprofile", "-i"}},
		{"zsh", []string{"-f", "-i"}},
		{"fish", []string{"--no-config", "-i"}},
	} {
		t.Run(shell.name, func(t *testing.T) {
			if _, err := exec.LookPath(shell.name); err != nil {
				if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
					t.Fatalf("%v: scripts/setup.sh installs it", err)
				}
				t.Skipf("%v: scripts/setup.sh installs it", err)
			}
			seededDaemon(t)
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "only-one.yaml"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Chdir(folder)
			term := startTerminal(t, []string{"TERM=xterm", "PS1=> ", "HOME=" + folder, "LC_ALL=C.UTF-8", "fish_greeting="}, shell.name, shell.args...)
			term.send(map[string]string{
				"bash": "source <(shunt completion bash); bind 'set bell-style none'; echo rea''dy\r",
				"zsh":  "autoload -U compinit; compinit -u -D; source <(shunt completion zsh); bindkey -e; echo rea''dy\r",
				"fish": "shunt completion fish | source; echo rea''dy\r",
			}[shell.name])
			term.expect("ready")
			for _, test := range shellCases {
				// A tab, then to the line's beginning, to print the words it has.
				term.send(test.typed + "\t\x01printf '<%s>' \x05\r")
				term.expect(test.want)
			}
		})
	}
}
