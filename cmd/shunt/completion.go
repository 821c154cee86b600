package main

import (
	_ "embed" // the shells' scripts
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The scripts ask the command itself what can come next (complete.go), so that
// they know what this version knows and never need to be made anew.
var (
	//go:embed completion/shunt.bash
	completionBash string
	//go:embed completion/shunt.zsh
	completionZsh string
	//go:embed completion/shunt.fish
	completionFish string
)

// shells are those completion has a script for.
var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the script that completes commands, flags and names in a shell", ArgsUsage: "SHELL",
		Description: examples("SHELL is bash, zsh or fish. Names of services and addresses of servers come from the daemon.",
			"source <(shunt completion bash)",
			"shunt completion bash > /etc/bash_completion.d/shunt",
			"shunt completion zsh > /usr/local/share/zsh/site-functions/_shunt",
			"shunt completion fish > ~/.config/fish/completions/shunt.fish"),
		Action: func(c *cli.Context) error {
			shell := c.Args().Get(0)
			i := slices.Index(shells, shell)
			if i < 0 {
				return usage(c, "unknown shell %q: want %s", shell, alternatives(shells))
			}
			return write(c.App.Writer, []byte([]string{completionBash, completionZsh, completionFish}[i]))
		},
	}
}

// completeCommand is what the scripts call: its arguments are the words of the
// command line up to the one the cursor is in.
const completeCommand = "__complete"

// candidate is a word that can come next, and what it means.
type candidate struct{ word, help string }

// filesFollow tells the scripts to complete names of files.
const filesFollow = ":files"

// completing is a command line that ends in the word to complete.
type completing struct {
	app      *cli.App
	commands []*cli.Command // that can come next
	path     []string       // the commands given
	command  *cli.Command   // the innermost of them; nil: none yet
	levels   []*level
	args     []string // the positional arguments given
	pending  cli.Flag // whose value is the word
	only     bool     // no flags: "--" was given
	global   map[string]string
}

// read walks over the words before the one to complete. It is as lenient as a
// half-written command line needs.
func (c *completing) read(words []string) {
	c.commands, c.global = c.app.Commands, map[string]string{}
	c.levels = []*level{{flags: c.app.Flags}}
	for _, word := range words {
		switch {
		case c.pending != nil:
			c.note(c.pending, word)
			c.pending = nil
		case c.only:
			c.args = append(c.args, word)
		case word == "--":
			c.only = true
		case len(word) > 1 && word[0] == '-':
			_, flag := find(c.levels, word)
			value, found := "", false
			if _, value, found = strings.Cut(word, "="); found && flag != nil {
				c.note(flag, value)
			} else if takesValue(flag) {
				c.pending = flag
			}
		default:
			command, err := byPrefix(c.commands, word)
			if err != nil || command == nil || len(c.args) > 0 {
				c.args = append(c.args, word)
				continue
			}
			c.command, c.commands = command, command.Subcommands
			c.path = append(c.path, command.Name)
			c.levels = append(c.levels, &level{name: command.Name, flags: command.Flags})
		}
	}
}

// note keeps the value of a flag that belongs to the whole: the daemon may have
// to be asked.
func (c *completing) note(flag cli.Flag, value string) {
	if slices.Contains(c.app.Flags, flag) {
		c.global[flag.Names()[0]] = value
	}
}

// flags returns the flags that can stand here, the innermost command's first.
func (c *completing) flags() []candidate {
	var all []candidate
	for _, l := range slices.Backward(c.levels) {
		for _, flag := range l.flags {
			help := ""
			if documented, ok := flag.(cli.DocGenerationFlag); ok {
				help = plainUsage(documented)
			}
			all = append(all, candidate{"--" + flag.Names()[0], help})
		}
	}
	return append(all, candidate{"--help", "say what the command does"})
}

// plainUsage is a flag's help without the marks around its placeholder.
func plainUsage(flag cli.DocGenerationFlag) string {
	return strings.ReplaceAll(flag.GetUsage(), "`", "")
}

// subcommands returns the commands that can stand here.
func (c *completing) subcommands() []candidate {
	var all []candidate
	for _, command := range c.commands {
		if !command.Hidden {
			all = append(all, candidate{command.Name, command.Usage})
		}
	}
	return all
}

// printCandidates writes those that begin as the word does, one a line.
func printCandidates(app *cli.App, word string, all []candidate) {
	for _, c := range all {
		switch {
		case c.word == filesFollow:
			fmt.Fprintln(app.Writer, filesFollow)
		case !strings.HasPrefix(c.word, word):
		case c.help == "":
			fmt.Fprintln(app.Writer, c.word)
		default:
			fmt.Fprintf(app.Writer, "%s\t%s\n", c.word, c.help)
		}
	}
}
