package main

import (
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

func serverCommand() *cli.Command {
	return &cli.Command{
		Name:  "server",
		Usage: "real servers of a service",
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a server to a service", ArgsUsage: "SERVICE ADDRESS[:PORT]",
				Description: "shunt server add web 10.0.0.11:8080 --method nat --weight 3\n\n" +
					"The port is the service's unless given; only nat can change it. The method has no\n" +
					"default, because those of ipvsadm and keepalived differ.",
				Flags: serverFlags(), Action: addServer,
			},
			{
				Name: "edit", Usage: "change what is named and nothing else", ArgsUsage: "SERVICE ADDRESS[:PORT]",
				Description: "shunt server edit web 10.0.0.11:8080 --weight 0\n\n" +
					"Weight 0 keeps the server's connections and gives it no new ones.",
				Flags: serverFlags(), Action: editServer,
			},
			{
				Name: "remove", Usage: "remove a server; its connections end", ArgsUsage: "SERVICE ADDRESS[:PORT]",
				Action: removeServer,
			},
			{
				Name: "list", Usage: "list the servers of a service, or of all", ArgsUsage: "[SERVICE]",
				Flags: []cli.Flag{outputFlag()}, Action: listServers,
			},
		},
	}
}

func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "method", Aliases: []string{"m"}, Usage: "forwarding `METHOD`: nat, dr or local"},
		&cli.StringFlag{Name: "weight", Aliases: []string{"w"}, Usage: "share of new connections, `0-65535` (a new server's default: 1)"},
	}
}

// weight reads --weight; nil where it was not given.
func weight(c *cli.Context) (*uint32, error) {
	if !c.IsSet("weight") {
		return nil, nil
	}
	value, err := strconv.ParseUint(c.String("weight"), 10, 32)
	if err != nil {
		return nil, usage(c, "weight %q is not a number from 0 to 65535", c.String("weight"))
	}
	w := uint32(value)
	return &w, nil
}

func addServer(c *cli.Context) error {
	args, err := arguments(c, "SERVICE", "ADDRESS")
	if err != nil {
		return err
	}
	if c.String("method") == "" {
		return &usageError{"server add: --method is required", "one of nat, dr, local; it has no default, because those of ipvsadm and keepalived differ"}
	}
	weight, err := weight(c)
	if err != nil {
		return err
	}
	server := api.ServerConfig{Address: args[1], Method: c.String("method"), Weight: weight}
	return client(c).AddServer(c.Context, args[0], server)
}

func editServer(c *cli.Context) error {
	args, err := arguments(c, "SERVICE", "ADDRESS")
	if err != nil {
		return err
	}
	edit := api.ServerEdit{Method: given(c, "method")}
	if edit.Weight, err = weight(c); err != nil {
		return err
	}
	if edit == (api.ServerEdit{}) {
		return usage(c, "nothing to change")
	}
	return client(c).EditServer(c.Context, args[0], args[1], edit)
}

func removeServer(c *cli.Context) error {
	args, err := arguments(c, "SERVICE", "ADDRESS")
	if err != nil {
		return err
	}
	return client(c).RemoveServer(c.Context, args[0], args[1])
}

// serverOf is a server with the service it belongs to.
type serverOf struct {
	Service string `json:"service"`
	Name    string `json:"name,omitempty"` // of the service
	api.Server
}

func listServers(c *cli.Context) error {
	args, err := arguments(c, "[SERVICE]")
	if err != nil {
		return err
	}
	servers, err := serversOf(c, args[0])
	if err != nil {
		return err
	}
	return output(c, servers, func(w io.Writer) {
		row(w, "SERVICE", "NAME", "SERVER", "METHOD", "WEIGHT", "ACTIVE", "INACTIVE", "STATE")
		for _, s := range servers {
			row(w, s.Service, s.Name, s.Address, s.Method, s.Weight, s.Active, s.Inactive, serverState(s.Server))
		}
	})
}

// serversOf returns the servers of one service, or of all when ref is empty, in
// the order they were added.
func serversOf(c *cli.Context, ref string) ([]serverOf, error) {
	var services []api.Service
	var err error
	if ref == "" {
		services, err = client(c).Services(c.Context)
	} else {
		services = make([]api.Service, 1)
		services[0], err = client(c).Service(c.Context, ref)
	}
	if err != nil {
		return nil, err
	}
	servers := []serverOf{}
	for _, s := range services {
		for _, server := range s.Servers {
			servers = append(servers, serverOf{s.Listen, s.Name, server})
		}
	}
	return servers, nil
}

// serverState says in a word whether the server can be reached, or why not.
func serverState(s api.Server) string {
	switch {
	case s.Reachable:
		return "reachable"
	case s.Reason == "":
		return "unreachable"
	default:
		return "unreachable: " + s.Reason
	}
}
