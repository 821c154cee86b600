package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print a manual page, or write all of them into a folder", ArgsUsage: "[COMMAND]",
		Description: examples("COMMAND is one such as service; without it the page is that of the whole.",
			"shunt man service | man -l -",
			"shunt man --dir /usr/local/share/man/man1"),
		Flags:  []cli.Flag{&cli.StringFlag{Name: "dir", Usage: "write shunt.1, shunt-service.1 and so on into `FOLDER`"}},
		Action: man,
	}
}

func man(c *cli.Context) error {
	name := c.Args().Get(0)
	if dir := c.String("dir"); dir != "" {
		if name != "" {
			return usage(c, "--dir writes all pages: it takes no COMMAND")
		}
		return manPages(c.App, dir)
	}
	if name == "" {
		return write(c.App.Writer, []byte(manWhole(c.App)))
	}
	command, err := byPrefix(c.App.Commands, name)
	if err != nil {
		return err
	}
	if command == nil {
		return usage(c, "unknown command %q", name)
	}
	return write(c.App.Writer, []byte(manPage(c.App, command)))
}

// manPages writes a page for the whole and one for each command.
func manPages(app *cli.App, dir string) error {
	pages := map[string]string{"shunt.1": manWhole(app)}
	for _, command := range app.VisibleCommands() {
		pages["shunt-"+command.Name+".1"] = manPage(app, command)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write manual page: %w", err)
		}
	}
	return nil
}

// roff is a manual page in the man macros (man(7)).
type roff struct{ strings.Builder }

// escape keeps text from being read as requests or escapes, and hyphens from
// becoming dashes that cannot be pasted.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "~", `\(ti`, "^", `\(ha`, "'", `\(aq`, "`", `\(ga`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// macro writes a request with quoted arguments.
func (r *roff) macro(name string, args ...string) {
	r.WriteString("." + name)
	for _, arg := range args {
		fmt.Fprintf(r, ` "%s"`, strings.ReplaceAll(escape(arg), `"`, `\(dq`))
	}
	r.WriteByte('\n')
}

// text writes paragraphs; lines that are indented stay as they are.
func (r *roff) text(text string) {
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			r.macro("PP")
		}
		for line := range strings.Lines(paragraph) {
			line = strings.TrimRight(line, "\n")
			if verbatim, found := strings.CutPrefix(line, "  "); found {
				r.verbatim(verbatim)
				continue
			}
			r.WriteString(escape(line) + "\n")
		}
	}
}

// verbatim writes a line as it is.
func (r *roff) verbatim(line string) {
	r.macro("RS", "4")
	r.macro("EX")
	r.WriteString(escape(line) + "\n")
	r.macro("EE")
	r.macro("RE")
}

// flags writes a list of flags.
func (r *roff) flags(flags []cli.Flag) {
	for _, flag := range flags {
		documented, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		r.macro("TP")
		var names []string
		for _, name := range flag.Names() {
			if len(name) == 1 {
				names = append(names, "-"+name)
			} else {
				names = append(names, "--"+name)
			}
		}
		head := strings.Join(names, ", ")
		placeholder := placeholderOf(documented)
		switch _, mayOmit := flag.(optional); {
		case mayOmit:
			head += "[=" + placeholder + "]"
		case documented.TakesValue():
			head += " " + placeholder
		}
		r.macro("B", head)
		text := plainUsage(documented)
		if env := documented.GetEnvVars(); len(env) > 0 {
			text += "; environment: " + strings.Join(env, ", ")
		}
		r.WriteString(escape(text) + "\n")
	}
}

// placeholderOf is the word between backquotes in a flag's usage.
func placeholderOf(flag cli.DocGenerationFlag) string {
	parts := strings.Split(flag.GetUsage(), "`")
	if len(parts) < 3 {
		return "VALUE"
	}
	return parts[1]
}

func (r *roff) heading(app *cli.App, name, usage string) {
	r.macro("TH", strings.ToUpper(name), "1", "", "Shunt "+app.Version, "Shunt")
	r.macro("SH", "NAME")
	r.WriteString(escape(name) + ` \- ` + escape(usage) + "\n")
	r.macro("SH", "SYNOPSIS")
}

// manWhole is shunt(1): the commands in a list, and what they have in common.
func manWhole(app *cli.App) string {
	var r roff
	r.heading(app, "shunt", app.Usage)
	r.macro("B", "shunt")
	r.WriteString("[flags] command [flags] [arguments]\n")
	r.macro("SH", "DESCRIPTION")
	text, lines := splitExamples(app.Description)
	r.text(text)
	r.macro("SH", "COMMANDS")
	var others []string
	for _, command := range app.VisibleCommands() {
		page := "shunt-" + command.Name
		others = append(others, escape(page)+"(1)")
		r.macro("TP")
		r.macro("B", page+"(1)")
		r.WriteString(escape(command.Usage) + "\n")
	}
	r.macro("SH", "FLAGS")
	r.flags(app.Flags)
	r.examples(lines)
	r.macro("SH", "SEE ALSO")
	r.WriteString(strings.Join(others, ", ") + "\n")
	return r.String()
}

// manPage is the page of a command with its subcommands.
func manPage(app *cli.App, command *cli.Command) string {
	var r roff
	name := "shunt " + command.Name
	r.heading(app, "shunt-"+command.Name, command.Usage)
	leaves := command.VisibleCommands()
	if command.Action != nil && len(leaves) == 0 {
		r.synopsis(name, command)
		r.macro("SH", "DESCRIPTION")
		r.command(command)
	} else {
		for _, sub := range leaves {
			r.synopsis(name+" "+sub.Name, sub)
		}
		r.macro("SH", "DESCRIPTION")
		r.command(command)
		r.macro("SH", "COMMANDS")
		for _, sub := range leaves {
			r.macro("SS", strings.TrimSpace(name+" "+sub.Name+" "+sub.ArgsUsage))
			r.command(sub)
		}
	}
	r.macro("SH", "SEE ALSO")
	r.WriteString("shunt(1), for the flags that every command has\n")
	return r.String()
}

func (r *roff) synopsis(name string, command *cli.Command) {
	r.macro("B", name)
	r.WriteString(escape(strings.TrimSpace("[flags] "+command.ArgsUsage)) + "\n")
	r.macro("br")
}

// command writes what a command does, its flags and its examples.
func (r *roff) command(command *cli.Command) {
	text, lines := splitExamples(command.Description)
	r.WriteString(escape(strings.ToUpper(command.Usage[:1])+command.Usage[1:]) + ".\n")
	if text != "" {
		r.macro("PP")
		r.text(text)
	}
	r.flags(command.VisibleFlags())
	if len(lines) > 0 {
		r.macro("PP")
		r.WriteString(examplesHeading + "\n")
		for _, line := range lines {
			r.verbatim(line)
		}
	}
}

func (r *roff) examples(lines []string) {
	r.macro("SH", "EXAMPLES")
	for _, line := range lines {
		r.verbatim(line)
	}
}
