package doctor

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// kernelServices is the table of IPVS' services in this network namespace.
const kernelServices = "proc/thread-self/net/ip_vs"

// checkKernelIPVS looks for IPVS in the running kernel.
func checkKernelIPVS(i *inspection, r *report) {
	switch _, err := i.read(kernelServices); {
	case missing(err):
		r.add(Error, "", "the kernel has no IPVS, or has not loaded it",
			"shuntd cannot open the data plane ipvs; it loads no modules",
			"modprobe ip_vs; echo ip_vs > /etc/modules-load.d/shunt.conf")
	case err != nil:
		r.unknown("", err)
	}
}

// checkIPVSModules looks for the modules that the services want. What is not loaded
// the kernel loads by itself, if it finds it.
func checkIPVSModules(i *inspection, r *report) {
	wanted := map[string][]string{} // services by module
	var modules []string
	want := func(module string, s *director.Service) {
		if wanted[module] == nil {
			modules = append(modules, module)
		}
		wanted[module] = append(wanted[module], ref(*s))
	}
	for n := range i.Services {
		s := &i.Services[n]
		want("ip_vs_"+string(s.Scheduler), s)
		if s.Persistence.Engine != "" {
			want("ip_vs_pe_"+string(s.Persistence.Engine), s)
		}
	}
	slices.Sort(modules)
	known := i.modules()
	for _, module := range modules {
		if !known[module] {
			r.add(Error, module, fmt.Sprintf("the kernel has no module %s, and finds none", module),
				"these services are refused: "+strings.Join(wanted[module], ", "),
				"modprobe "+module+" # or the package of your kernel's further modules, or another scheduler")
		}
	}
}

// modules are those that the kernel has loaded, was built with, or finds.
func (i *inspection) modules() map[string]bool {
	known := map[string]bool{}
	if loaded, err := i.read("proc/modules"); err == nil {
		for line := range strings.Lines(loaded) {
			name, _, _ := strings.Cut(line, " ")
			known[name] = true
		}
	}
	release, err := i.read("proc/sys/kernel/osrelease")
	if err != nil {
		return known
	}
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := i.read("lib/modules/" + release + "/" + list)
		if err != nil {
			continue // a container, or a kernel without modules
		}
		for line := range strings.Lines(text) {
			path, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			name, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ".ko")
			known[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	return known
}

// perBucket is how many connections in a bucket are no reason to speak.
const perBucket = 8

// checkIPVSTable compares the buckets of the kernel's table with the connections that
// it is to hold.
func checkIPVSTable(i *inspection, r *report) {
	n, err := i.number("sys/module/ip_vs/parameters/conn_tab_bits")
	if missing(err) {
		return // not loaded, which is another check's, or built in without the parameter
	}
	if err != nil {
		r.unknown("", err)
		return
	}
	expected := i.MaxConnections4 + i.MaxConnections6
	if buckets := uint64(1) << min(n, 62); expected > perBucket*buckets {
		want := bits.Len64(expected/perBucket - 1)
		r.add(Info, "", fmt.Sprintf("the connection table of the kernel's IPVS has %d buckets (conn_tab_bits=%d), for up to %d connections", buckets, n, expected),
			"each packet walks along the connections of its bucket. The number of buckets is set as the module is loaded: after a restart of the host",
			fmt.Sprintf("echo options ip_vs conn_tab_bits=%d > /etc/modprobe.d/shunt.conf", max(want, n+1)))
	}
}

// checkIPVSTemplates looks at what becomes of the clients of a draining server.
func checkIPVSTemplates(i *inspection, r *report) {
	persistent := slices.ContainsFunc(i.Services, func(s director.Service) bool { return s.Persistence.Timeout != 0 })
	if !persistent {
		return
	}
	const knob = "net.ipv4.vs.expire_quiescent_template"
	on, err := i.number("proc/sys/" + strings.ReplaceAll(knob, ".", "/"))
	if missing(err) {
		return // no IPVS: another check's
	}
	if err != nil {
		r.unknown(knob, err)
	} else if on == 0 {
		r.add(Info, knob, knob+" is 0 and there are persistent services",
			"a server that drains, or has weight 0, still gets the new connections of clients that persistence has sent there, so that a drain may not end",
			"sysctl -w "+knob+"=1")
	}
}

// checkIPVSForeign looks for services that others have made.
func checkIPVSForeign(i *inspection, r *report) {
	text, err := i.read(kernelServices)
	if missing(err) {
		return // another check's
	}
	if err != nil {
		r.unknown("", err)
		return
	}
	ours := map[director.ServiceKey]bool{}
	for _, s := range i.Services {
		ours[s.Key] = true
		if s.Key.IsMark() { // of either family: the table does not tell
			ours[director.MarkKey(s.Key.Mark, netip.IPv4Unspecified())] = true
		}
	}
	for line := range strings.Lines(text) {
		key, ok := parseKernelService(line)
		if !ok || ours[key] {
			continue
		}
		r.add(Info, key.String(), fmt.Sprintf("service %s is in the kernel's IPVS and not Shunt's", key),
			"Shunt shows it and leaves it alone: it neither repairs nor saves it", "shunt import --adopt "+quote(key.String()))
	}
}

// parseKernelService reads a line of /proc/net/ip_vs; false if it is none of a service
// (kernel: ip_vs_ctl.c, ip_vs_info_seq_show): "TCP  C0000201:0050 wlc", "TCP
// [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 rr", "FWM  00000007 rr". The table
// does not tell the family of a firewall mark: IPv4.
func parseKernelService(line string) (key director.ServiceKey, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return key, false
	}
	if fields[0] == "FWM" {
		mark, err := strconv.ParseUint(fields[1], 16, 32)
		return director.MarkKey(uint32(mark), netip.IPv4Unspecified()), err == nil && mark != 0
	}
	protocol, err := conntrack.ParseProtocol(fields[0])
	colon := strings.LastIndexByte(fields[1], ':')
	if err != nil || colon < 0 {
		return key, false
	}
	port, err := strconv.ParseUint(fields[1][colon+1:], 16, 16)
	if err != nil {
		return key, false
	}
	addr, err := netip.ParseAddr(strings.Trim(fields[1][:colon], "[]"))
	if octets, hexErr := hex.DecodeString(fields[1][:colon]); hexErr == nil && len(octets) == 4 {
		addr, err = netip.AddrFrom4([4]byte(octets)), nil
	}
	return director.ServiceKey{Protocol: protocol, Address: netip.AddrPortFrom(addr, uint16(port))}, err == nil
}
