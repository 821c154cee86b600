package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/realserver"
	"github.com/shunt-lb/shunt/realserver/agent"
)

// The formats of -o.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// shown is what show prints for programs.
type shown struct {
	Interfaces []shownInterface `json:"interfaces" yaml:"interfaces"`
	Counters   []shownCounter   `json:"counters" yaml:"counters"`
	Warnings   []string         `json:"warnings" yaml:"warnings"`
}

type shownInterface struct {
	Name     string   `json:"name" yaml:"name"` // empty: it is gone
	Mode     string   `json:"mode" yaml:"mode"`
	Types    []string `json:"types" yaml:"types"`
	GUEPorts []uint16 `json:"gue-ports" yaml:"gue-ports"`
	VIPs     []string `json:"vips" yaml:"vips"`
	From     []string `json:"from" yaml:"from"` // none: from anywhere
	To       []string `json:"to" yaml:"to"`
}

type shownCounter struct {
	Name    string `json:"name" yaml:"name"`
	Kind    string `json:"kind" yaml:"kind"`
	Packets uint64 `json:"packets" yaml:"packets"`
	Bytes   uint64 `json:"bytes" yaml:"bytes"`
	Help    string `json:"help" yaml:"help"`
}

func showDecap(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	status, err := agent.Show(c.String("pin-dir"))
	if err != nil {
		return err
	}
	switch format := c.String("output"); format {
	case formatTable:
		warn(c, status.Warnings)
		return printTable(c.App.Writer, status)
	case formatJSON:
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(show(status))
	case formatYAML:
		text, err := yaml.Dump(show(status), yaml.WithIndent(2))
		if err != nil {
			return fmt.Errorf("print as yaml: %w", err)
		}
		_, err = c.App.Writer.Write(text)
		return err
	default:
		return usage(c, "unknown output format %q: want table, json or yaml", format)
	}
}

func show(status agent.Status) shown {
	s := shown{Interfaces: []shownInterface{}, Counters: []shownCounter{}, Warnings: append([]string{}, status.Warnings...)}
	for _, r := range status.Interfaces {
		s.Interfaces = append(s.Interfaces, shownInterface{
			Name: r.Name, Mode: string(r.Mode), Types: names(r.Config.Types), GUEPorts: r.Config.Ports,
			VIPs: texts(r.Config.Virtual), From: texts(r.Config.From), To: texts(r.Config.To),
		})
	}
	for _, n := range status.Counts {
		s.Counters = append(s.Counters, shownCounter{n.Name, n.Kind, n.Packets, n.Bytes, n.Help})
	}
	return s
}

// printTable prints for people: a block for each interface, then what was counted.
func printTable(w io.Writer, status agent.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(status.Interfaces) == 0 {
		fmt.Fprintln(table, "it is not running: `shunt-agent decap start` starts it")
		return table.Flush()
	}
	for _, i := range show(status).Interfaces {
		from := "anywhere"
		if len(i.From) > 0 {
			from = strings.Join(i.From, " ")
		}
		if i.Name == "" {
			i.Name, i.Mode = "(gone)", "-"
		}
		fmt.Fprintf(table, "INTERFACE\t%s\nMODE\t%s\nTYPES\t%s\nGUE-PORTS\t%s\nVIPS\t%s\nFROM\t%s\nTO\t%s\n\n", i.Name, i.Mode,
			strings.Join(i.Types, " "), ports(i.GUEPorts), strings.Join(i.VIPs, " "), from, strings.Join(i.To, " "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(table, "COUNTER\tKIND\tPACKETS\tBYTES\tMEANING")
	for _, n := range status.Counts {
		if n.Packets > 0 || n.Kind == "taken" {
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\n", n.Name, n.Kind, n.Packets, n.Bytes, n.Help)
		}
	}
	return table.Flush()
}

func names(types []decap.Type) []string {
	all := []string{}
	for _, t := range types {
		all = append(all, realserver.TunnelType(t).String())
	}
	return all
}

func typeNames(types []decap.Type) string { return strings.Join(names(types), ", ") }

func ports(all []uint16) string {
	var texts []string
	for _, port := range all {
		texts = append(texts, strconv.Itoa(int(port)))
	}
	return strings.Join(texts, " ")
}

// texts are prefixes as people write them: one address without its length.
func texts(prefixes []netip.Prefix) []string {
	all := []string{}
	for _, p := range prefixes {
		if p.IsSingleIP() {
			all = append(all, p.Addr().String())
		} else {
			all = append(all, p.String())
		}
	}
	return all
}
