package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/director/config"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/config/keepalived"
	"github.com/shunt-lb/shunt/director/config/ldirectord"
	"github.com/shunt-lb/shunt/director/config/translation"
)

func importCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "translate another program's configuration, or take over what is in the kernel", ArgsUsage: "[FILE|SERVICE...]",
		Description: examples("What `ipvsadm -S` saved, a keepalived.conf or an ldirectord.cf becomes a configuration for\n"+
			"`shunt apply`, printed; what could not be carried is told on the standard error, line by line.\n"+
			"Nothing is applied. FILE - is the standard input. Of which program it is, its contents tell.\n\n"+
			"With --adopt nothing is read: services that the kernel has and Shunt does not manage become\n"+
			"Shunt's as they are, without a packet noticing. Without a SERVICE, all of them.",
			"ipvsadm -S -n | shunt import - > shunt.yaml",
			"shunt import /etc/keepalived/keepalived.conf > shunt.yaml",
			"shunt import --strict /etc/ha.d/ldirectord.cf > shunt.yaml && shunt apply -f shunt.yaml --dry-run",
			"shunt import --adopt"),
		Flags: changeFlags(
			&cli.StringFlag{Name: "from", Usage: "the `PROGRAM`: ipvsadm, keepalived or ldirectord, if the contents do not tell"},
			&cli.StringFlag{Name: "id", Usage: "of keepalived's lines for one machine (@ID), those of `ID`: what keepalived -i is given"},
			&cli.BoolFlag{Name: "resolve", Usage: "look up the names of hosts and ports that ldirectord.cf has; else what has one is left out"},
			&cli.BoolFlag{Name: "strict", Usage: "fail if anything of the text could not be carried; what was is printed all the same"},
			&cli.BoolFlag{Name: "adopt", Usage: "take over foreign services of the kernel"},
		),
		Action: importOrAdopt,
	}
}

func importOrAdopt(c *cli.Context) error {
	if c.Bool("adopt") {
		for _, flag := range []string{"from", "id", "resolve", "strict"} {
			if c.IsSet(flag) {
				return usage(c, "--adopt reads no file: --%s has no meaning", flag)
			}
		}
		return asking(func(c *cli.Context, client *api.Client) error {
			return adopt(c, client, c.Args().Slice())
		})(c)
	}
	if c.NArg() != 1 {
		return usage(c, "want one FILE, or --adopt")
	}
	name := c.Args().First()
	result, err := translate(c, name)
	if err != nil {
		return err
	}
	return printTranslation(c, nameOf(name), result)
}

// The programs whose configurations are read.
const (
	fromIPVSAdm    = "ipvsadm"
	fromKeepalived = "keepalived"
	fromLdirectord = "ldirectord"
)

// nameOf is what notes call the file.
func nameOf(file string) string {
	if file == standardInput {
		return "standard input"
	}
	return file
}

// translate reads the file.
func translate(c *cli.Context, name string) (translation.Result, error) {
	var data []byte
	var err error
	if name == standardInput {
		data, err = readInput(c)
	} else {
		data, err = interruptible(c, name, func() ([]byte, error) { return translation.Host{}.ReadFile(name) })
	}
	if err != nil {
		return translation.Result{}, err
	}
	name = nameOf(name)
	program := c.String("from")
	if program == "" {
		if program = guess(name, data); program == "" {
			return translation.Result{}, usage(c, "%s looks like nothing that can be imported: give --from ipvsadm, keepalived or ldirectord", name)
		}
	}
	for flag, of := range map[string]string{"id": fromKeepalived, "resolve": fromLdirectord} {
		if c.IsSet(flag) && program != of {
			return translation.Result{}, usage(c, "--%s is for %s's configuration: %s is %s's", flag, of, name, program)
		}
	}
	switch program {
	case fromIPVSAdm:
		return ipvsadm.Import(name, data)
	case fromKeepalived:
		return keepalived.Import(name, data, keepalived.Options{ID: c.String("id"), Files: translation.Host{}})
	case fromLdirectord:
		options := ldirectord.Options{}
		if c.Bool("resolve") {
			options.Names = language.System{}
		}
		return ldirectord.Import(name, data, options)
	default:
		return translation.Result{}, usage(c, "unknown program %q: want ipvsadm, keepalived or ldirectord", program)
	}
}

// printTranslation prints the configuration, and the notes beside it. A text of which
// nothing is carried is an error: what would come out is an empty configuration, which
// removes all services where it is applied.
func printTranslation(c *cli.Context, name string, result translation.Result) error {
	result.Notes = append(result.Notes, overLimits(name, result.State)...)
	state := result.State
	isEmpty := len(state.Services) == 0 && len(state.Sync) == 0 && state.Timeouts == conntrack.Timeouts{}
	if !isEmpty {
		text, err := config.Format(state, header(result)...)
		if err != nil {
			return err
		}
		if err := write(c.App.Writer, text); err != nil {
			return err
		}
	}
	for _, note := range result.Notes {
		if err := write(c.App.ErrWriter, []byte(note.String()+"\n")); err != nil {
			return err
		}
	}
	if isEmpty {
		return fmt.Errorf("import %s: there is no service, sync daemon or timeout in it that could be carried", name)
	}
	for _, problem := range director.Problems(director.XDPFeatures().Check(result.State)) {
		if err := write(c.App.ErrWriter, []byte(problem.Error()+": it needs director.dataplane: ipvs\n")); err != nil {
			return err
		}
	}
	if n := result.Lacking(); n > 0 && c.Bool("strict") {
		return fmt.Errorf("%s could not be carried", count(n, "thing"))
	}
	return nil
}

// header is the comment that the configuration begins with.
func header(result translation.Result) []string {
	if len(result.Notes) == 0 {
		return nil
	}
	lines := []string{"Imported:"}
	if n := result.Lacking(); n > 0 {
		as := "they were"
		if n == 1 {
			as = "it was"
		}
		lines[0] = fmt.Sprintf("Imported; %s could not be carried as %s:", count(n, "thing"), as)
	}
	for _, note := range result.Notes {
		lines = append(lines, "  "+note.String())
	}
	return lines
}

// overLimits says which sizes of the data plane's tables the state exceeds as they
// are where nothing is set: shuntd refuses it then.
func overLimits(name string, state director.State) []translation.Note {
	servers := 0
	for _, service := range state.Services {
		servers += len(service.Servers)
	}
	defaults, err := config.Parse("", nil)
	if err != nil {
		panic("import: an empty configuration: " + err.Error()) // it is the default one
	}
	limits := defaults.Director.Limits
	var notes []translation.Note
	for _, of := range []struct {
		key         string
		number, max int
	}{{"services", len(state.Services), int(limits.Services)}, {"servers", servers, int(limits.Servers)}} {
		if of.number > of.max {
			notes = append(notes, translation.Note{
				Position: translation.Position{File: name}, Kind: translation.Reminder, What: "director.limits." + of.key,
				Why: fmt.Sprintf("%d %s need more than the %d that shuntd has room for unless it is told: set it to %[1]d or more", of.number, of.key, of.max),
			})
		}
	}
	return notes
}
