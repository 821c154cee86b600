package ipvsadm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// Import translates what ipvsadm -S has written, or a script of ipvsadm's commands
// one a line, into what they come to on an empty table. A line that ipvsadm, or the
// kernel, would refuse is an error, as is one that Shunt has no words for; the name
// is the file's, for positions.
func Import(name string, text []byte) (translation.Result, error) {
	at := func(line int) translation.Position { return translation.Position{File: name, Line: line} }
	lines, err := language.Parser{}.ParseSave(text)
	if refused, ok := errors.AsType[*language.LineError](err); ok {
		return translation.Result{}, &translation.Error{Position: at(refused.Number), Text: refused.Err.Error()}
	}
	if err != nil {
		return translation.Result{}, err
	}
	table := newTable(director.State{})
	result := translation.Result{}
	for _, l := range lines {
		if l.Command.Operation == language.Zero {
			result.Notes = append(result.Notes, translation.Note{
				Position: at(l.Number), Kind: translation.NotCarried, What: strings.Join(l.Args, " "), Why: "a configuration has no counters",
			})
			continue
		}
		if r := table.change(l.Command); r != nil {
			why := strings.Join(append([]string{strings.TrimSpace(r.Error())}, r.because...), ": ")
			return translation.Result{}, translation.Errorf(at(l.Number), "%s: %s", strings.Join(l.Args, " "), why)
		}
	}
	result.State = table.state.Normalize()
	whole := result.State
	whole.Timeouts = conntrack.DefaultTimeouts().Merge(whole.Timeouts) // those not given stay
	if err := whole.Validate(); err != nil {
		return translation.Result{}, fmt.Errorf("translate %s: %w", name, err)
	}
	if len(result.State.Services) > 0 && !hasThresholds(result.State) {
		result.Notes = append([]translation.Note{{
			Position: at(0), Kind: translation.NotCarried, What: "ipvsadm -S",
			Why: "it saves no thresholds (-x, -y), timeouts, sync daemons and sysctls: `shunt import --adopt` takes them from the kernel",
		}}, result.Notes...)
	}
	return result, nil
}

// hasThresholds reports whether a server has one: the text is not ipvsadm -S's
// then, which loses them.
func hasThresholds(state director.State) bool {
	for _, service := range state.Services {
		for _, server := range service.Servers {
			if server.Upper != 0 {
				return true
			}
		}
	}
	return false
}
