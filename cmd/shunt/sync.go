package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
)

// syncRoles are the two daemons.
var syncRoles = []string{string(director.SyncMaster), string(director.SyncBackup)}

func syncCommand() *cli.Command {
	return &cli.Command{
		Name:        "sync",
		Usage:       "the kernel's daemons that replicate connections to another director (data plane ipvs)",
		Description: examples("", "shunt sync start master --interface eth1 --id 7", "shunt sync list"),
		Subcommands: []*cli.Command{
			{
				Name: "start", Usage: "start a daemon: the master sends, the backup receives", ArgsUsage: "ROLE",
				Description: examples("ROLE is master or backup; a director can have both. One that runs is not replaced: stop it first.\n"+
					"It is part of the configuration, and started again if somebody stops it.",
					"shunt sync start master --interface eth1 --id 7",
					"shunt sync start backup --interface eth1 --id 7 --group ff02::81 --why 'second director'"),
				Flags: changeFlags(
					&cli.StringFlag{Name: "interface", Aliases: []string{"i"}, Usage: "the `INTERFACE` of the multicast (default: " + director.DefaultSyncInterface + ")"},
					&cli.UintFlag{Name: "id", Usage: "only daemons of one `ID` hear each other, 0-255; a backup of 0 hears all"},
					&cli.StringFlag{Name: "group", Usage: fmt.Sprintf("the multicast group's `ADDRESS` (default: %s)", director.DefaultSyncGroup)},
					&cli.UintFlag{Name: "port", Usage: fmt.Sprintf("the UDP `PORT` (default: %d)", director.DefaultSyncPort)},
					&cli.UintFlag{Name: "ttl", Usage: fmt.Sprintf("pass `N` routers at most (default: %d)", director.DefaultSyncTTL)},
					&cli.UintFlag{Name: "max-length", Usage: "the most `BYTES` of a message (default: what the interface's MTU allows)"},
				),
				Action: asking(startSync),
			},
			{
				Name: "stop", Usage: "stop a daemon", ArgsUsage: "ROLE",
				Description: examples("One that is not Shunt's is left alone: `ipvsadm --stop-daemon` stops it.",
					"shunt sync stop backup"),
				Flags: changeFlags(), Action: asking(stopSync),
			},
			{
				Name: "list", Usage: "list the daemons that run",
				Description: examples("", "shunt sync list", "shunt sync list -o json"),
				Flags:       readFlags(), Action: reading(asking(listSync)),
			},
		},
	}
}

// syncRole reads ROLE.
func syncRole(c *cli.Context) (string, error) {
	role := c.Args().Get(0)
	if !slices.Contains(syncRoles, role) {
		return "", usage(c, "unknown role %q: want %s", role, alternatives(syncRoles))
	}
	return role, nil
}

func startSync(c *cli.Context, client *api.Client) error {
	role, err := syncRole(c)
	if err != nil {
		return err
	}
	daemon := api.SyncDaemon{Role: role, Interface: c.String("interface"), Group: c.String("group")}
	for _, f := range []struct {
		name     string
		min, max uint
		set      func(uint)
	}{
		{"id", 0, math.MaxUint8, func(n uint) { daemon.ID = uint8(n) }},
		{"port", 1, math.MaxUint16, func(n uint) { daemon.Port = uint16(n) }},
		{"ttl", 1, math.MaxUint8, func(n uint) { daemon.TTL = uint8(n) }},
		{"max-length", 1, director.MaxSyncLength, func(n uint) { daemon.MaxLength = uint16(n) }},
	} {
		if !c.IsSet(f.name) {
			continue
		}
		n := c.Uint(f.name)
		if n < f.min || n > f.max {
			return usage(c, "--%s %d is out of range: want %d to %d", f.name, n, f.min, f.max)
		}
		f.set(n)
	}
	_, err = client.StartSync(c.Context, daemon, terms(c))
	return err
}

func stopSync(c *cli.Context, client *api.Client) error {
	role, err := syncRole(c)
	if err != nil {
		return err
	}
	_, err = client.StopSync(c.Context, role, terms(c))
	return err
}

func listSync(c *cli.Context, client *api.Client) error {
	found, err := client.Found(c.Context)
	if err != nil {
		return err
	}
	return output(c, found.Sync, func(t *table) {
		if len(found.Sync) == 0 {
			t.row("no sync daemon runs")
			return
		}
		t.row("ROLE", "INTERFACE", "ID", "GROUP", "PORT", "TTL", "MAX-LENGTH", "OWNER")
		for _, s := range found.Sync {
			owner, length := "shunt", ""
			if s.Foreign {
				owner = t.in(yellow, "foreign")
			}
			if s.MaxLength != 0 {
				length = fmt.Sprint(s.MaxLength)
			}
			t.row(s.Role, s.Interface, s.ID, s.Group, s.Port, s.TTL, length, owner)
		}
	})
}
