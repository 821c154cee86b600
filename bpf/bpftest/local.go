package bpftest

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// SetLocals makes these addresses, with the ports from first to last, what stands in
// for clients' by full NAT, in this order by family.
func (f *Fixture) SetLocals(first, last uint16, addresses ...netip.Addr) {
	f.t.Helper()
	options, err := f.Plane.PacketOptions()
	f.must(err)
	options.LocalFirst, options.LocalLast = first, last
	options.Locals4, options.Locals6 = 0, 0
	for _, a := range addresses {
		n := &options.Locals4
		if a.Is6() {
			n = &options.Locals6
		}
		f.must(f.Plane.SetLocalAddress(bpf.FirstLocal(a.Is6())+*n, a, true))
		*n++
	}
	f.must(f.Plane.SetPacketOptions(&options))
}
