package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// usageError is a command line that cannot be understood.
type usageError struct{ text, hint string }

// Error returns the text.
func (e *usageError) Error() string { return e.text }

// prepare gives every command the error handling of the whole, and the check of
// its arguments against its ArgsUsage.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = badFlag
		c.HideHelpCommand = true
		switch {
		case len(c.Subcommands) == 0:
			c.Before = checkArguments
		case c.Action == nil:
			c.Action = noCommand
		default:
			action := c.Action
			c.Action = func(c *cli.Context) error {
				if c.Args().Present() {
					return noCommand(c)
				}
				return action(c)
			}
		}
		prepare(c.Subcommands)
	}
}

// noCommand runs where a command is missing or unknown.
func noCommand(c *cli.Context) error {
	var names []string
	for _, known := range c.Command.VisibleCommands() {
		names = append(names, known.Name)
	}
	name := commandName(c)
	hint := "one of: " + strings.Join(names, ", ") + "; `" + strings.TrimSpace("shunt "+name) + " --help` says more"
	if name != "" {
		name += ": "
	}
	if !c.Args().Present() {
		return &usageError{name + "no command given", hint}
	}
	return &usageError{fmt.Sprintf("%sunknown command %q", name, c.Args().First()), hint}
}

// badFlag turns what the flag package says into a usage error.
func badFlag(c *cli.Context, err error, _ bool) error {
	text := strings.Replace(err.Error(), "flag provided but not defined: ", "unknown flag ", 1)
	if strings.Contains(text, " for -watch: ") { // it takes no value as booleans do, but is none
		text = strings.Replace(text, "invalid boolean value", "invalid value", 1)
	}
	return usage(c, "%s", text)
}

// usage is a usage error of the command that runs.
func usage(c *cli.Context, format string, args ...any) error {
	name, text := commandName(c), fmt.Sprintf(format, args...)
	if name == "" {
		return &usageError{text, "`shunt --help` shows how"}
	}
	return &usageError{name + ": " + text, "`shunt " + name + " --help` shows how"}
}

// commandName is the command's name without the program's: "service add".
func commandName(c *cli.Context) string {
	return strings.TrimSpace(strings.TrimPrefix(c.Command.HelpName, c.App.Name))
}

// parameter is a positional argument of a command, from its ArgsUsage.
type parameter struct {
	name     string // SERVICE
	optional bool   // written in brackets
	repeated bool   // with three dots behind it
}

// parameters reads an ArgsUsage such as "SERVICE ADDRESS[:PORT]" or "[REVISION]".
func parameters(argsUsage string) []parameter {
	var all []parameter
	for _, word := range strings.Fields(argsUsage) {
		var p parameter
		word, p.repeated = strings.CutSuffix(word, "...")
		word, p.optional = strings.CutPrefix(word, "[")
		p.name, _, _ = strings.Cut(strings.TrimSuffix(word, "]"), "[")
		all = append(all, p)
	}
	return all
}

// checkArguments refuses positional arguments that are missing, empty or too
// many. Those that are left out are "" in c.Args().Get.
func checkArguments(c *cli.Context) error {
	args, all := c.Args().Slice(), parameters(c.Command.ArgsUsage)
	for i, p := range all {
		if i >= len(args) && !p.optional {
			return usage(c, "%s is missing", p.name)
		}
		if i < len(args) && args[i] == "" {
			return usage(c, "%s is empty", p.name)
		}
	}
	if repeated := len(all) > 0 && all[len(all)-1].repeated; len(args) > len(all) && !repeated {
		return usage(c, "unexpected argument %q", args[len(all)])
	}
	return nil
}

// words splits a list with commas.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// given returns a flag's value, or nil where the flag was not given.
func given(c *cli.Context, name string) *string {
	if !c.IsSet(name) {
		return nil
	}
	value := c.String(name)
	return &value
}

// examples is a command's description with command lines to try, which a test
// parses; the man pages show them in a section of their own.
func examples(text string, lines ...string) string {
	if text != "" {
		text += "\n\n"
	}
	return text + examplesHeading + "\n  " + strings.Join(lines, "\n  ")
}

const examplesHeading = "Examples:"

// splitExamples takes apart what examples put together.
func splitExamples(description string) (text string, lines []string) {
	text, list, _ := strings.Cut(description, examplesHeading+"\n")
	for line := range strings.Lines(list) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.TrimSpace(text), lines
}
