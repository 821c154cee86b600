package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "configuration files, without a daemon",
		Description: examples("", "shunt config check shunt.yaml"),
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "say everything that is wrong with files, and where", ArgsUsage: "FILE...",
				Description: examples("A folder is checked with all its files, which may be one configuration in parts. - is the\n"+
					"standard input. What the data plane cannot do is wrong too: that of --dataplane, else of\n"+
					"director.dataplane, else xdp, as shuntd has it.",
					"shunt config check /etc/shunt/shunt.yaml", "shunt config check /etc/shunt/",
					"shunt config check --dataplane ipvs services.yaml"),
				Flags: []cli.Flag{&cli.StringFlag{
					Name: "dataplane", Usage: "check for `PLANE`, xdp or ipvs, whatever the files name",
					Action: func(c *cli.Context, plane string) error {
						if _, err := director.FeaturesOf(plane); err != nil {
							return usage(c, "unknown data plane %q: want %s or %s", plane, director.PlaneXDP, director.PlaneIPVS)
						}
						return nil
					},
				}},
				Action: checkConfigs,
			},
			{
				Name: "fmt", Usage: "print a file as it should be written", ArgsUsage: "FILE...",
				Description: examples("Comments stay; keys come in the order of the reference file. - is the standard input.",
					"shunt config fmt shunt.yaml", "shunt config fmt -w /etc/shunt/shunt.yaml"),
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "write", Aliases: []string{"w"}, Usage: "write the file anew instead of printing it"}},
				Action: formatConfigs,
			},
			{
				Name: "schema", Usage: "print the JSON Schema of the file, for editors",
				Description: examples("An editor that speaks YAML's language server reads the schema that the file's first line\n"+
					"names: # yaml-language-server: $schema=/usr/share/shunt/shunt.schema.json",
					"shunt config schema > /usr/share/shunt/shunt.schema.json"),
				Action: func(c *cli.Context) error { return write(c.App.Writer, config.Schema()) },
			},
		},
	}
}

// standardInput is the FILE that stands for it.
const standardInput = "-"

// loadConfig reads a file, a folder or the standard input, by the functions of package
// config for the first two and for the last.
func loadConfig(c *cli.Context, name string, load func(path string) (config.Config, error), parse func(name string, data []byte) (config.Config, error)) (config.Config, error) {
	if name != standardInput {
		return interruptible(c, name, func() (config.Config, error) { return load(name) })
	}
	data, err := readInput(c)
	if err != nil {
		return config.Config{}, err
	}
	return parse("standard input", data)
}

// loadDesired reads a configuration whose services are to be carried out, by a daemon that
// knows its data plane. One that says nothing of services is not taken for one that wants none.
func loadDesired(c *cli.Context, name string) (config.Config, error) {
	cfg, err := loadConfig(c, name, config.Load, config.Parse)
	if err == nil && !cfg.ServicesGiven {
		err = usage(c, "%s has no services: to remove all of them, say services: []", name)
	}
	return cfg, err
}

// readInput reads the standard input, one byte past what a configuration may
// have, for Parse to refuse.
func readInput(c *cli.Context) ([]byte, error) {
	return interruptible(c, "the standard input", func() ([]byte, error) {
		data, err := io.ReadAll(io.LimitReader(streamsOf(c).in, config.MaxBytes+1))
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return data, nil
	})
}

// checkConfigs checks every file, so that one with errors hides no other.
func checkConfigs(c *cli.Context) error {
	failed, plane := false, c.String("dataplane")
	load := func(path string) (config.Config, error) { return config.LoadFor(path, plane) }
	parse := func(name string, data []byte) (config.Config, error) { return config.ParseFor(name, data, plane) }
	for _, name := range c.Args().Slice() {
		cfg, err := loadConfig(c, name, load, parse)
		if err != nil && c.Context.Err() != nil {
			return err
		}
		if err != nil {
			failed = true
			palette := paletteFor(c.String("color"), streamsOf(c).err)
			report(streamsOf(c).err, palette, err)
			if errors.Is(err, director.ErrUnsupported) && plane == "" {
				fmt.Fprintf(streamsOf(c).err, "%s the data plane is director.dataplane, or %s: --dataplane checks for another\n", palette.in(bold, "hint:"), director.PlaneXDP)
			}
			continue
		}
		servers := 0
		for _, s := range cfg.State.Services {
			servers += len(s.Servers)
		}
		found := "nothing wrong"
		if len(cfg.Warnings) > 0 {
			found = "no error, but " + count(len(cfg.Warnings), "warning")
		}
		for _, warning := range cfg.Warnings {
			fmt.Fprintf(streamsOf(c).err, "shunt: warning: %s\n", warning)
		}
		text := fmt.Sprintf("%s: %s with %s, %s\n", name, count(len(cfg.State.Services), "service"), count(servers, "server"), found)
		if err := write(c.App.Writer, []byte(text)); err != nil {
			return err
		}
	}
	if failed {
		return exitStatus(exitFailed)
	}
	return nil
}

func formatConfigs(c *cli.Context) error {
	for _, name := range c.Args().Slice() {
		data, err := readConfig(c, name)
		if err != nil {
			return err
		}
		text, err := config.Fmt(name, data)
		if err != nil {
			return err
		}
		if !c.Bool("write") {
			if err := write(c.App.Writer, text); err != nil {
				return err
			}
			continue
		}
		if name == standardInput {
			return usage(c, "-w needs a file: the standard input cannot be written")
		}
		if bytes.Equal(data, text) {
			continue
		}
		if err := rewrite(name, text); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// readConfig reads a file or the standard input, one byte past what a
// configuration may have, for Fmt to refuse.
func readConfig(c *cli.Context, name string) ([]byte, error) {
	if name == standardInput {
		return readInput(c)
	}
	return interruptible(c, name, func() ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		return data, nil
	})
}

// interruptible runs a read that may wait for ever, as one of a pipe does, until
// the command is interrupted. Such a read cannot be called off: it ends with the
// process.
func interruptible[T any](c *cli.Context, name string, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1) // one result, sent once
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-c.Context.Done():
		var none T
		return none, fmt.Errorf("%s: interrupted while it read %s", commandName(c), name)
	}
}
