package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/agent"
)

func decapCommand() *cli.Command {
	pinDir := &cli.StringFlag{Name: "pin-dir", Value: decap.DefaultPinDir, Usage: "keep what stays in the kernel in `FOLDER`, on a bpffs"}
	format := &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: formatTable, Usage: "`FORMAT` of the answer: table, json or yaml"}
	return &cli.Command{
		Name: "decap", Usage: "take packets for virtual addresses out of directors' tunnels",
		Description: "For servers of the method tunnel that have no tunnel devices. shunt-agent(1) says what such a server needs beside it.",
		Action:      noCommand,
		Subcommands: []*cli.Command{
			{
				Name: "start", Usage: "start it, or change what it does without a gap; it stays until stop or the next boot",
				Description: "A packet is taken out of its tunnel if it is for an address of this host, from a director,\n" +
					"and for a virtual address inside. All else is left as it came.\n\n" +
					"  shunt-agent decap start --interface eth0 --vip 192.0.2.1 --vip 2001:db8::/64 --from 10.0.0.0/24",
				Flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "interface", Aliases: []string{"i"}, Usage: "attach to `INTERFACE`; may be given several times"},
					&cli.StringSliceFlag{Name: "vip", Usage: "let packets for `ADDRESS` or prefix out of their tunnels; may be given several times"},
					&cli.StringSliceFlag{Name: "from", Usage: "only from directors of this `ADDRESS` or prefix; may be given several times (default: from anywhere)"},
					&cli.StringSliceFlag{Name: "to", Usage: "only to this `ADDRESS` or prefix outside; may be given several times (default: the addresses that the host has now)"},
					&cli.StringSliceFlag{Name: "type", Usage: "only tunnels of `TYPE`: ipip, gue or gre; may be given several times (default: all)"},
					&cli.StringSliceFlag{Name: "gue-port", Usage: fmt.Sprintf("gue comes to this UDP `PORT`; may be given up to %d times (default: %d)", decap.MaxPorts, decap.DefaultPort)},
					&cli.BoolFlag{Name: "generic", Usage: "attach in generic mode even where the driver has native XDP: slower"},
					pinDir,
				},
				Action: startDecap,
			},
			{Name: "show", Usage: "show what it does, what it has counted, and what is wrong with the host for it", Flags: []cli.Flag{format, pinDir}, Action: showDecap},
			{Name: "stop", Usage: "stop it", Flags: []cli.Flag{pinDir}, Action: stopDecap},
		},
	}
}

func startDecap(c *cli.Context) error {
	d, err := readDecap(c)
	if err != nil {
		return err
	}
	status, err := d.Start()
	if err != nil {
		return err
	}
	for _, r := range status.Interfaces {
		if _, err := fmt.Fprintf(c.App.Writer, "%s: %s mode, %s\n", r.Name, r.Mode, typeNames(r.Config.Types)); err != nil {
			return err
		}
	}
	warn(c, status.Warnings)
	return nil
}

// readDecap reads the flags of start.
func readDecap(c *cli.Context) (d agent.Decap, err error) {
	if err := noArguments(c); err != nil {
		return d, err
	}
	d = agent.Decap{PinDir: c.String("pin-dir"), Interfaces: c.StringSlice("interface"), Generic: c.Bool("generic")}
	if len(d.Interfaces) == 0 {
		return d, usage(c, "no interface to attach to: give --interface")
	}
	for _, flag := range []struct {
		name string
		list *[]netip.Prefix
	}{{"vip", &d.Virtual}, {"from", &d.From}, {"to", &d.To}} {
		for _, value := range c.StringSlice(flag.name) {
			prefix, err := agent.ParsePrefix(value)
			if err != nil {
				return d, usage(c, "--%s: %w", flag.name, err)
			}
			*flag.list = append(*flag.list, prefix)
		}
	}
	if len(d.Virtual) == 0 {
		return d, usage(c, "no virtual address: give --vip")
	}
	for _, value := range c.StringSlice("type") {
		t, err := realserver.ParseTunnelType(value)
		if err != nil {
			return d, usage(c, "--type: %w", err)
		}
		d.Types = append(d.Types, t)
	}
	for _, value := range c.StringSlice("gue-port") {
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil || port == 0 {
			return d, usage(c, "--gue-port: %q is not a port: want 1 to 65535", value)
		}
		d.Ports = append(d.Ports, uint16(port))
	}
	if len(d.Ports) > decap.MaxPorts {
		return d, usage(c, "--gue-port: %d ports: at most %d", len(d.Ports), decap.MaxPorts)
	}
	return d, nil
}

func stopDecap(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	stopped, err := agent.Stop(c.String("pin-dir"))
	if err != nil {
		return err
	}
	text := "it was not running"
	if stopped > 0 {
		text = fmt.Sprintf("stopped; interfaces: %d", stopped)
	}
	_, err = fmt.Fprintln(c.App.Writer, text)
	return err
}

// warn prints what does not keep the command from its work.
func warn(c *cli.Context, warnings []string) {
	for _, text := range warnings {
		fmt.Fprintf(c.App.ErrWriter, "shunt-agent: warning: %s\n", text)
	}
}
