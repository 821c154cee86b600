package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

func serviceCommand() *cli.Command {
	return &cli.Command{
		Name:        "service",
		Usage:       "virtual services: what clients connect to",
		Description: examples("", "shunt service add tcp://192.0.2.10:80 --name web", "shunt service list"),
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a service", ArgsUsage: "URL",
				Description: examples("URL is tcp://ADDRESS:PORT, or udp, or on the data plane ipvs sctp; an address can be a prefix and a\n"+
					"port a range on the data plane xdp. fwmark://MARK, and fwmark6://MARK for IPv6, is the service of\n"+
					"the packets that the firewall gives the mark (data plane ipvs): the command says how that is done.",
					"shunt service add tcp://192.0.2.10:80 --name web --scheduler wrr",
					"shunt service add udp://[2001:db8::10]:53 -s sh --flags sh-port --why 'ticket 4711'",
					"shunt service add tcp://192.0.2.10:22 --allow 198.51.100.0/24 --deny 198.51.100.66",
					"shunt service add tcp://192.0.2.10:443 --persistent 5m --prefix 24 --timeout-tcp 1h",
					"shunt service add tcp://192.0.2.10:443 --limit-rate 5000 --source-prefix 24 --source-connections 1000 --guard auto",
					"shunt service add tcp://192.0.2.10:8443 --mss 1400",
					"shunt service add tcp://192.0.2.0/24:8000-8999 --vip external",
					"shunt service add udp://192.0.2.10:514 --one-packet",
					"shunt service add udp://192.0.2.10:5060 --persistent 5m --engine sip",
					"shunt service add fwmark://7 --name shop --vip external"),
				Flags: changeFlags(append(serviceFlags(), settingFlags()...)...), Action: asking(addService),
			},
			{
				Name: "edit", Usage: "change what is named and nothing else", ArgsUsage: "SERVICE",
				Description: examples("",
					"shunt service edit web --scheduler sh --flags sh-port,sh-fallback",
					"shunt service edit web --allow none --deny 203.0.113.0/24",
					"shunt service edit web --persistent none --timeout-tcp none --no-sloppy-tcp",
					"shunt service edit web --limit-rate none --guard auto --guard-on 500"),
				Flags: changeFlags(append(serviceFlags(), settingEditFlags()...)...), Action: asking(editService),
			},
			{
				Name: "remove", Usage: "remove a service with its servers; its connections end", ArgsUsage: "SERVICE",
				Description: examples("If its servers have connections or templates, it says how many this cuts: a terminal is\n"+
					"asked first, and without one --yes is wanted.",
					"shunt service remove web", "shunt service remove tcp://192.0.2.10:80 --why 'moved to host b'"),
				Flags: changeFlags(yesFlag()), Action: asking(removeService),
			},
			{
				Name: "adopt", Usage: "manage services that are in the kernel and not Shunt's, as they are", ArgsUsage: "[URL...]",
				Description: examples("`shunt drift` shows which there are. From then on a service is kept as it was found; a server\n"+
					"that is drained in it goes on draining, without a deadline. All are one revision. What Shunt could\n"+
					"not keep as it is stays foreign: the command says why, and fails.",
					"shunt service adopt tcp://192.0.2.10:80", "shunt service adopt --all"),
				Flags:  changeFlags(&cli.BoolFlag{Name: "all", Usage: "all that the kernel has"}),
				Action: asking(adoptServices),
			},
			{
				Name: "list", Usage: "list services",
				Description: examples("", "shunt service list", "shunt service list -o json", "shunt service list --watch"),
				Flags:       readFlags(), Action: reading(asking(listServices)),
			},
			{
				Name: "show", Usage: "show a service and its servers", ArgsUsage: "SERVICE",
				Description: examples("", "shunt service show web --watch=1s"),
				Flags:       readFlags(), Action: reading(asking(showService)),
			},
		},
	}
}

// schedulerNames lists the schedulers this version has.
func schedulerNames() string {
	var names []string
	for _, s := range director.Schedulers() {
		names = append(names, string(s))
	}
	return alternatives(names)
}

func serviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "a `NAME` to call the service by; '' leaves it without one"},
		&cli.StringFlag{Name: "scheduler", Aliases: []string{"s"}, Usage: "`SCHEDULER`: " + schedulerNames() + " (a new service's default: " + string(director.DefaultScheduler) + ")"},
		&cli.StringFlag{Name: "flags", Aliases: []string{"b"}, Usage: "scheduler `FLAGS`, all of them, with commas: sh-port, sh-fallback, mh-port, mh-fallback; flag-1 to flag-3 of any"},
		&cli.StringFlag{Name: "vip", Usage: "who puts the address on the host, `OWNER`: managed (Shunt; a new service's default) or external"},
		&cli.StringSliceFlag{Name: "allow", Usage: "let clients of `PREFIX` in and no others; for several, give it several times; none: all"},
		&cli.StringSliceFlag{Name: "deny", Usage: "keep clients of `PREFIX` out; for several, give it several times; none: nobody"},
	}
}

// prefixes reads --allow or --deny; nil where it was not given, and empty for
// "none".
func prefixes(c *cli.Context, name string) (*[]string, error) {
	if !c.IsSet(name) {
		return nil, nil
	}
	list := c.StringSlice(name)
	for _, text := range list {
		switch {
		case text == "none" && len(list) > 1:
			return nil, usage(c, "--%s none stands alone", name)
		case text == "none":
			return &[]string{}, nil
		}
	}
	return &list, nil
}

func addService(c *cli.Context, client *api.Client) error {
	service := api.ServiceConfig{
		Listen: c.Args().Get(0), Name: c.String("name"), Scheduler: c.String("scheduler"),
		Flags: words(c.String("flags")), VIP: c.String("vip"),
	}
	allow, err := prefixes(c, "allow")
	if err != nil {
		return err
	}
	deny, err := prefixes(c, "deny")
	if err != nil {
		return err
	}
	if allow != nil || deny != nil {
		service.Access = &api.Access{}
		if allow != nil {
			service.Access.Allow = *allow
		}
		if deny != nil {
			service.Access.Deny = *deny
		}
	}
	var settings api.ServiceEdit
	if err := readSettings(c, &settings); err != nil {
		return err
	}
	if err := configure(c, &service, settings); err != nil {
		return err
	}
	if _, err := client.AddService(c.Context, service, terms(c)); err != nil {
		return err
	}
	return sayMark(c, service.Listen)
}

// sayMark says how packets get the firewall mark of a service, if it has one.
func sayMark(c *cli.Context, listen string) error {
	key, err := director.ParseServiceKey(listen)
	if err != nil || !key.IsMark() {
		return nil // the daemon has taken it: a newer one knows more URLs
	}
	return write(c.App.Writer, []byte(director.MarkHint(key)))
}

func editService(c *cli.Context, client *api.Client) error {
	edit := api.ServiceEdit{Name: given(c, "name"), Scheduler: given(c, "scheduler"), VIP: given(c, "vip")}
	if c.IsSet("flags") {
		flags := words(c.String("flags"))
		edit.Flags = &flags
	}
	var access api.AccessEdit
	var err error
	if access.Allow, err = prefixes(c, "allow"); err != nil {
		return err
	}
	if access.Deny, err = prefixes(c, "deny"); err != nil {
		return err
	}
	if access != (api.AccessEdit{}) {
		edit.Access = &access
	}
	if err := readSettings(c, &edit); err != nil {
		return err
	}
	if edit == (api.ServiceEdit{}) {
		return usage(c, "nothing to change")
	}
	ref := c.Args().Get(0)
	return exact(c, client, ref, "", func() error {
		_, err := client.EditService(c.Context, ref, edit, terms(c))
		return err
	})
}

func removeService(c *cli.Context, client *api.Client) error {
	ref := c.Args().Get(0)
	return exact(c, client, ref, "", func() error {
		service, err := client.Service(c.Context, ref)
		if err != nil {
			return err
		}
		cut := lossesOf(serversOf(service)...)
		if err := confirmCut(c, "service "+service.Listen, cut); err != nil {
			return err
		}
		if _, err := client.RemoveService(c.Context, ref, terms(c)); err != nil {
			return err
		}
		return sayCut(c, cut)
	})
}

func adoptServices(c *cli.Context, client *api.Client) error {
	urls := c.Args().Slice()
	switch {
	case c.Bool("all") && len(urls) > 0:
		return usage(c, "--all takes no URL")
	case !c.Bool("all") && len(urls) == 0:
		return usage(c, "URL is missing, or --all")
	}
	return adopt(c, client, urls)
}

func listServices(c *cli.Context, client *api.Client) error {
	services, err := client.Services(c.Context)
	if err != nil {
		return err
	}
	return output(c, services, func(t *table) {
		persistent := slices.ContainsFunc(services, func(s api.Service) bool { return s.Persistence != nil })
		header := []any{"PROTO", "VIP", "NAME", "SCHEDULER", "FLAGS", "OWNER", "REACHABLE", "ACTIVE", "INACTIVE"}
		if persistent {
			header = append(header, "TEMPLATES", "PERSISTENT")
		}
		draining := slices.ContainsFunc(services, func(s api.Service) bool { return drainingOf(s) > 0 })
		if draining {
			header = append(header, "DRAINING")
		}
		guarded := slices.ContainsFunc(services, func(s api.Service) bool { return s.Guard != nil })
		if guarded {
			header = append(header, "GUARD")
		}
		refused := slices.ContainsFunc(services, func(s api.Service) bool { return s.Limits != nil || s.Refused != nil })
		if refused {
			header = append(header, "REFUSED")
		}
		t.row(header...)
		for _, s := range services {
			row := serviceRow(t, s, persistent)
			if draining {
				row = append(row, drainingOf(s))
			}
			if guarded {
				row = append(row, guardCell(t, s))
			}
			if refused {
				row = append(row, refusedOf(s.Refused))
			}
			t.row(row...)
		}
	})
}

// serviceRow returns a service in a line; how it is persistent only where one is.
func serviceRow(t *table, s api.Service, persistent bool) []any {
	reachable, active, inactive, templates := 0, uint64(0), uint64(0), uint64(0)
	servers := serversOf(s)
	for _, server := range servers {
		if server.Reachable {
			reachable++
		}
		active += server.Active
		inactive += server.Inactive
		templates += server.Templates
	}
	shown := fmt.Sprintf("%d/%d", reachable, len(servers))
	switch {
	case len(servers) == 0:
	case reachable == 0:
		shown = t.in(red, shown)
	case reachable < len(servers):
		shown = t.in(yellow, shown)
	default:
		shown = t.in(green, shown)
	}
	owner := s.VIP
	if s.Foreign {
		owner = t.in(yellow, "foreign")
	}
	protocol, vip := splitURL(s.Listen)
	row := []any{protocol, vip, s.Name, s.Scheduler, strings.Join(s.Flags, ","), owner, shown, active, inactive}
	if persistent {
		how := ""
		if s.Persistence != nil {
			how = persistenceText(s.Persistence)
		}
		row = append(row, templates, how)
	}
	return row
}

// drainingOf counts the servers that are being drained.
func drainingOf(s api.Service) int {
	n := 0
	for _, server := range serversOf(s) {
		if server.Draining {
			n++
		}
	}
	return n
}

func showService(c *cli.Context, client *api.Client) error {
	return lookUp(c, client, c.Args().Get(0), func(ref string) error {
		service, err := client.Service(c.Context, ref)
		if err != nil {
			return err
		}
		return output(c, service, func(t *table) { serviceTable(t, service, downBy(c, client, service.Listen)) })
	})
}

func serviceTable(t *table, s api.Service, down map[[2]string]bool) {
	t.row("service", s.Listen)
	t.row("name", s.Name)
	t.row("scheduler", s.Scheduler)
	t.row("flags", strings.Join(s.Flags, ","))
	t.row("owner of vip", s.VIP)
	if s.Access != nil {
		t.row("allowed clients", accessText(s.Access.Allow, "all"))
		t.row("denied clients", accessText(s.Access.Deny, ""))
	}
	settingRows(t, s)
	if s.Foreign {
		t.row("managed", t.in(yellow, "no: it is in the kernel, but not Shunt's (see `shunt service adopt`)"))
	}
	t.blank()
	servers := serversOf(s)
	columns := columnsOf(servers...)
	t.row(columns.header()...)
	for i, server := range servers {
		t.row(columns.row(t, serverOf{s.Listen, s.Name, i >= len(s.Servers), server}, down[[2]string{s.Listen, server.Address}])...)
	}
}

// accessText lists prefixes, or says what no prefix means.
func accessText(prefixes []string, none string) string {
	if len(prefixes) == 0 {
		return none
	}
	return strings.Join(prefixes, ", ")
}
