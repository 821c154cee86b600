package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func serviceCommand() *cli.Command {
	return &cli.Command{
		Name:  "service",
		Usage: "virtual services: what clients connect to",
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a service", ArgsUsage: "URL",
				Description: "shunt service add tcp://192.0.2.10:80 --name web --scheduler wrr",
				Flags:       serviceFlags(), Action: addService,
			},
			{
				Name: "edit", Usage: "change what is named and nothing else", ArgsUsage: "SERVICE",
				Description: "shunt service edit web --scheduler sh --flags sh-port,sh-fallback",
				Flags:       serviceFlags(), Action: editService,
			},
			{
				Name: "remove", Usage: "remove a service with its servers; its connections end", ArgsUsage: "SERVICE",
				Action: removeService,
			},
			{
				Name: "list", Usage: "list services", ArgsUsage: " ",
				Flags: []cli.Flag{outputFlag()}, Action: listServices,
			},
			{
				Name: "show", Usage: "show a service and its servers", ArgsUsage: "SERVICE",
				Flags: []cli.Flag{outputFlag()}, Action: showService,
			},
		},
	}
}

func serviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "a `NAME` to call the service by"},
		&cli.StringFlag{Name: "scheduler", Aliases: []string{"s"}, Usage: "`SCHEDULER`: rr, wrr, sh or mh (a new service's default: wrr)"},
		&cli.StringFlag{Name: "flags", Aliases: []string{"b"}, Usage: "scheduler `FLAGS`, all of them, with commas: sh-port, sh-fallback, mh-port, mh-fallback"},
		&cli.StringFlag{Name: "vip", Usage: "who puts the address on the host, `OWNER`: managed (Shunt; a new service's default) or external"},
	}
}

func addService(c *cli.Context) error {
	args, err := arguments(c, "URL")
	if err != nil {
		return err
	}
	service := api.ServiceConfig{
		Listen: args[0], Name: c.String("name"), Scheduler: c.String("scheduler"),
		Flags: words(c.String("flags")), VIP: c.String("vip"),
	}
	return client(c).AddService(c.Context, service)
}

func editService(c *cli.Context) error {
	args, err := arguments(c, "SERVICE")
	if err != nil {
		return err
	}
	edit := api.ServiceEdit{Name: given(c, "name"), Scheduler: given(c, "scheduler"), VIP: given(c, "vip")}
	if c.IsSet("flags") {
		flags := words(c.String("flags"))
		edit.Flags = &flags
	}
	if edit == (api.ServiceEdit{}) {
		return usage(c, "nothing to change")
	}
	return client(c).EditService(c.Context, args[0], edit)
}

func removeService(c *cli.Context) error {
	args, err := arguments(c, "SERVICE")
	if err != nil {
		return err
	}
	return client(c).RemoveService(c.Context, args[0])
}

func listServices(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	services, err := client(c).Services(c.Context)
	if err != nil {
		return err
	}
	return output(c, services, func(w io.Writer) {
		row(w, "PROTO", "VIP", "NAME", "SCHEDULER", "FLAGS", "OWNER", "REACHABLE", "ACTIVE", "INACTIVE")
		for _, s := range services {
			serviceRow(w, s)
		}
	})
}

func serviceRow(w io.Writer, s api.Service) {
	reachable, active, inactive := 0, uint64(0), uint64(0)
	for _, server := range s.Servers {
		if server.Reachable {
			reachable++
		}
		active += server.Active
		inactive += server.Inactive
	}
	protocol, vip := splitURL(s.Listen)
	row(w, protocol, vip, s.Name, s.Scheduler, strings.Join(s.Flags, ","), s.VIP,
		fmt.Sprintf("%d/%d", reachable, len(s.Servers)), active, inactive)
}

func showService(c *cli.Context) error {
	args, err := arguments(c, "SERVICE")
	if err != nil {
		return err
	}
	service, err := client(c).Service(c.Context, args[0])
	if err != nil {
		return err
	}
	return output(c, service, func(w io.Writer) {
		row(w, "service", service.Listen)
		row(w, "name", service.Name)
		row(w, "scheduler", service.Scheduler)
		row(w, "flags", strings.Join(service.Flags, ","))
		row(w, "owner of vip", service.VIP)
		fmt.Fprintln(w)
		row(w, "SERVER", "METHOD", "WEIGHT", "ACTIVE", "INACTIVE", "STATE")
		for _, s := range service.Servers {
			row(w, s.Address, s.Method, s.Weight, s.Active, s.Inactive, serverState(s))
		}
	})
}

// given returns a flag's value, or nil where the flag was not given.
func given(c *cli.Context, name string) *string {
	if !c.IsSet(name) {
		return nil
	}
	value := c.String(name)
	return &value
}

// words splits a list with commas.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}
