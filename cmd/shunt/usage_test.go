package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

// TestUsageErrors: a command line that cannot be understood ends with code 2
// and a hint, and asks no daemon.
func TestUsageErrors(t *testing.T) {
	t.Setenv("SHUNT_SOCKET", "/nonexistent/shuntd.sock")
	for _, test := range []struct{ args, want string }{
		{"", "no command given"},
		{"serve", "server: no command given"},
		{"launch", `unknown command "launch"`},
		{"serv list", `"serv" could be service or server`},
		{"service r web x", `service remove: unexpected argument "x"`},
		{"--color blue status", `unknown --color "blue": want auto, always or never`},
		{"status --watch=1ms", `status: invalid value "1ms" for -watch: want a duration such as 2s, 100ms at least`},
		{"status --watch 1s", "--watch 1s: the interval is written behind ="},
		{"service show --watch 500ms web", "--watch 500ms: the interval is written behind ="},
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
		{"server add web 10.0.0.1 --method nat --weight x", `server add: --weight: "x" is not a weight: want 0 to 2147483647`},
		{"server add web 10.0.0.1 --method nat --weight -1", `server add: --weight: "-1" is not a weight: want 0 to 2147483647`},
		{"server add web 10.0.0.1 --method nat --weight 2147483648", `server add: --weight: "2147483648" is not a weight: want 0 to 2147483647`},
		{"server edit web 10.0.0.1", "server edit: nothing to change"},
		{"server remove web", "server remove: ADDRESS is missing"},
		{"server list a b", `server list: unexpected argument "b"`},
		{"service add a --persistent 90", `service add: --persistent: "90" is not a duration such as 90s or 15m`},
		{"service add a --persistent 0s", "service add: --persistent 0s is out of range: none takes it away"},
		{"service add a --prefix 24", "service add: --prefix is for --persistent"},
		{"service edit a --prefix 129", "service edit: --prefix 129: want 0 to 32, or 1 to 128 for IPv6"},
		{"service edit a --prefix -1", `service edit: invalid value "-1" for flag -prefix: parse error`},
		{"service edit a --timeout-udp soon", `service edit: --timeout-udp: "soon" is not a duration such as 90s or 15m`},
		{"service edit a --conn-reuse-mode all", `service edit: invalid value "all" for flag -conn-reuse-mode: parse error`},
		{"service edit a --sloppy-tcp --no-sloppy-tcp", "service edit: --sloppy-tcp and --no-sloppy-tcp exclude each other"},
		{"service add a --no-sloppy-tcp", "service add: unknown flag -no-sloppy-tcp"},
		{"service add a --limit-rate many", `service add: --limit-rate: "many" is not a number of connections`},
		{"service add a --limit-rate -1", `service add: --limit-rate: "-1" is not a number of connections`},
		{"service edit a --source-connections 4294967296", `service edit: --source-connections: "4294967296" is not a number of connections`},
		{"service edit a --limit-connections 0", "service edit: --limit-connections 0 would let none begin: none takes the limit away"},
		{"service add a --source-prefix 24", "service add: --source-prefix is for --source-rate and --source-connections"},
		{"service edit a --source-prefix 129", "service edit: --source-prefix 129: want 1 to 32, or 1 to 128 for IPv6"},
		{"service edit a --source-prefix 0", "service edit: --source-prefix 0: want 1 to 32, or 1 to 128 for IPv6"},
		{"service edit a --guard always", `service edit: unknown --guard "always": want auto, on or off`},
		{"service edit a --guard on --guard-off 5", "service edit: --guard-on and --guard-off are for --guard auto"},
		{"service edit a --guard-on 5", "service edit: --guard-on and --guard-off are for --guard auto"},
		{"service edit a --guard auto --guard-on 0", "service edit: --guard-on 0 is out of range: want 1 to 1000000"},
		{"service edit a --guard auto --guard-off 1000001", "service edit: --guard-off 1000001 is out of range: want 1 to 1000000"},
		{"server add web 10.0.0.1 --method nat --upper many", `server add: --upper: "many" is not a number of connections`},
		{"server edit web 10.0.0.1 --lower -1", `server edit: --lower: "-1" is not a number of connections`},
		{"server add web 10.0.0.1 --tunnel vxlan", `server add: --tunnel: unknown tunnel type "vxlan": want ipip, gue or gre`},
		{"server add web 10.0.0.1 --tunnel gue:0", `server add: --tunnel "gue:0": want TYPE[:PORT][:CHECKSUM], such as ipip, gre:full or gue:5555:remote`},
		{"server add web 10.0.0.1 --tunnel gue:full:5555", `server add: --tunnel "gue:full:5555": want TYPE[:PORT][:CHECKSUM], such as ipip, gre:full or gue:5555:remote`},
		{"server add web 10.0.0.1 --tunnel gue:5555:full:none", `server add: --tunnel "gue:5555:full:none": want TYPE[:PORT][:CHECKSUM], such as ipip, gre:full or gue:5555:remote`},
		{"server edit web 10.0.0.1 --tunnel gre --method dr", "server edit: --tunnel is for --method tunnel, not dr"},
		{"service add a --engine sip", "service add: --engine is for --persistent"},
		{"service add a --persistent none --engine sip", "service add: --engine is for --persistent, which is none"},
		{"sync", "sync: no command given"},
		{"sync start", "sync start: ROLE is missing"},
		{"sync start slave", `sync start: unknown role "slave": want master or backup`},
		{"sync start master --id 256", "sync start: --id 256 is out of range: want 0 to 255"},
		{"sync start master --port 0", "sync start: --port 0 is out of range: want 1 to 65535"},
		{"sync start master --ttl 256", "sync start: --ttl 256 is out of range: want 1 to 255"},
		{"sync start master --max-length 65508", "sync start: --max-length 65508 is out of range: want 1 to 65507"},
		{"sync stop both", `sync stop: unknown role "both": want master or backup`},
		{"sync list master", `sync list: unexpected argument "master"`},
		{"zero a b", `zero: unexpected argument "b"`},
		{"conn explain fwmark://7 --from 198.51.100.7", "conn explain: fwmark://7 is of a firewall mark, which no address and port tells"},
		{"conn kill", "conn kill: say which: --service, --server, --client, --kind, --state, --age or --idle"},
		{"conn kill --reset", "conn kill: say which: --service, --server, --client, --kind, --state, --age or --idle"},
		{"conn kill web", `conn kill: unexpected argument "web"`},
		{"conn kill --kind all", `conn kill: unknown --kind "all": want connection or template`},
		{"conn list --kind templates", `conn list: unknown --kind "templates": want connection or template`},
		{"conn list --count", "conn list: unknown flag -count"},
		{"conn list -o xml", `conn list: unknown output format "xml": want table, json, yaml or jsonl`},
		{"conn list --age 1h", `conn list: --age: "1h": want >1h, <10s or 1h..6h`},
		{"conn list --age >soon", `conn list: --age: ">soon": "soon" is not a duration such as 90s or 15m`},
		{"conn list --age >", `conn list: --age: ">": "" is not a duration such as 90s or 15m`},
		{"conn list --age <", `conn list: --age: "<": "" is not a duration such as 90s or 15m`},
		{"conn kill --idle <0s", `conn kill: --idle: "<0s": "0s" is not a duration such as 90s or 15m`},
		{"conn dump --idle 1h..", `conn dump: --idle: "1h..": "" is not a duration such as 90s or 15m`},
		{"conn watch --idle 6h..1h", `conn watch: --idle: "6h..1h": nothing is between 6h0m0s and 1h0m0s`},
		{"conn watch -o yaml", `conn watch: unknown output format "yaml": want table or jsonl`},
		{"conn count --by colour", `conn count: unknown --by "colour": want client, server, state, age or idle`},
		{"conn count --limit 3", "conn count: --limit goes with --by"},
		{"conn ages --by state", `conn ages: unknown --by "state": want age or idle`},
		{"conn top --by state", `conn top: unknown --by "state": want client or server`},
		{"conn top --sort size", `conn top: unknown --sort "size": want connections, packets or bytes`},
		{"conn top --interval 1ms", "conn top: --interval 1ms: want 100ms or more"},
		{"conn top --limit 0", "conn top: --limit 0: want 1 or more"},
		{"conn dump -f=", "conn dump: --file is empty"},
		{"conn load -f=", "conn load: --file is empty"},
		{"conn resize", "conn resize: CONNECTIONS is missing, or --ipv6"},
		{"conn resize lots", `conn resize: "lots" is not a number: want digits and, if need be, Ki, Mi or Gi, such as 64Ki`},
		{"conn resize --ipv6 8", "conn resize: --ipv6: 8 is out of range: want 1Ki to 256Mi"},
		{"conn resize 4Mi 1Mi", `conn resize: unexpected argument "1Mi"`},
		{"conn check now", `conn check: unexpected argument "now"`},
		{"conn explain", "conn explain: SERVICE is missing"},
		{"conn explain tcp://192.0.2.1:80", "conn explain: --from ADDRESS[:PORT] is missing"},
		{"conn list --limit many", `conn list: invalid value "many" for flag -limit: parse error`},
		{"service adopt", "service adopt: URL is missing, or --all"},
		{"service adopt tcp://192.0.2.1:80 --all", "service adopt: --all takes no URL"},
		{"service edit web --if-revision now", `service edit: invalid value "now" for flag -if-revision: parse error`},
		{"service edit web --vip external --why=a\u200bb", "service edit: --why: character U+200B is not allowed"},
		{"server drain web", "server drain: ADDRESS is missing"},
		{"server drain web 10.0.0.1 --deadline soon", `server drain: --deadline: "soon" is not a duration such as 90s or 15m`},
		{"server drain web 10.0.0.1 --deadline 999ms", "server drain: --deadline 999ms: want 1s or more; without one --kill removes at once"},
		{"server drain web 10.0.0.1 --deadline 0s", "server drain: --deadline 0s is out of range: none takes it away"},
		{"server drain web 10.0.0.1 --cancel --kill", "server drain: --cancel goes with none of --deadline, --kill and --wait"},
		{"server drain web 10.0.0.1 --cancel --deadline none", "server drain: --cancel goes with none of --deadline, --kill and --wait"},
		{"server drain web 10.0.0.1 --wait --cancel", "server drain: --cancel goes with none of --deadline, --kill and --wait"},
		{"drains a b", `drains: unexpected argument "b"`},
		{"pool", "pool: no command given"},
		{"pool list web", `pool list: unexpected argument "web"`},
		{"pool show", "pool show: POOL is missing"},
		{"pool resolve", "pool resolve: POOL is missing"},
		{"pool remove web", "pool remove: AGENT is missing"},
		{"pool join web", `pool: unknown command "join"`},
		{"apply", "apply: -f FILE is missing"},
		{"apply shunt.yaml", `apply: unexpected argument "shunt.yaml"`},
		{"diff", "diff: -f FILE or REVISION is missing"},
		{"diff -f shunt.yaml 3", "diff: -f and REVISION exclude each other"},
		{"diff new", `diff: revision "new" is not a number from 1`},
		{"diff 1 0", `diff: revision "0" is not a number from 1`},
		{"diff 1 2 3", `diff: unexpected argument "3"`},
		{"rollback", "rollback: REVISION is missing"},
		{"rollback last", `rollback: revision "last" is not a number from 1`},
		{"history 3", `history: unknown command "3"`},
		{"history show", "history show: REVISION is missing"},
		{"history --limit -1", "history: --limit -1: want 0 or more"},
		{"export -o table", `export: unknown output format "table": want yaml or json`},
		{"config check", "config check: FILE is missing"},
		{"config fmt", "config fmt: FILE is missing"},
		{"config schema x", `config schema: unexpected argument "x"`},
		{"completion", "completion: SHELL is missing"},
		{"completion ksh", `completion: unknown shell "ksh": want bash, zsh or fish`},
		{"man nonsense", `man: unknown command "nonsense"`},
		{"man service --dir .", "man: --dir writes all pages: it takes no COMMAND"},
		{"events now", `events: unexpected argument "now"`},
		{"doctor please", `doctor: unexpected argument "please"`},
		{"drift x", `drift: unexpected argument "x"`},
		{"reload now", `reload: unexpected argument "now"`},
		{"timeouts --tcp 1h --watch", "timeouts: --watch shows timeouts; it sets none"},
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
			code := run(t.Context(), append([]string{"shunt"}, strings.Fields(test.args)...), streams{nil, &stdout, &stderr})
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
	if code := run(t.Context(), []string{"shunt", "status"}, streams{nil, &stdout, &stderr}); code != exitFailed || stdout.Len() > 0 {
		t.Errorf("code %d, stdout %q: want 1 and nothing", code, stdout.String())
	}
}

// TestHelp: every command says what it does and how it is used, with examples
// that can be run.
func TestHelp(t *testing.T) {
	walk(newApp(streams{}).Commands, "", func(name string, _ *cli.Command) {
		var stdout, stderr bytes.Buffer
		args := append([]string{"shunt", "help"}, strings.Fields(name)...)
		code := run(t.Context(), args, streams{nil, &stdout, &stderr})
		if code != exitOK || stderr.Len() > 0 || !strings.Contains(stdout.String(), "shunt "+name+" - ") ||
			!strings.Contains(stdout.String(), examplesHeading) {
			t.Errorf("help %s: code %d, stderr %q, stdout %q", name, code, stderr.String(), stdout.String())
		}
	})
}

// walk visits all commands.
func walk(commands []*cli.Command, path string, visit func(name string, c *cli.Command)) {
	for _, c := range commands {
		name := strings.TrimSpace(path + " " + c.Name)
		visit(name, c)
		walk(c.Subcommands, name, visit)
	}
}

// TestExamples: the examples of every command are of that command, and its
// flags and arguments can be read.
func TestExamples(t *testing.T) {
	walk(newApp(streams{}).Commands, "", func(name string, c *cli.Command) {
		if c.Usage == "" || c.Description == "" {
			t.Errorf("%s: there is no usage or no description", name)
		}
		_, lines := splitExamples(c.Description)
		if len(lines) == 0 {
			t.Errorf("%s: there is no example", name)
		}
		for _, line := range lines {
			t.Run(line, func(t *testing.T) { tryExample(t, name, line) })
		}
	})
}

// tryExample reads a command line whose actions do nothing.
func tryExample(t *testing.T, name, line string) {
	start := strings.Index(line, "shunt ")
	if start < 0 {
		t.Fatal("it does not run shunt")
	}
	command, _, _ := strings.Cut(line[start:], " | ")
	command, _, _ = strings.Cut(command, " > ")
	command, _, _ = strings.Cut(strings.TrimSuffix(command, ")"), " && ")
	app, ran := newApp(streams{nil, io.Discard, io.Discard}), ""
	walk(app.Commands, "", func(name string, c *cli.Command) {
		c.Action = func(c *cli.Context) error {
			ran = name
			if len(c.Command.Subcommands) > 0 && c.Args().Present() {
				return noCommand(c)
			}
			return nil
		}
	})
	args, err := reorder(app, split(command))
	if err == nil {
		err = app.RunContext(t.Context(), args)
	}
	if err != nil || ran != name && !strings.HasPrefix(ran, name+" ") {
		t.Errorf("runs %q: %v", ran, err)
	}
}

// split is how a shell splits a line, as far as the examples go.
func split(line string) []string {
	var all []string
	for i, quoted := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, quoted)
			continue
		}
		all = append(all, strings.Fields(quoted)...)
	}
	return all
}
