package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUsageErrors: a command line that cannot be understood ends with code 2
// and a hint, and asks no daemon.
func TestUsageErrors(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "/nonexistent/shuntd.sock")
	for _, test := range []struct{ args, want string }{
		{"", "no command given"},
		{"serve", `unknown command "serve"`},
		{"--nope", "unknown flag -nope"},
		{"service", "service: no command given"},
		{"service destroy", `service: unknown command "destroy"`},
		{"service add", "service add: URL is missing"},
		{"service add a b", `service add: unexpected argument "b"`},
		{"service add a --nope", "service add: unknown flag -nope"},
		{"service add a --name", "flag --name needs a value"},
		{"service edit", "service edit: SERVICE is missing"},
		{"service edit web", "service edit: nothing to change"},
		{"service remove", "service remove: SERVICE is missing"},
		{"service show", "service show: SERVICE is missing"},
		{"service list web", `service list: unexpected argument "web"`},
		{"service list -o xml", `service list: unknown output format "xml": want table, json or yaml`},
		{"server add web", "server add: ADDRESS is missing"},
		{"server add web 10.0.0.1", "server add: --method is required"},
		{"server add web 10.0.0.1 --method nat --weight x", `server add: weight "x" is not a number from 0 to 65535`},
		{"server add web 10.0.0.1 --method nat --weight -1", `server add: weight "-1" is not a number from 0 to 65535`},
		{"server edit web 10.0.0.1", "server edit: nothing to change"},
		{"server remove web", "server remove: ADDRESS is missing"},
		{"server list a b", `server list: unexpected argument "b"`},
		{"conn list --limit many", `conn list: invalid value "many" for flag -limit: parse error`},
		{"conn list --count --limit 3", "conn list: --count and --limit exclude each other"},
		{"timeouts --tcp 90", `timeouts: --tcp: "90" is not a duration such as 90s or 15m`},
		{"timeouts 90 10 10", `timeouts: unexpected argument "90"`},
		{"status now", `status: unexpected argument "now"`},
		{"stats a b", `stats: unexpected argument "b"`},
		{"drops all", `drops: unexpected argument "all"`},
		{"detach now", `detach: unexpected argument "now"`},
		{"version 2", `version: unexpected argument "2"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(append([]string{"shunt"}, strings.Fields(test.args)...), &stdout, &stderr)
			if code != exitUsage || stdout.Len() > 0 {
				t.Errorf("code %d, stdout %q: want 2 and nothing", code, stdout.String())
			}
			first, rest, _ := strings.Cut(stderr.String(), "\n")
			if diff := cmp.Diff("shunt: "+test.want, first); diff != "" {
				t.Errorf("stderr (-want +got)\n%s", diff)
			}
			if rest != "" && !strings.HasPrefix(rest, "hint: ") {
				t.Errorf("no hint: %q", rest)
			}
		})
	}
}

// TestFailure: what the daemon, or its absence, refuses ends with code 1.
func TestFailure(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "/nonexistent/shuntd.sock")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"shunt", "status"}, &stdout, &stderr); code != exitFailed || stdout.Len() > 0 {
		t.Errorf("code %d, stdout %q: want 1 and nothing", code, stdout.String())
	}
}

func TestHelp(t *testing.T) {
	app := newApp(&bytes.Buffer{}, &bytes.Buffer{})
	for _, c := range app.Commands {
		commands := []string{c.Name}
		for _, sub := range c.Subcommands {
			commands = append(commands, c.Name+" "+sub.Name)
		}
		for _, name := range commands {
			var stdout, stderr bytes.Buffer
			code := run(append([]string{"shunt", "help"}, strings.Fields(name)...), &stdout, &stderr)
			if code != exitOK || stderr.Len() > 0 || !strings.Contains(stdout.String(), "shunt "+name+" - ") {
				t.Errorf("help %s: code %d, stderr %q, stdout %q", name, code, stderr.String(), stdout.String())
			}
		}
	}
}
