package bpftest

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// Access is a service's list of clients. Rest decides about those in no prefix.
type Access struct {
	Allow, Deny []netip.Prefix
	Rest        bpf.KernelAccessVerdict // 0: ACCESS_ALLOW
}

// PutAccess writes the list as the set of this number and returns the word that
// names it, to be a service's Access.
func (f *Fixture) PutAccess(set uint32, list Access) uint32 {
	f.t.Helper()
	for _, p := range list.Allow {
		f.must(f.Plane.Access.Put(bpf.AccessKey(set, p), uint32(bpf.KernelAccessVerdictACCESS_ALLOW)))
	}
	for _, p := range list.Deny {
		f.must(f.Plane.Access.Put(bpf.AccessKey(set, p), uint32(bpf.KernelAccessVerdictACCESS_DENY)))
	}
	return bpf.AccessWord(set, list.Rest == bpf.KernelAccessVerdictACCESS_DENY)
}

// RemoveAccess removes what PutAccess wrote.
func (f *Fixture) RemoveAccess(set uint32, list Access) {
	f.t.Helper()
	for _, prefixes := range [][]netip.Prefix{list.Allow, list.Deny} {
		for _, p := range prefixes {
			f.must(f.Plane.Access.Delete(bpf.AccessKey(set, p)))
		}
	}
}
