package doctor

import "github.com/shunt-lb/shunt/director"

// Check is one entry of the table of checks.
type Check struct {
	ID    string // stable: in the API, and what operators filter by
	Title string // what it looks at
	Good  string // what is said when nothing was found
	Only  string // the data plane that it is about alone; empty: it is about each

	run func(*inspection, *report)
}

// Checks returns the table, in the order of Inspect's findings. checks.md has the
// same, for operators.
func Checks() []Check {
	const xdp, ipvs, each = director.PlaneXDP, director.PlaneIPVS, ""
	return []Check{
		{"kernel", "kernel version", "the kernel has what Shunt needs", xdp, checkKernel},
		{"jit", "BPF just-in-time compiler", "the BPF JIT is on", xdp, checkJIT},
		{"clock", "clock source", "the clock is read without leaving the CPU", each, checkClock},
		{"bpffs", "BPF file system of the pins", "pins are on a BPF file system that others cannot enter", xdp, checkBpffs},
		{"memory", "memory for the tables", "the tables have room", xdp, checkMemory},
		{"interface", "named interfaces", "all are there and up", each, checkInterfaces},
		{"xdp-mode", "XDP in the driver", "all interfaces run, or can run, XDP in their driver", xdp, checkXDPMode},
		{"xdp-other", "other XDP programs", "no interface has another XDP program", xdp, checkOtherXDP},
		{"tc", "traffic control", "no filter or program of traffic control is passed by", xdp, checkTC},
		{"lro", "merging of received packets (LRO, GRO)", "XDP is given packets as they came", xdp, checkLRO},
		{"vlan-stripping", "VLAN tags that the card takes off", "XDP sees VLAN tags", xdp, checkVLANStripping},
		{"veth", "virtual interfaces", "no veth loses what XDP sends", xdp, checkVeth},
		{"queues", "queues and CPUs", "there are queues for all CPUs", xdp, checkQueues},
		{"rss", "spreading of packets over queues (RSS)", "packets are spread over all queues", xdp, checkRSS},
		{"irq", "interrupts and CPUs", "queues interrupt different CPUs", xdp, checkInterrupts},
		{"forwarding", "forwarding by the stack", "replies without a known way back can go by routes", each, checkForwarding},
		{"rp-filter", "reverse path filter", "no interface drops by the route back", each, checkRPFilter},
		{"send-redirects", "ICMP redirects", "nobody is sent past the director", each, checkRedirects},
		{"accept-local", "replies that cross the director", "replies from virtual addresses are not taken for forged, or do not come", each, checkAcceptLocal},
		{"arp", "ARP for virtual addresses", "virtual addresses are answered for", each, checkARP},
		{"route", "routes to servers", "servers are reached by named interfaces", xdp, checkRoutes},
		{"neighbour", "neighbours", "no server's next hop is known to be silent", each, checkNeighbours},
		{"mtu", "MTU headroom", "what comes in fits where it goes", each, checkMTU},
		{"tunnel", "sources of tunnels", "what is told to tunnels' sources comes here", xdp, checkTunnels},
		{"fullnat", "addresses of full NAT", "servers' replies to full NAT's addresses come here", xdp, checkFullNAT},
		{"vip", "virtual addresses", "virtual addresses are where the services want them", each, checkVIP},
		{"nftables", "nftables rules that XDP bypasses", "no rule is about the services", xdp, checkNftables},
		{"iptables", "iptables rules that XDP bypasses", "no rule is about the services", xdp, checkIptables},
		{"conntrack", "size of the kernel's connection table", "the kernel's connection table has room", each, checkConntrack},
		{"ipvs-kernel", "IPVS in the kernel", "the kernel has IPVS", ipvs, checkKernelIPVS},
		{"ipvs-modules", "schedulers of the kernel's IPVS", "the kernel has, or finds, what the services want", ipvs, checkIPVSModules},
		{"ipvs-table", "connection table of the kernel's IPVS", "the connection table has the buckets for the connections", ipvs, checkIPVSTable},
		{"ipvs-templates", "persistence and drains", "drains end persistence too", ipvs, checkIPVSTemplates},
		{"ipvs-foreign", "services in the kernel's IPVS that are not Shunt's", "all are Shunt's", ipvs, checkIPVSForeign},
		{"ipvs", "services that the kernel's IPVS has too", "IPVS has none of the services", xdp, checkIPVS},
	}
}
