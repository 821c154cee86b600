package realserver

import (
	"fmt"
	"slices"
	"strings"
)

// Redacted stands for values that are shown to nobody who could not change them. No check
// can have it as one: a configuration that was shown so is not true.
const Redacted = "(redacted)"

// WhyRedacted ends the messages that refuse it.
const WhyRedacted = Redacted + ", which stands for a value that viewers are not shown: have an operator export it"

// Redact returns the check with Redacted for what may be a secret: the values of header
// fields, a path's query, what is sent, and a command's arguments. What is empty stays so.
func (c Check) Redact() Check {
	if c.HTTP != nil {
		h := *c.HTTP
		if path, query, has := strings.Cut(h.Path, "?"); has && query != "" {
			h.Path = path + "?" + Redacted
		}
		h.Headers = slices.Clone(h.Headers)
		for i := range h.Headers {
			redact(&h.Headers[i].Value)
		}
		c.HTTP = &h
	}
	if c.Exchange != nil && len(c.Exchange.Send) > 0 {
		e := *c.Exchange
		e.Send = []byte(Redacted)
		c.Exchange = &e
	}
	if c.Script != nil {
		s := *c.Script
		s.Command = RedactArguments(s.Command)
		c.Script = &s
	}
	return c
}

// RedactArguments returns the command, its program as it is, with Redacted for each
// argument that is not empty.
func RedactArguments(command []string) []string {
	command = slices.Clone(command)
	for i := 1; i < len(command); i++ {
		redact(&command[i])
	}
	return command
}

func redact(value *string) {
	if *value != "" {
		*value = Redacted
	}
}

// RedactedArgument returns the place of a command's first argument that RedactArguments
// has put there; 0 if there is none.
func RedactedArgument(command []string) int {
	for i, word := range command {
		if i > 0 && word == Redacted {
			return i
		}
	}
	return 0
}

// redacted reports values that Redact has put there.
func (v *checkValidation) redacted(c Check) {
	if c.HTTP != nil {
		if _, query, _ := strings.Cut(c.HTTP.Path, "?"); query == Redacted {
			v.report("http.path", "the path's query is %s", WhyRedacted)
		}
		for i, header := range c.HTTP.Headers {
			if header.Value == Redacted {
				v.report(fmt.Sprintf("http.headers[%d]", i), "the value of header %s is %s", header.Name, WhyRedacted)
			}
		}
	}
	if c.Exchange != nil && string(c.Exchange.Send) == Redacted {
		v.report("exchange.send", "what is sent is %s", WhyRedacted)
	}
	if c.Script != nil {
		if i := RedactedArgument(c.Script.Command); i > 0 {
			v.report(fmt.Sprintf("script.command[%d]", i), "argument %d is %s", i, WhyRedacted)
		}
	}
}
