package main

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

func serverCommand() *cli.Command {
	return &cli.Command{
		Name:        "server",
		Usage:       "real servers of a service",
		Description: examples("", "shunt server add web 10.0.0.11:8080 --method nat", "shunt server drain web 10.0.0.11:8080"),
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "add a server to a service", ArgsUsage: "SERVICE ADDRESS[:PORT]",
				Description: examples("The port is the service's unless given; only nat can change it. The method has no\n"+
					"default, because those of ipvsadm and keepalived differ. A tunnel's TYPE is ipip, gue, which wants\n"+
					"the server's UDP port, or gre; the outer header's CHECKSUM is none, full or, of gue, remote.",
					"shunt server add web 10.0.0.11:8080 --method nat --weight 3 --upper 1000 --lower 700",
					"shunt server add web 10.0.0.12 --tunnel gue:5555:remote"),
				Flags: changeFlags(serverFlags()...), Action: asking(addServer),
			},
			{
				Name: "edit", Usage: "change what is named and nothing else", ArgsUsage: "SERVICE ADDRESS[:PORT]",
				Description: examples("", "shunt server edit web 10.0.0.11:8080 --weight 5", "shunt server edit web 10.0.0.11:8080 --upper none", "shunt server edit web 10.0.0.12 --tunnel gre:full"),
				Flags:       changeFlags(serverFlags()...), Action: asking(editServer),
			},
			drainCommand(),
			setCommand(),
			{
				Name: "remove", Usage: "remove a server; its connections end", ArgsUsage: "SERVICE ADDRESS[:PORT]",
				Description: examples("If it has connections or templates, it says how many this cuts: a terminal is asked first,\n"+
					"and without one --yes is wanted. `shunt server drain` lets them end by themselves.",
					"shunt server remove web 10.0.0.11:8080", "shunt server remove web 10.0.0.11:8080 --yes"),
				Flags:  changeFlags(yesFlag()),
				Action: asking(removeServer),
			},
			{
				Name: "list", Usage: "list the servers of a service, or of all", ArgsUsage: "[SERVICE]",
				Description: examples("After the configured servers of a service come those that agents registered in its pool, whose\n"+
					"STATE says leased. WEIGHT is the configured one, or the agent's: `shunt health` has what is offered.",
					"shunt server list", "shunt server list web -o yaml"),
				Flags: readFlags(), Action: reading(asking(listServers)),
			},
		},
	}
}

// methods are the words of the forwarding methods.
var methods = func() []string {
	var words []string
	for _, m := range realserver.Methods() {
		words = append(words, m.String())
	}
	return words
}()

func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "method", Usage: "forwarding `METHOD`: nat, dr, tunnel, fullnat (data plane xdp) or local"},
		&cli.StringFlag{Name: flagTunnel, Usage: "wrap packets in `TYPE[:PORT][:CHECKSUM]`: ipip, gre:full, gue:5555:remote; without --method, that is tunnel"},
		&cli.StringFlag{Name: "weight", Aliases: []string{"w"}, Usage: "share of new connections, `N` (a new server's default: 1)"},
		&cli.StringFlag{Name: "upper", Aliases: []string{"x"}, Usage: "from `N` connections on it gets no new ones; none: no limit, and no --lower unless it is given"},
		&cli.StringFlag{Name: "lower", Aliases: []string{"y"}, Usage: "below `N` connections it gets new ones again; none: below three quarters of --upper"},
	}
}

// weight reads --weight; nil where it was not given.
func weight(c *cli.Context) (*uint32, error) {
	if !c.IsSet("weight") {
		return nil, nil
	}
	w, err := realserver.ParseWeight(c.String("weight"))
	if err != nil {
		return nil, usage(c, "--weight: %v", err)
	}
	return &w, nil
}

func addServer(c *cli.Context, client *api.Client) error {
	tunnel, err := readTunnel(c)
	if err != nil {
		return err
	}
	method := methodOr(given(c, "method"), tunnel)
	if method == nil || *method == "" {
		return &usageError{"server add: --method is required", "one of " + strings.Join(methods, ", ") + "; it has no default, because those of ipvsadm and keepalived differ"}
	}
	weight, err := weight(c)
	if err != nil {
		return err
	}
	server := api.ServerConfig{Address: c.Args().Get(1), Method: *method, Tunnel: tunnel, Weight: weight}
	for _, f := range []struct {
		name string
		to   *uint32
	}{{"upper", &server.Upper}, {"lower", &server.Lower}} {
		n, err := threshold(c, f.name)
		if err != nil {
			return err
		}
		if n != nil {
			*f.to = *n
		}
	}
	ref := c.Args().Get(0)
	return exact(c, client, ref, "", func() error {
		_, err := client.AddServer(c.Context, ref, server, terms(c))
		return err
	})
}

// methodOr returns the method that is given, else the one that a tunnel means; nil
// without either.
func methodOr(method *string, tunnel *api.Tunnel) *string {
	if method == nil && tunnel != nil {
		return new(realserver.Tunnel.String())
	}
	return method
}

func editServer(c *cli.Context, client *api.Client) error {
	tunnel, err := readTunnel(c)
	if err != nil {
		return err
	}
	edit := api.ServerEdit{Method: methodOr(given(c, "method"), tunnel), Tunnel: tunnel}
	if edit.Weight, err = weight(c); err != nil {
		return err
	}
	if edit.Upper, err = threshold(c, "upper"); err != nil {
		return err
	}
	if edit.Lower, err = threshold(c, "lower"); err != nil {
		return err
	}
	if edit == (api.ServerEdit{}) {
		return usage(c, "nothing to change")
	}
	ref, address := c.Args().Get(0), c.Args().Get(1)
	return exact(c, client, ref, address, func() error {
		_, err := client.EditServer(c.Context, ref, address, edit, terms(c))
		return err
	})
}

func removeServer(c *cli.Context, client *api.Client) error {
	ref, address := c.Args().Get(0), c.Args().Get(1)
	return exact(c, client, ref, address, func() error {
		service, err := client.Service(c.Context, ref)
		if err != nil {
			return err
		}
		var cut losses
		if i := serverAt(service.Listen, service.Servers, address); i >= 0 {
			cut = lossesOf(service.Servers[i])
		}
		if err := confirmCut(c, "server "+address+" of "+service.Listen, cut); err != nil {
			return err
		}
		if _, err := client.RemoveServer(c.Context, ref, address, terms(c)); err != nil {
			return err
		}
		return sayCut(c, cut)
	})
}

// serversOf returns the servers of a service: the configured ones in the order they were
// added, then those that agents registered.
func serversOf(s api.Service) []api.Server { return slices.Concat(s.Servers, s.Leased) }

// serverAt returns the index of the server with the address, whose port may be
// left out where it is the service's; -1 if there is none.
func serverAt(listen string, servers []api.Server, address string) int {
	key, err := director.ParseServiceKey(listen)
	if err != nil {
		return -1
	}
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		bare, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if err != nil {
			return -1
		}
		want = key.ServerAddress(netip.AddrPortFrom(bare, 0))
	}
	return slices.IndexFunc(servers, func(s api.Server) bool { return s.Address == want.String() })
}

// serverOf is a server with the service it belongs to.
type serverOf struct {
	Service string `json:"service"`
	Name    string `json:"name,omitempty"`   // of the service
	Leased  bool   `json:"leased,omitempty"` // an agent registered it
	api.Server
}

func listServers(c *cli.Context, client *api.Client) error {
	ref := c.Args().Get(0)
	if ref == "" {
		services, err := client.Services(c.Context)
		if err != nil {
			return err
		}
		return printServers(c, downBy(c, client, ""), services...)
	}
	return lookUp(c, client, ref, func(ref string) error {
		service, err := client.Service(c.Context, ref)
		if err != nil {
			return err
		}
		return printServers(c, downBy(c, client, service.Listen), service)
	})
}

// printServers prints the servers of each service.
func printServers(c *cli.Context, down map[[2]string]bool, services ...api.Service) error {
	servers := []serverOf{}
	for _, s := range services {
		for i, server := range serversOf(s) {
			servers = append(servers, serverOf{s.Listen, s.Name, i >= len(s.Servers), server})
		}
	}
	return output(c, servers, func(t *table) {
		var all []api.Server
		for _, s := range servers {
			all = append(all, s.Server)
		}
		columns := columnsOf(all...)
		t.row(append([]any{"SERVICE", "NAME"}, columns.header()...)...)
		for _, s := range servers {
			t.row(append([]any{s.Service, s.Name}, columns.row(t, s, down[[2]string{s.Service, s.Address}])...)...)
		}
	})
}
