package bpftest

import (
	"errors"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
)

// Clear takes all services, connections and the next hops learned away, so that
// another test can use the fixture: loading one takes longer than most tests.
// Interfaces, settings and static next hops stay; no index is used again.
func (f *Fixture) Clear() {
	f.t.Helper()
	for _, e := range f.Entries() {
		if e.Hop != 0 {
			f.ChangeLearnedHop(e.Hop, func(h *bpf.KernelHop) { *h = bpf.KernelHop{} })
		}
	}
	editGroups(f, f.Plane.Connections4, func(g *bpf.KernelGroup4) { *g = bpf.KernelGroup4{} })
	editGroups(f, f.Plane.Connections6, func(g *bpf.KernelGroup6) { *g = bpf.KernelGroup6{} })
	var key bpf.KernelServiceKey
	for f.Plane.ServiceIndex.NextKey(nil, &key) == nil {
		f.must(f.Plane.ServiceIndex.Delete(key))
	}
	for _, s := range f.wide {
		if err := f.deleteMatch(s); !errors.Is(err, ebpf.ErrKeyNotExist) { // two may have one prefix
			f.must(err)
		}
	}
	f.wide = nil
	echoes, err := f.Plane.EchoEntries()
	f.must(err)
	for _, e := range echoes {
		f.must(f.Plane.ClearEcho(e.Key))
	}
	f.ForgetFragments()
	f.must(bpf.ClearArray[bpf.KernelService](f.Plane.Services))
	f.filter = bpf.KernelFilter{}
	f.must(f.Plane.SetFilter(&f.filter))
	f.Events()
}
