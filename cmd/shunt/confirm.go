package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// yesFlag is on every command that may ask.
func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}
}

// confirm asks before something is removed, if somebody can answer.
func confirm(c *cli.Context, removed string, connections uint64) error {
	s := streamsOf(c)
	if removed == "" || c.Bool("yes") || !isTerminal(s.in) || !isTerminal(s.out) {
		return nil
	}
	cut := ""
	if connections > 0 {
		cut = ", which cuts " + count(connections, "connection")
	}
	if err := write(s.out, fmt.Appendf(nil, "This removes %s%s. Go on? [y/N] ", removed, cut)); err != nil {
		return err
	}
	answer := make(chan string, 1) // one answer, sent once
	go func() {
		line, _ := bufio.NewReader(s.in).ReadString('\n')
		answer <- line
	}()
	select {
	case <-c.Context.Done(): // ^C; the reader ends with the process
		_ = write(s.out, []byte("\n"))
		return fmt.Errorf("%s: interrupted; nothing was changed", commandName(c))
	case line := <-answer:
		if text := strings.ToLower(strings.TrimSpace(line)); text == "y" || text == "yes" {
			return nil
		}
		return fmt.Errorf("%s: not confirmed; nothing was changed", commandName(c))
	}
}

// confirmCut asks before connections are cut.
func confirmCut(c *cli.Context, removed string, connections uint64) error {
	if connections == 0 {
		return nil
	}
	return confirm(c, removed, connections)
}
