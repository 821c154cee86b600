package doctor

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/shunt-lb/shunt/director"
)

// checkConntrack looks at the kernel's own connection table.
func checkConntrack(i *inspection, r *report) {
	const folder = "proc/sys/net/netfilter/nf_conntrack_"
	limit, err := i.number(folder + "max")
	if missing(err) {
		return // the kernel tracks nothing
	}
	if err != nil {
		r.unknown("", err)
		return
	}
	count, err := i.number(folder + "count")
	if err != nil {
		r.unknown("", err)
		return
	}
	if limit > 0 && count >= limit/10*8 {
		r.add(Warning, "", fmt.Sprintf("the kernel's connection table holds %d of at most %d (nf_conntrack)", count, limit),
			"Shunt's connections are not in it, but what Shunt passes to the stack is, such as method local: when it is full, new connections are dropped",
			fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", max(2*limit, 2*count)))
	}
}

// checkIPVS looks for services that the kernel's IPVS has too.
func checkIPVS(i *inspection, r *report) {
	// The folder of a thread shows its network namespace in net/.
	proc, err := procfs.NewFS(i.path("proc/thread-self"))
	if err != nil {
		r.unknown("", err)
		return
	}
	servers, err := proc.IPVSBackendStatus()
	if missing(err) {
		return // a kernel without ip_vs, or it is not loaded
	}
	if err != nil {
		r.unknown("", fmt.Errorf("read the kernel's IPVS table: %w", err))
		return
	}
	told := map[director.ServiceKey]bool{}
	for _, have := range servers {
		addr, ok := netip.AddrFromSlice(have.LocalAddress)
		if !ok {
			continue // by firewall mark
		}
		for _, s := range i.Services {
			if s.Key.Address != netip.AddrPortFrom(addr.Unmap(), have.LocalPort) || !strings.EqualFold(have.Proto, s.Key.Protocol.String()) || told[s.Key] {
				continue
			}
			told[s.Key] = true
			r.add(Info, s.Key.String(), fmt.Sprintf("the kernel's IPVS has service %s too", s.Key),
				"XDP sees packets first: connections that IPVS has are cut or scheduled anew, and its counters stand still",
				"shunt migrate ipvs-to-xdp "+quote(s.Key.String()))
		}
	}
}
