package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	"github.com/shunt-lb/shunt/realserver"
)

// The settings of a service beside its scheduler: persistence, one-packet,
// timeouts of its own, and what the kernel has as sysctls.

// notSet takes a setting with a value away, as "none" does with --allow.
const notSet = "none"

// switches are the settings that are on or off: on by their name, and off, when a
// service is edited, by --no- and it.
var switches = []struct {
	name, usage string
	of          func(*api.ServiceEdit) **bool
}{
	{"one-packet", "schedule each packet by itself and make no connection (udp; replies of nat servers are not translated back)", func(e *api.ServiceEdit) **bool { return &e.OnePacket }},
	{"sloppy-tcp", "let any segment but a reset begin a connection (tcp)", func(e *api.ServiceEdit) **bool { return &e.SloppyTCP }},
	{"expire-nodest-conn", "schedule a removed server's connections anew instead of dropping their packets", func(e *api.ServiceEdit) **bool { return &e.ExpireNodestConn }},
	{"expire-quiescent-template", "let weight 0 end persistence too", func(e *api.ServiceEdit) **bool { return &e.ExpireQuiescentTemplate }},
}

// settingFlags are those of `service add`.
func settingFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "persistent", Aliases: []string{"p"}, Usage: "keep a client's connections on one server, until `TIMEOUT` after the last; none: do not"},
		&cli.StringFlag{Name: "engine", Usage: "let persistence tell clients by what the `ENGINE` finds in packets: sip, by the Call-ID (udp; data plane ipvs); none: by their addresses"},
		&cli.UintFlag{Name: "prefix", Usage: "persistence takes the clients of a prefix of this `LENGTH` for one (default: each by itself)"},
		&cli.StringFlag{Name: "timeout-tcp", Usage: "`TIMEOUT` of established connections; none: the director's (see `shunt timeouts`)"},
		&cli.StringFlag{Name: "timeout-tcp-fin", Usage: "`TIMEOUT` of connections that are closing; none: the director's"},
		&cli.StringFlag{Name: "timeout-udp", Usage: "`TIMEOUT` of UDP; none: the director's"},
		&cli.IntFlag{Name: "conn-reuse-mode", DefaultText: "1", Usage: "connections that a client's first segment replaces, `MODE`: 0 none, 1 those in TIME_WAIT and CLOSE, 3 in FIN_WAIT too where replies are not seen"},
	}
	flags = append(flags, &cli.StringFlag{Name: "mss", Usage: "lower what either end announces as its largest segment to `BYTES` (tcp; data plane xdp); none: leave it as it is"})
	for _, s := range switches {
		flags = append(flags, &cli.BoolFlag{Name: s.name, Usage: s.usage})
	}
	return append(flags, limitFlags()...)
}

// settingEditFlags are those of `service edit`.
func settingEditFlags() []cli.Flag {
	flags := settingFlags()
	for _, s := range switches {
		flags = append(flags, &cli.BoolFlag{Name: "no-" + s.name, Usage: "take --" + s.name + " away"})
	}
	return flags
}

// readSettings puts the settings that flags name into the edit.
func readSettings(c *cli.Context, edit *api.ServiceEdit) error {
	var persistence api.PersistenceEdit
	var err error
	if persistence.Timeout, err = timeout(c, "persistent"); err != nil {
		return err
	}
	if c.IsSet("prefix") {
		length := c.Uint("prefix")
		if length > 128 {
			return usage(c, "--prefix %d: want 0 to 32, or 1 to 128 for IPv6", length)
		}
		persistence.Prefix = new(uint8(length))
	}
	if persistence.Engine = given(c, "engine"); persistence.Engine != nil && *persistence.Engine == notSet {
		persistence.Engine = new("")
	}
	if persistence != (api.PersistenceEdit{}) {
		edit.Persistence = &persistence
	}
	var timeouts api.ServiceTimeouts
	for _, f := range []struct {
		name string
		to   **api.Duration
	}{{"timeout-tcp", &timeouts.TCP}, {"timeout-tcp-fin", &timeouts.TCPFin}, {"timeout-udp", &timeouts.UDP}} {
		if *f.to, err = timeout(c, f.name); err != nil {
			return err
		}
	}
	if timeouts != (api.ServiceTimeouts{}) {
		edit.Timeouts = &timeouts
	}
	if c.IsSet("conn-reuse-mode") {
		edit.ConnReuseMode = new(c.Int("conn-reuse-mode"))
	}
	if edit.MSS, err = segmentSize(c); err != nil {
		return err
	}
	for _, s := range switches {
		switch no := "no-" + s.name; {
		case c.Bool(s.name) && c.Bool(no):
			return usage(c, "--%s and --%s exclude each other", s.name, no)
		case c.Bool(no):
			*s.of(edit) = new(bool)
		case c.IsSet(s.name):
			*s.of(edit) = new(c.Bool(s.name))
		}
	}
	return readLimits(c, edit)
}

// timeout reads a flag; nil where it was not given, 0 for "none".
func timeout(c *cli.Context, name string) (*api.Duration, error) {
	text := c.String(name)
	switch {
	case !c.IsSet(name):
		return nil, nil
	case text == notSet:
		return new(api.Duration), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, usage(c, "--%s: %q is not a duration such as 90s or 15m", name, text)
	}
	if d <= 0 {
		return nil, usage(c, "--%s %s is out of range: %s takes it away", name, text, notSet)
	}
	return new(api.Duration(d)), nil
}

// segmentSize reads --mss; nil where it was not given, 0 for "none".
func segmentSize(c *cli.Context) (*uint16, error) {
	text := c.String("mss")
	switch {
	case !c.IsSet("mss"):
		return nil, nil
	case text == notSet:
		return new(uint16), nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < director.MinMSS {
		return nil, usage(c, "--mss: %q is not a size of segments: want %d to 65535, from %d on for IPv6, or %s", text, director.MinMSS, director.MinMSSIPv6, notSet)
	}
	return new(uint16(n)), nil
}

// configure takes the settings of an edit, of which nothing was there before,
// over into a new service.
func configure(c *cli.Context, service *api.ServiceConfig, edit api.ServiceEdit) error {
	switch p := edit.Persistence; {
	case p == nil:
	case p.Timeout == nil && p.Prefix == nil:
		return usage(c, "--engine is for --persistent")
	case p.Timeout == nil:
		return usage(c, "--prefix is for --persistent")
	case *p.Timeout > 0:
		service.Persistence = &api.Persistence{Timeout: *p.Timeout, Prefix: p.Prefix}
		if p.Engine != nil {
			service.Persistence.Engine = *p.Engine
		}
	case p.Engine != nil && *p.Engine != "":
		return usage(c, "--engine is for --persistent, which is none")
	}
	if l := edit.Limits; l != nil && l.Source != nil && l.Source.Rate == nil && l.Source.Connections == nil {
		return usage(c, "--source-prefix is for --source-rate and --source-connections")
	}
	service.Limits, service.Guard = edit.Limits, edit.Guard
	if edit.MSS != nil {
		service.MSS = *edit.MSS
	}
	service.Timeouts, service.ConnReuseMode = edit.Timeouts, edit.ConnReuseMode
	on := func(b *bool) bool { return b != nil && *b }
	service.OnePacket, service.SloppyTCP = on(edit.OnePacket), on(edit.SloppyTCP)
	service.ExpireNodestConn, service.ExpireQuiescentTemplate = on(edit.ExpireNodestConn), on(edit.ExpireQuiescentTemplate)
	return nil
}

// settingRows shows the settings that are not the default.
func settingRows(t *table, s api.Service) {
	if s.Persistence != nil {
		t.row("persistent", persistenceText(s.Persistence))
	}
	if s.Timeouts != nil {
		var words []string
		for _, f := range []struct {
			name string
			of   *api.Duration
		}{{"tcp", s.Timeouts.TCP}, {"tcp-fin", s.Timeouts.TCPFin}, {"udp", s.Timeouts.UDP}} {
			if f.of != nil {
				words = append(words, f.name+" "+f.of.String())
			}
		}
		t.row("timeouts", strings.Join(words, ", "))
	}
	if s.ConnReuseMode != nil {
		t.row("conn-reuse-mode", *s.ConnReuseMode)
	}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"one-packet", s.OnePacket},
		{"sloppy-tcp", s.SloppyTCP},
		{"expire-nodest-conn", s.ExpireNodestConn},
		{"expire-quiescent-template", s.ExpireQuiescentTemplate},
	} {
		if f.on {
			t.row(f.name, "yes")
		}
	}
	if s.MSS != 0 {
		t.row("mss", s.MSS)
	}
	limitRows(t, s)
	aliveRows(t, s)
}

// aliveRows shows what is asked of the servers, and where there are others than those
// that are configured.
func aliveRows(t *table, s api.Service) {
	h := s.Health
	if h == nil {
		return
	}
	var checks, sorry []string
	for _, check := range h.Checks {
		interval := check.Interval
		if interval == 0 {
			interval = api.Duration(realserver.DefaultCheckInterval)
		}
		checks = append(checks, fmt.Sprintf("%s every %s", check.Kind, interval))
	}
	if len(checks) > 0 {
		t.row("checks", strings.Join(checks, ", "))
	}
	if h.Quorum > 1 {
		t.row("quorum", h.Quorum)
	}
	for _, server := range h.Sorry {
		sorry = append(sorry, server.Address)
	}
	if len(sorry) > 0 {
		t.row("sorry servers", strings.Join(sorry, ", "))
	}
	if h.Pool != "" {
		t.row("pool", poolText(h.Pool))
	}
}

// poolText says where the servers are that registered themselves in the pool.
func poolText(pool string) string {
	return fmt.Sprintf("%s (its servers: `shunt pool show %s`)", pool, pool)
}

// persistenceText says how long, for which networks, and by what clients are told:
// "5m0s for each /24 by sip".
func persistenceText(p *api.Persistence) string {
	text := p.Timeout.String()
	if p.Mask != "" {
		text += " for each " + p.Mask
	} else if p.Prefix != nil {
		text += fmt.Sprintf(" for each /%d", *p.Prefix)
	}
	if p.Engine != "" {
		text += " by " + p.Engine
	}
	return text
}

// threshold reads --upper or --lower; nil where it was not given, 0 for "none".
func threshold(c *cli.Context, name string) (*uint32, error) {
	if !c.IsSet(name) {
		return nil, nil
	}
	text := c.String(name)
	if text == notSet {
		return new(uint32), nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, usage(c, "--%s: %q is not a number of connections", name, text)
	}
	return new(uint32(n)), nil
}
