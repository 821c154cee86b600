package director

import (
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// Redact returns the state with realserver.Redacted for what may be a secret. What it
// shares with s is not changed.
func (s State) Redact() State {
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		s.Services[i].Health = s.Services[i].Health.Redact()
	}
	return s
}

// Redact returns the policy without what its checks may have of secrets, nor commands'
// arguments.
func (h Health) Redact() Health {
	h.Checks = slices.Clone(h.Checks)
	for i, check := range h.Checks {
		h.Checks[i] = check.Redact()
	}
	for _, command := range []*[]string{&h.Notify.Up, &h.Notify.Down, &h.Notify.QuorumUp, &h.Notify.QuorumDown} {
		*command = realserver.RedactArguments(*command)
	}
	return h
}

// Redact returns the step as who may not see secrets is shown it: that one changes is
// seen, and not what it is.
func (s Step) Redact() Step {
	s.Changes = slices.Clone(s.Changes)
	for i, change := range s.Changes {
		if change.Redacted != nil {
			s.Changes[i] = *change.Redacted
		}
	}
	return s
}

// redacting notes in the changes what they are without secrets, by the fields without.
func redacting(changes []Difference, was, is []field) []Difference {
	for i, change := range changes {
		public := Difference{Field: change.Field}
		for j := range is {
			if is[j].name == change.Field {
				public.Old, public.New = orNone(was[j].value), orNone(is[j].value)
			}
		}
		if public != change {
			changes[i].Redacted = &public
		}
	}
	return changes
}

// orNone is the word of a field that is not set, where it was or will be.
func orNone(value string) string {
	if value == "" {
		return "none"
	}
	return value
}
