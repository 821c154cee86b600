package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/cmd/shunt/ipvsadm"
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
			&cli.BoolFlag{Name: "strict", Usage: "fail if anything could not be carried; the configuration is printed all the same"},
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
	result, err := translate(c, c.Args().First())
	if err != nil {
		return err
	}
	return printTranslation(c, result)
}

// The programs whose configurations are read.
const (
	fromIPVSAdm    = "ipvsadm"
	fromKeepalived = "keepalived"
	fromLdirectord = "ldirectord"
)

// translate reads the file.
func translate(c *cli.Context, name string) (translation.Result, error) {
	var data []byte
	var err error
	if name == standardInput {
		data, err = readInput(c)
		name = "standard input"
	} else {
		data, err = interruptible(c, name, func() ([]byte, error) { return translation.Host{}.ReadFile(name) })
	}
	if err != nil {
		return translation.Result{}, err
	}
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

// guess says whose configuration a text is, by its first line that tells; empty
// if none does.
func guess(name string, data []byte) string {
	switch filepath.Base(name) {
	case "keepalived.conf":
		return fromKeepalived
	case "ldirectord.cf":
		return fromLdirectord
	}
	for line := range bytes.Lines(data) {
		words := strings.Fields(string(line))
		if len(words) == 0 {
			continue
		}
		if words[0] == "ipvsadm" && len(words) > 1 {
			words = words[1:]
		}
		key, _, isAssignment := strings.Cut(string(bytes.TrimSpace(line)), "=")
		switch {
		case strings.HasPrefix(words[0], "-"):
			return fromIPVSAdm
		case strings.HasPrefix(words[0], "virtual_server"), words[0] == "global_defs", strings.HasPrefix(words[0], "vrrp_"), words[0] == "include", strings.HasPrefix(words[0], "$"):
			return fromKeepalived
		case isAssignment && !strings.ContainsAny(key, " \t#!{"):
			return fromLdirectord
		}
	}
	return ""
}

// printTranslation prints the configuration, and the notes beside it.
func printTranslation(c *cli.Context, result translation.Result) error {
	var header []string
	if n := len(result.Notes); n > 0 {
		header = append(header, fmt.Sprintf("Imported; %s could not be carried as it was:", count(n, "thing")))
		for _, note := range result.Notes {
			header = append(header, "  "+note.String())
		}
	}
	text, err := config.Format(result.State, header...)
	if err != nil {
		return err
	}
	if err := write(c.App.Writer, text); err != nil {
		return err
	}
	for _, note := range result.Notes {
		if err := write(c.App.ErrWriter, []byte(note.String()+"\n")); err != nil {
			return err
		}
	}
	if xdp, err := director.FeaturesOf(director.PlaneXDP); err == nil {
		for _, problem := range director.Problems(xdp.Check(result.State)) {
			if err := write(c.App.ErrWriter, []byte(problem.Error()+": it needs director.dataplane: ipvs\n")); err != nil {
				return err
			}
		}
	}
	if len(result.Notes) > 0 && c.Bool("strict") {
		return fmt.Errorf("%s could not be carried", count(len(result.Notes), "thing"))
	}
	return nil
}
