package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/shunt-lb/shunt/director/api"
)

// The formats of -o.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatJSONL = "jsonl" // an object a line, of lists that can be long
)

// formats are the values of -o.
var formats = []string{formatTable, formatJSON, formatYAML}

// readFlags are on every command that reads.
func readFlags(flags ...cli.Flag) []cli.Flag {
	return append(flags, outputFlag(), watchFlag())
}

func outputFlag() cli.Flag { return outputFlagOf(formats...) }

// outputFlagOf is outputFlag of a command with other formats; the first is the usual
// one.
func outputFlagOf(formats ...string) cli.Flag {
	return &cli.StringFlag{
		Name: "output", Aliases: []string{"o"}, Value: formats[0],
		Usage: "`FORMAT` of the answer: " + alternatives(formats),
		Action: func(c *cli.Context, format string) error {
			if !slices.Contains(formats, format) {
				return usage(c, "unknown output format %q: want %s", format, alternatives(formats))
			}
			return nil
		},
	}
}

// output prints v as -o asks; draw makes the table for people.
func output(c *cli.Context, v any, draw func(*table)) error {
	w := c.App.Writer
	switch c.String("output") {
	case formatJSON:
		return printJSON(w, v)
	case formatYAML:
		text, err := toYAML(v)
		if err != nil {
			return fmt.Errorf("print as yaml: %w", err)
		}
		return write(w, text)
	default:
		t := &table{palette: colors(c)}
		draw(t)
		return t.print(w)
	}
}

// printJSON prints v as JSON for people to read too.
func printJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("print as json: %w", err)
	}
	return write(w, append(text, '\n'))
}

func write(w io.Writer, text []byte) error {
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// toYAML goes by way of JSON, so that both formats have the same fields in the
// same order.
func toYAML(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	if err := yaml.Load(text, &node); err != nil {
		return nil, err
	}
	blockStyle(&node)
	return yaml.Dump(&node, yaml.WithIndent(2))
}

// blockStyle turns JSON's braces and quotes into YAML's own style; the dumper
// keeps the quotes that are needed.
func blockStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, child := range n.Content {
		blockStyle(child)
	}
}

// splitURL separates a service's URL into protocol and address.
func splitURL(url string) (protocol, address string) {
	protocol, address, _ = strings.Cut(url, "://")
	return protocol, address
}

// minutes is the way ipvsadm prints what is left of a timeout: 14:59.
func minutes(d api.Duration) string {
	s := max(int64(time.Duration(d)/time.Second), 0)
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// size prints bytes in binary units with one decimal.
func size(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, i := float64(bytes)/unit, 0
	for ; value >= unit && i < 3; i++ {
		value /= unit
	}
	return fmt.Sprintf("%.1f %s", value, []string{"KiB", "MiB", "GiB", "TiB"}[i])
}

// count says "1 server" or "3 servers".
func count[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
