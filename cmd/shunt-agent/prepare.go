package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver/agent"
	"github.com/shunt-lb/shunt/realserver/agent/role"
)

// roleFlags say what the host is to be.
func roleFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "take all from the members and the host of the agent's settings in `FILE`, in place of the flags"},
		&cli.StringSliceFlag{Name: "method", Aliases: []string{"m"}, Usage: "packets come by `METHOD`: dr, ipip, gue, gre, tunnel (of any type) or nat; may be given several times"},
		&cli.StringSliceFlag{Name: "vip", Usage: "a virtual `ADDRESS` or prefix; may be given several times"},
		&cli.StringSliceFlag{Name: "interface", Aliases: []string{"i"}, Usage: "packets come by `INTERFACE`; may be given several times (default: where the routes to the directors, or else the default routes, leave)"},
		&cli.StringSliceFlag{Name: "director", Usage: "the `ADDRESS` or prefix that tunnels come from, or nat's gateway; may be given several times (default: tunnels from anywhere)"},
		&cli.StringSliceFlag{Name: "client", Usage: "nat's replies go to this `PREFIX`; may be given several times (default: to everyone)"},
		&cli.StringSliceFlag{Name: "gue-port", Usage: fmt.Sprintf("gue comes to this UDP `PORT` (default: %d)", decap.DefaultPort)},
		&cli.StringFlag{Name: "pin-dir", Value: decap.DefaultPinDir, Usage: "decapsulation is kept in `FOLDER`, on a bpffs"},
	}
}

func stateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state", Value: role.DefaultFile, Usage: "`FILE` that keeps what was there before"},
		&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be done, and do nothing"},
	}
}

func prepareCommand() *cli.Command {
	return &cli.Command{
		Name: "prepare", Usage: "make the host what its directors' method wants: addresses, ARP, reverse path filter, decapsulation, route back",
		Description: "What is so already stays as it is, undo takes back the rest; all ends with the next boot.\n\n" +
			"  shunt-agent prepare --method dr --vip 192.0.2.1 --vip 2001:db8::1\n" +
			"  shunt-agent prepare --method ipip --vip 192.0.2.1 --director 10.0.0.1\n" +
			"  shunt-agent prepare --method nat --director 10.0.0.1 --route",
		Flags: append(append(roleFlags(), stateFlags()...),
			&cli.BoolFlag{Name: "route", Usage: "make nat's route back to the clients by the director, if there is none"},
			&cli.BoolFlag{Name: "at-start", Usage: "do nothing unless the settings say host: {prepare: true}; for the unit"}),
		Action: prepareHost,
	}
}

func undoCommand() *cli.Command {
	return &cli.Command{
		Name: "undo", Usage: "put back what was there before prepare; what others have changed since is left alone",
		Flags: stateFlags(), Action: undoHost,
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "say what is wrong with the host for its directors' method, and how to mend it",
		Description: "Nothing is changed. The exit code is 0, or 1 if there are problems. Firewall rules are not looked at.",
		Flags: append(roleFlags(),
			&cli.StringSliceFlag{Name: "port", Usage: "a service has `PORT`, such as 80 or 53/udp, which is to be listened on; may be given several times"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: formatTable, Usage: "`FORMAT` of the answer: table, json or yaml"}),
		Action: checkHost,
	}
}

// readRole reads the flags, or the settings that they name, which are nil without.
func readRole(c *cli.Context) (role.Role, *agent.Settings, error) {
	if err := noArguments(c); err != nil {
		return role.Role{}, nil, err
	}
	read := readRoleFlags
	if c.IsSet("config") {
		read = readRoleSettings
	}
	r, settings, err := read(c)
	if err != nil {
		return r, nil, err
	}
	r.PinDir = c.String("pin-dir")
	for _, value := range c.StringSlice("port") {
		port, err := role.ParsePort(value)
		if err != nil {
			return r, nil, usage(c, "--port: %w", err)
		}
		r.Ports = append(r.Ports, port)
	}
	switch err := r.Validate(); {
	case err != nil && settings != nil:
		return r, nil, &usageError{fmt.Errorf("read the agent's settings: %s: host: %w", c.String("config"), err), ""}
	case err != nil:
		return r, nil, usage(c, "%w", err)
	}
	return r, settings, nil
}

func readRoleSettings(c *cli.Context) (role.Role, *agent.Settings, error) {
	for _, name := range []string{"method", "vip", "interface", "director", "client", "gue-port", "route"} {
		if c.IsSet(name) {
			return role.Role{}, nil, usage(c, "--%s: the settings of --config say that", name)
		}
	}
	settings, err := agent.ReadSettings(c.String("config"))
	if err != nil {
		return role.Role{}, nil, &usageError{err, ""}
	}
	return role.FromSettings(settings), &settings, nil
}

func readRoleFlags(c *cli.Context) (r role.Role, _ *agent.Settings, err error) {
	if c.Bool("at-start") {
		return r, nil, usage(c, "--at-start: the settings say whether: give --config")
	}
	r = role.Role{Interfaces: c.StringSlice("interface"), Route: c.Bool("route")}
	for _, value := range c.StringSlice("method") {
		m, err := role.ParseMethod(value)
		if err != nil {
			return r, nil, usage(c, "--method: %w", err)
		}
		r.Methods = append(r.Methods, m)
	}
	if len(r.Methods) == 0 {
		return r, nil, usage(c, "no method: give --method or --config")
	}
	for _, flag := range []struct {
		name string
		list *[]netip.Prefix
	}{{"vip", &r.VIPs}, {"director", &r.Directors}, {"client", &r.Clients}} {
		for _, value := range c.StringSlice(flag.name) {
			prefix, err := agent.ParsePrefix(value)
			if err != nil {
				return r, nil, usage(c, "--%s: %w", flag.name, err)
			}
			*flag.list = append(*flag.list, prefix)
		}
	}
	for _, value := range c.StringSlice("gue-port") {
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil || port == 0 {
			return r, nil, usage(c, "--gue-port: %q is not a port: want 1 to 65535", value)
		}
		r.GUEPorts = append(r.GUEPorts, uint16(port))
	}
	return r, nil, nil
}

func options(c *cli.Context) role.Options {
	return role.Options{File: c.String("state"), Mode: role.Mode(c.Bool("dry-run"))}
}

func prepareHost(c *cli.Context) error {
	if c.Bool("at-start") && c.IsSet("config") {
		// Who does not want it need not say what it would take.
		if s, err := agent.ReadSettings(c.String("config")); err == nil && !s.Host.Prepare {
			return nil
		}
	}
	r, _, err := readRole(c)
	if err != nil {
		return err
	}
	report, err := role.Prepare(r, options(c))
	if err := printChanges(c, report.Changes, "nothing to change: the host is prepared", err); err != nil {
		return err
	}
	for _, f := range report.Findings {
		text := fmt.Sprintf("%s: %s", f.Subject, f.Text)
		if f.Mend != "" {
			text += "; mend: " + f.Mend
		}
		warn(c, []string{text})
	}
	return err
}

func undoHost(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	report, err := role.Undo(options(c))
	if err := printChanges(c, report.Changes, "nothing to undo", err); err != nil {
		return err
	}
	for _, l := range report.Left {
		warn(c, []string{fmt.Sprintf("left alone, as it was changed since: %s", l)})
	}
	return err
}

// printChanges prints one a line; what there is to say of none only if nothing failed.
func printChanges(c *cli.Context, changes []role.Change, none string, failed error) error {
	would := ""
	if c.Bool("dry-run") {
		would = "would set "
	}
	for _, change := range changes {
		if _, err := fmt.Fprintf(c.App.Writer, "%s%s\n", would, change); err != nil {
			return err
		}
	}
	if len(changes) > 0 || failed != nil {
		return nil
	}
	_, err := fmt.Fprintln(c.App.Writer, none)
	return err
}

// checked is what check prints for programs.
type checked struct {
	OK       bool           `json:"ok" yaml:"ok"`
	Findings []checkedThing `json:"findings" yaml:"findings"`
}

type checkedThing struct {
	Severity role.Severity `json:"severity" yaml:"severity"`
	Subject  string        `json:"subject" yaml:"subject"`
	Text     string        `json:"text" yaml:"text"`
	Mend     string        `json:"mend,omitempty" yaml:"mend,omitempty"` // a command
}

// errUnfit ends a check that found problems.
var errUnfit = errors.New("the host does not fit its role")

func checkHost(c *cli.Context) error {
	r, settings, err := readRole(c)
	if err != nil {
		return err
	}
	if format := c.String("output"); format != formatTable && format != formatJSON && format != formatYAML {
		return usage(c, "unknown output format %q: want table, json or yaml", format)
	}
	findings, err := role.Check(r)
	if err != nil {
		return err
	}
	if settings != nil {
		findings = append(findings, role.CheckDirectors(c.Context, *settings)...)
	}
	answer := checked{OK: true, Findings: []checkedThing{}}
	for _, f := range findings {
		answer.OK = answer.OK && f.Severity != role.Problem
		answer.Findings = append(answer.Findings, checkedThing{f.Severity, f.Subject, f.Text, f.Mend})
	}
	if err := printCheck(c, answer); err != nil {
		return err
	}
	if !answer.OK {
		return errUnfit
	}
	return nil
}

func printCheck(c *cli.Context, answer checked) error {
	switch c.String("output") {
	case formatTable:
		for _, f := range answer.Findings {
			fmt.Fprintf(c.App.Writer, "%s: %s: %s\n", f.Severity, f.Subject, f.Text)
			if f.Mend != "" {
				fmt.Fprintf(c.App.Writer, "  %s\n", f.Mend)
			}
		}
		if answer.OK {
			fmt.Fprintln(c.App.Writer, "no problems found")
		}
		_, err := fmt.Fprintln(c.App.Writer, "firewall rules were not looked at")
		return err
	case formatJSON:
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(answer)
	default:
		text, err := yaml.Dump(answer, yaml.WithIndent(2))
		if err != nil {
			return fmt.Errorf("print as yaml: %w", err)
		}
		_, err = c.App.Writer.Write(text)
		return err
	}
}
