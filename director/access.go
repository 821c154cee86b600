package director

import (
	"cmp"
	"net/netip"
	"slices"
)

// MaxAccessPrefixes is the largest number of prefixes a service's Access has.
const MaxAccessPrefixes = 4096

// Access says which clients may use a service, since XDP bypasses the host's
// firewall. The longest prefix that contains the client's address decides;
// where none does, the client is allowed if Allow is empty and denied if not.
// It is asked for new connections: established ones go on.
type Access struct {
	Allow []netip.Prefix // sorted, masked, no prefix in both
	Deny  []netip.Prefix
}

// IsZero reports whether every client is allowed without a look.
func (a Access) IsZero() bool { return len(a.Allow) == 0 && len(a.Deny) == 0 }

// Clone returns a copy that shares nothing with a.
func (a Access) Clone() Access {
	return Access{Allow: slices.Clone(a.Allow), Deny: slices.Clone(a.Deny)}
}

// Equal reports whether a and b decide alike by the same prefixes; both must be
// normalized.
func (a Access) Equal(b Access) bool {
	return slices.Equal(a.Allow, b.Allow) && slices.Equal(a.Deny, b.Deny)
}

// Normalize returns a with its prefixes masked, sorted and without repetitions.
func (a Access) Normalize() Access {
	return Access{Allow: normalizePrefixes(a.Allow), Deny: normalizePrefixes(a.Deny)}
}

func normalizePrefixes(prefixes []netip.Prefix) []netip.Prefix {
	if len(prefixes) == 0 {
		return nil
	}
	masked := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		masked[i] = p.Masked()
	}
	slices.SortFunc(masked, ComparePrefixes)
	return slices.Compact(masked)
}

// ComparePrefixes orders by address, then by length.
func ComparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// Allows reports what a decides about the client.
func (a Access) Allows(client netip.Addr) bool {
	best, allowed := -1, len(a.Allow) == 0
	look := func(prefixes []netip.Prefix, verdict bool) {
		for _, p := range prefixes {
			if p.Contains(client) && p.Bits() > best {
				best, allowed = p.Bits(), verdict
			}
		}
	}
	look(a.Allow, true)
	look(a.Deny, false)
	return allowed
}
