package bpftest

import (
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
)

// SetLocals makes these addresses, with the ports from first to last, what stands in
// for clients' by full NAT, in this order by family.
func (f *Fixture) SetLocals(first, last uint16, addresses ...netip.Addr) {
	f.t.Helper()
	f.ChangePacketOptions(func(o *bpf.KernelPacketOptions) {
		o.LocalFirst, o.LocalLast = first, last
		o.Locals4, o.Locals6 = 0, 0
		for _, a := range addresses {
			n := &o.Locals4
			if a.Is6() {
				n = &o.Locals6
			}
			f.must(f.Plane.PutLocalAddress(bpf.FirstLocal(a.Is6())+*n, &bpf.KernelLocalAddress{Address: bpf.Address(a), Offered: 1}))
			*n++
		}
	})
}
