package director

import (
	"fmt"
	"net/netip"
)

// ProblemError is one thing wrong with a state, located. Validate joins them;
// errors.Is tells invalid from unsupported by Kind.
type ProblemError struct {
	// Service is the index in the validated state's Services, Server the one in
	// the service's Servers; -1 where the problem is not in one.
	Service, Server int
	// Field is what is wrong within them, in the words of the configuration, such
	// as listen, flags, access, servers, weight or tunnel; of a sync daemon, in
	// Where, such as role.
	Field string
	// Other is the index of the service that has already what only one may have;
	// -1 where the problem is another one.
	Other int
	// Prefix is the one of the access list that the problem is about, if it is
	// about one.
	Prefix netip.Prefix
	// Where is the location in words, such as `services[2] "web": servers[1]`.
	Where string
	Text  string // what Message begins with
	Kind  error  // ErrInvalid or ErrUnsupported
}

// Error returns the location and the message.
func (e *ProblemError) Error() string {
	message := e.Message(fmt.Sprintf("services[%d]", e.Other))
	if e.Where == "" {
		return message
	}
	return fmt.Sprintf("%s: %s", e.Where, message)
}

// Message says what is wrong; other is what to call the service Other.
func (e *ProblemError) Message(other string) string {
	if e.Other < 0 {
		return e.Text
	}
	return fmt.Sprintf("%s %s already", e.Text, other)
}

// Unwrap returns the kind.
func (e *ProblemError) Unwrap() error { return e.Kind }

// Problems returns the *ProblemErrors that an error of Validate joins, in
// order; nil if there are none.
func Problems(err error) []*ProblemError {
	switch e := err.(type) {
	case nil:
		return nil
	case *ProblemError:
		return []*ProblemError{e}
	case interface{ Unwrap() []error }:
		var all []*ProblemError
		for _, inner := range e.Unwrap() {
			all = append(all, Problems(inner)...)
		}
		return all
	case interface{ Unwrap() error }:
		return Problems(e.Unwrap())
	default:
		return nil
	}
}
