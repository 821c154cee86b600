package role

import (
	"net/netip"
)

// Severity is how bad it is.
type Severity string

// The severities. A note is not wrong by itself.
const (
	Problem Severity = "problem"
	Note    Severity = "note"
)

// Finding is something about the host that keeps a role from working.
type Finding struct {
	Severity Severity
	Subject  string // what it is about: an address, an interface, a port
	Text     string // a sentence
	Mend     string // the command to type; "": there is none

	// changes mend it; none: Prepare does not.
	changes []Change
	// blocks: whatever Prepare did, it would not work, and might do harm.
	blocks bool
}

// judge says all that is wrong, in the order in which it is to be mended: a host that has
// the virtual address already says so to its network unless it was kept from that before.
func judge(r Role, s *snapshot) []Finding {
	var all []Finding
	for _, of := range []func(Role, *snapshot) []Finding{judgeARP, judgePaths, judgeVIPs, judgeTunnels, judgeMTU, judgeRoutes, judgePorts} {
		all = append(all, of(r, s)...)
	}
	return all
}

// text is a prefix as people write it: one address without its length.
func text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
