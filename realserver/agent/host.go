package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/decap"
)

// host is what the host would do with packets that were taken out of tunnels.
type host struct {
	// local are the destinations that it accepts packets for.
	local []netip.Prefix
	// networks are those of its interfaces, by the interface's name.
	networks map[string][]netip.Prefix
	// knob reads a setting of an interface below net/ipv4/conf; ok is false if it has none.
	knob func(iface, name string) (value int, ok bool)
}

// lookAtHost reads the calling thread's network namespace.
func lookAtHost() (*host, error) {
	h := &host{networks: map[string][]netip.Prefix{}, knob: readKnob}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, fmt.Errorf("list the host's local routes: %w", err)
	}
	for _, route := range routes {
		if prefix, ok := prefixOf(route.Dst); ok {
			h.local = append(h.local, prefix)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the host's interfaces: %w", err)
	}
	for _, link := range links {
		addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, a := range addresses {
			prefix, ok := prefixOf(a.IPNet)
			if !ok {
				continue
			}
			// An IPv6 address has its local route a moment later than itself.
			h.local = append(h.local, netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen()))
			if !prefix.IsSingleIP() {
				h.networks[link.Attrs().Name] = append(h.networks[link.Attrs().Name], prefix.Masked())
			}
		}
	}
	return h, nil
}

// readKnob reads /proc/sys/net/ipv4/conf.
func readKnob(iface, name string) (int, bool) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", iface, name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return value, err == nil
}

// effective is what counts of a setting that is the greater of conf.all and the
// interface's (kernel: Documentation/networking/ip-sysctl.rst, rp_filter).
func (h *host) effective(iface, name string) (int, bool) {
	all, ok := h.knob("all", name)
	own, hasOwn := h.knob(iface, name)
	return max(all, own), ok && hasOwn
}

// warnings are what keeps packets from where they should go, one a line.
func (h *host) warnings(state decap.State) []string {
	var all []string
	add := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	for _, r := range state.Interfaces {
		if r.IsGone {
			add("an interface that this was started for is gone, or in another network namespace: start it again")
			continue
		}
		if r.Mode == decap.Generic {
			// kernel: net/ipv4/gre_offload.c, gre_gro_complete: merged packets keep the first one's checksum.
			add("%s: generic mode, as asked for or as its driver has no native XDP: slower, and it wants packets as they came: ethtool -K %s gro off", r.Name, r.Name)
		}
		for _, p := range r.Config.Virtual {
			if !slices.ContainsFunc(h.local, p.Overlaps) {
				command := "ip address add"
				if !p.IsSingleIP() {
					command = "ip route add local"
				}
				add("%s is not on this host, which does not accept its packets: %s %s dev lo", text(p), command, p)
			}
			for name, problem := range h.arpProblems(p) {
				add("%s: %s, so that it answers ARP for %s, which is in its network: packets pass the director by; want arp_ignore 1 and arp_announce 2", name, problem, text(p))
			}
		}
		for _, p := range r.Config.To {
			if p.IsSingleIP() && !slices.ContainsFunc(h.local, p.Overlaps) {
				add("outer destination %s is not on this host any more: start it again", text(p))
			}
		}
		hasIPv4 := slices.ContainsFunc(r.Config.Virtual, func(p netip.Prefix) bool { return p.Addr().Is4() })
		if filter, ok := h.effective(r.Name, "rp_filter"); ok && filter == 1 && hasIPv4 {
			add("%s: rp_filter is strict (1, the greater of conf.all and conf.%s): packets of clients that the route back to is not by it are dropped; want 2 or 0", r.Name, r.Name)
		}
	}
	return all
}

// arpProblems says which interfaces answer ARP for the virtual address, and why.
func (h *host) arpProblems(p netip.Prefix) map[string]string {
	problems := map[string]string{}
	if !p.Addr().Is4() || !p.IsSingleIP() || !slices.ContainsFunc(h.local, p.Overlaps) {
		return problems
	}
	for name, networks := range h.networks {
		if name == "lo" || !slices.ContainsFunc(networks, p.Overlaps) {
			continue
		}
		if value, ok := h.effective(name, "arp_ignore"); ok && value == 0 {
			problems[name] = "arp_ignore is 0"
		} else if value, ok := h.effective(name, "arp_announce"); ok && value < 2 {
			problems[name] = fmt.Sprintf("arp_announce is %d", value)
		}
	}
	return problems
}

// text is a prefix as people write it: one address without its length.
func text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
