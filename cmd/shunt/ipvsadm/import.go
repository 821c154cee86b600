package ipvsadm

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// unsaved is the reminder of what ipvsadm -S loses, and of who has it.
const unsaved = "it saves no thresholds (-x, -y), timeouts, sync daemons and sysctls. `shunt import --adopt` takes the kernel's services " +
	"with their thresholds, and no more; `shunt apply` takes a sync daemon over if director.sync has it; write timeouts into director.connections.timeouts " +
	"(ipvsadm -L --timeout shows them)"

// importer carries out the lines of a text on an empty table.
type importer struct {
	name  string
	table *table
	// left are services that the kernel would have, and Shunt cannot.
	left  map[director.ServiceKey]bool
	notes []translation.Note
}

// Import translates what ipvsadm -S has written, or a script of ipvsadm's commands
// one a line, into what they come to on an empty table. A line that ipvsadm, or the
// kernel, would refuse is an error; what they take and Shunt has no words for is
// left out, with a note. The name is the file's, for positions.
func Import(name string, text []byte) (translation.Result, error) {
	i := &importer{name: name, table: newTable(director.State{}), left: make(map[director.ServiceKey]bool)}
	lines, err := language.Parser{}.ParseSave(withoutPaths(text))
	if refused, ok := errors.AsType[*language.LineError](err); ok {
		// What ipvsadm says may be no more than that it has a help text.
		line := bytes.Split(text, []byte("\n"))[refused.Number-1]
		return translation.Result{}, translation.Errorf(i.at(refused.Number), "%s: %v", translation.What(string(bytes.TrimSpace(line))), refused.Err)
	}
	if err != nil {
		return translation.Result{}, err
	}
	for _, l := range lines {
		if err := i.line(l); err != nil {
			return translation.Result{}, err
		}
	}
	state := i.table.state.Normalize()
	whole := state
	whole.Timeouts = conntrack.DefaultTimeouts().Merge(whole.Timeouts) // those not given stay
	if err := whole.Validate(); err != nil {
		return translation.Result{}, fmt.Errorf("translate %s: %w", name, err)
	}
	result := translation.Result{State: state, Notes: i.notes}
	if len(state.Services) > 0 && !hasThresholds(state) {
		result.Notes = append([]translation.Note{{
			Position: i.at(0), Kind: translation.Reminder, What: "ipvsadm -S", Why: unsaved,
		}}, result.Notes...)
	}
	return result, nil
}

// withoutPaths makes ipvsadm of the program's whole path: scripts name it so, and
// ipvsadm passes over its own name alone.
func withoutPaths(text []byte) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, line := range lines {
		if words := bytes.Fields(line); len(words) > 1 && bytes.HasPrefix(words[0], []byte("/")) && path.Base(string(words[0])) == "ipvsadm" {
			lines[i] = bytes.Replace(line, words[0], []byte("ipvsadm"), 1)
		}
	}
	return bytes.Join(lines, nil)
}

func (i *importer) at(line int) translation.Position {
	return translation.Position{File: i.name, Line: line}
}

func (i *importer) note(l language.Line, kind translation.Kind, why string) {
	i.notes = append(i.notes, translation.Note{Position: i.at(l.Number), Kind: kind, What: translation.What(l.Args...), Why: why})
}

// line carries out a command.
func (i *importer) line(l language.Line) error {
	key := l.Command.Service.Key()
	index := i.table.state.Service(key)
	switch o := l.Command.Operation; {
	case o == language.Zero:
		i.note(l, translation.NotCarried, "a configuration has no counters")
		return nil
	case o == language.Flush:
		clear(i.left)
	case l.Command.Has(language.OptService) && i.left[key]:
		return i.ofLeft(l, key)
	case o == language.AddServer && index >= 0 && len(i.table.state.Services[index].Servers) >= director.MaxServers:
		return translation.Errorf(i.at(l.Number), "%s: a service has at most %d servers", strings.Join(l.Args, " "), director.MaxServers)
	}
	r := i.table.change(l.Command)
	if r == nil {
		return nil
	}
	if len(r.because) == 0 {
		return i.refused(l, r)
	}
	i.note(l, translation.LeftOut, strings.Join(r.because, ": "))
	switch l.Command.Operation {
	case language.AddService:
		i.left[key] = true
	case language.EditService: // Shunt has no words for what it is now
		i.left[key] = true
		i.table.deleteService(key)
	}
	return nil
}

// ofLeft carries out a command on a service that is left out.
func (i *importer) ofLeft(l language.Line, key director.ServiceKey) error {
	switch l.Command.Operation {
	case language.AddService:
		return i.refused(l, &refusal{of: language.AddService, errno: syscall.EEXIST})
	case language.DeleteService:
		delete(i.left, key)
	default:
		i.note(l, translation.LeftOut, "the service "+key.String()+" is left out")
	}
	return nil
}

func (i *importer) refused(l language.Line, r *refusal) error {
	return translation.Errorf(i.at(l.Number), "%s: %s", strings.Join(l.Args, " "), strings.TrimSpace(r.Error()))
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
