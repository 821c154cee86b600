package ipvsadm

import (
	"fmt"
	"io"

	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// maxInput is more than any table takes.
const maxInput = 256 << 20

// restore carries out -R, or what the script ipvsadm-restore does: that begins
// with -C, and has comments. All is parsed first, and what changes the table is
// one change: where ipvsadm goes on after a line that is refused, and ends in the
// middle after one that it cannot read, nothing is changed here. Lines that show
// something, or zero counters, are carried out after the change.
func (s *session) restore(asScript bool) int {
	text, err := io.ReadAll(io.LimitReader(s.options.In, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = fmt.Errorf("more than %d bytes", maxInput)
	}
	if err != nil {
		s.say(fmt.Sprintf("shunt: read the standard input: %v\n", err))
		return language.ExitFailed
	}
	var changes, others []language.Line
	if asScript {
		text = language.StripComments(text)
		changes = []language.Line{{Command: language.Command{Operation: language.Flush}}}
	}
	for _, line := range s.parser.Restore(text) {
		switch {
		case line.Err != nil:
			status := s.misused(line.Err)
			s.atLine(line, 0)
			return status
		case isChange(line.Command.Operation):
			changes = append(changes, line)
		default:
			others = append(others, line)
		}
	}
	if len(changes) > 0 {
		if status := s.change(changes); status != exitOK {
			return status
		}
	}
	status := exitOK
	for _, line := range others {
		// A list that fails ends ipvsadm at once; all else goes on.
		if status = s.command(line.Command); status == language.ExitFailed {
			return status
		}
	}
	return status
}

// isChange reports whether a command of a restore changes the table.
func isChange(o language.Operation) bool {
	switch o {
	case language.List, language.Save, language.Zero, language.Help, language.Version:
		return false
	default:
		return true
	}
}
