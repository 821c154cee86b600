package main

import (
	_ "embed" // the shells' scripts
	"fmt"

	"github.com/urfave/cli/v2"
)

// The scripts ask the command itself what can come next, by the flag that the cli
// package has for it, so that they know what this version knows.
var (
	//go:embed completion/shunt-agent.bash
	completionBash string
	//go:embed completion/shunt-agent.zsh
	completionZsh string
	//go:embed completion/shunt-agent.fish
	completionFish string
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the script that completes commands and flags in a shell: bash, zsh or fish", ArgsUsage: "SHELL",
		Action: func(c *cli.Context) error {
			script, ok := map[string]string{"bash": completionBash, "zsh": completionZsh, "fish": completionFish}[c.Args().First()]
			if !ok || c.NArg() > 1 {
				return usage(c, "unknown shell %q: want bash, zsh or fish", c.Args().First())
			}
			_, err := fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}
