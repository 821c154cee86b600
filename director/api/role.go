package api

import "fmt"

// Role is what a caller may do; each includes those before it.
type Role uint8

// The roles. An agent registers its own server in its own pools, a viewer reads, an operator changes what is desired, an admin also
// takes the data plane off the host.
const (
	public Role = iota // whoever asks, without credentials
	Agent
	Viewer
	Operator
	Admin
)

// String returns the word used in the tokens file, in certificates and in the
// document.
func (r Role) String() string {
	switch r {
	case Agent:
		return "agent"
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	default:
		return "public"
	}
}

// ParseRole reads a word as String prints it: agent, viewer, operator or admin.
func ParseRole(s string) (Role, error) {
	for _, r := range []Role{Agent, Viewer, Operator, Admin} {
		if s == r.String() {
			return r, nil
		}
	}
	return public, fmt.Errorf("unknown role %q: want agent, viewer, operator or admin", s)
}
