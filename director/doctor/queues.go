package doctor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// cpus returns how many CPUs are online.
func (i *inspection) cpus() (int, error) {
	text, err := i.read("sys/devices/system/cpu/online")
	if err != nil {
		return 0, err
	}
	list, err := parseList(text)
	return len(list), err
}

// maxListed bounds a list of CPUs: a file that says more is not believed.
const maxListed = 1 << 16

// parseList reads a list such as 0-3,7.
func parseList(text string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil || from < 0 || to < from || to-from+len(list) > maxListed {
			return nil, fmt.Errorf("read %q as a list of CPUs", text)
		}
		for n := from; n <= to; n++ {
			list = append(list, n)
		}
	}
	return list, nil
}

// checkQueues compares the cards' queues with the CPUs.
func checkQueues(i *inspection, r *report) {
	cpus, err := i.cpus()
	if err != nil {
		r.unknown("", err)
		return
	}
	for _, l := range i.named() {
		name := l.Attrs().Name
		q, err := i.NIC.Queues(name)
		if err != nil {
			r.unknown(name, err)
			continue
		}
		driver, err := i.NIC.Driver(name)
		if err != nil {
			r.unknown(name, err)
			continue
		}
		if half := q.MaxCombined / 2; driver == "ena" && q.Combined > half {
			// The other half is what XDP sends by (kernel:
			// drivers/net/ethernet/amazon/ena/ena_netdev.c).
			r.add(Error, name, fmt.Sprintf("%s uses %d of the %d queues of its card", name, q.Combined, q.MaxCombined),
				"the ena driver wants as many free queues for XDP to send by: attaching is refused", fmt.Sprintf("ethtool -L %s combined %d", quote(name), half))
			continue
		}
		if q.RX < cpus {
			severity := Warning
			if driver == "veth" {
				severity = Info // it has as many CPUs' work as its peer has queues
			}
			reportRX(r, severity, name, q, cpus)
		}
		if driver != "veth" && q.TX < cpus && q.TX < q.MaxTX && q.Combined == 0 {
			r.add(Info, name, fmt.Sprintf("%s sends by %d of its card's %d queues, for %d CPUs", name, q.TX, q.MaxTX, cpus),
				"CPUs that share a queue to send by wait for each other, and some drivers refuse XDP then", fmt.Sprintf("ethtool -L %s tx %d", quote(name), min(cpus, q.MaxTX)))
		}
		if driver == "virtio_net" && q.Combined > 0 && q.MaxCombined < q.Combined+cpus {
			// kernel: drivers/net/virtio_net.c, virtnet_xdp_set
			r.add(Info, name, fmt.Sprintf("the virtual card of %s has %d queue pairs; %d in use and one for each of %d CPUs to send by would be %d",
				name, q.MaxCombined, q.Combined, cpus, q.Combined+cpus), "what XDP sends shares the stack's queues under a lock: it works, with less speed", "")
		}
	}
}

// reportRX says that an interface receives by fewer queues than there are CPUs.
func reportRX(r *report, severity Severity, name string, q Queues, cpus int) {
	const why = "XDP runs on the CPU that a queue's interrupt goes to, and nowhere else: the other CPUs forward nothing"
	what := fmt.Sprintf("%s receives by %d queues, for %d CPUs", name, q.RX, cpus)
	if q.RX == 1 {
		what = fmt.Sprintf("%s receives by 1 queue, for %d CPUs", name, cpus)
	}
	if q.RX >= q.MaxRX {
		r.add(Info, name, what+", and its card has no more", why, "")
		return
	}
	kind, limit := "rx", q.MaxRX
	if q.MaxCombined > 0 {
		kind, limit = "combined", q.MaxCombined
	}
	r.add(severity, name, what, why, fmt.Sprintf("ethtool -L %s %s %d", quote(name), kind, min(cpus, limit)))
}

// flowsOf returns the kinds of flows of services with a server for which use is
// true, as ethtool names them, sorted.
func (i *inspection) flowsOf(use func(realserver.Server) bool) []string {
	var kinds []string
	for _, s := range i.Services {
		if !slices.ContainsFunc(s.Servers, use) {
			continue
		}
		kinds = append(kinds, flowOf(s))
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// flowOf returns a service's kind of flow, such as tcp4.
func flowOf(s director.Service) string {
	family := "4"
	if s.Key.Address.Addr().Is6() {
		family = "6"
	}
	return s.Key.Protocol.String() + family
}

// checkRSS looks at how cards spread packets over their queues.
func checkRSS(i *inspection, r *report) {
	spread := map[string]Hashing{}
	for _, l := range i.named() {
		name := l.Attrs().Name
		q, err := i.NIC.Queues(name)
		if err != nil {
			r.unknown(name, err)
			continue
		}
		if q.RX < 2 {
			continue
		}
		h, err := i.NIC.Hashing(name)
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // veth and the like: their senders choose
		}
		if err != nil {
			r.unknown(name, err)
			continue
		}
		spread[name] = h
		used := map[uint32]bool{}
		for _, queue := range h.Indirection {
			used[queue] = true
		}
		if len(h.Indirection) > 0 && len(used) < min(q.RX, len(h.Indirection)) {
			r.add(Warning, name, fmt.Sprintf("%s has %d queues and spreads packets over %d", name, q.RX, len(used)),
				"the other queues' CPUs forward nothing", fmt.Sprintf("ethtool -X %s equal %d", quote(name), q.RX))
		}
		i.checkFields(r, name, h)
	}
	i.checkSymmetry(r, spread)
}

// checkFields looks at what of a service's packets is hashed.
func (i *inspection) checkFields(r *report, name string, h Hashing) {
	for _, flow := range i.flowsOf(func(realserver.Server) bool { return true }) {
		fields, told := h.Fields[flow]
		switch {
		case !told:
		case fields == "":
			r.add(Warning, name, fmt.Sprintf("%s hashes nothing of %s packets", name, flow),
				"all of them come by one queue, to one CPU", fmt.Sprintf("ethtool -N %s rx-flow-hash %s sdfn", quote(name), flow))
		case fields == "sd" && strings.HasPrefix(flow, "udp"):
			r.add(Info, name, fmt.Sprintf("%s hashes the addresses of %s packets and not their ports", name, flow),
				"all of one client's packets come to one CPU: with few clients, such as resolvers, that one is the limit", fmt.Sprintf("ethtool -N %s rx-flow-hash %s sdfn", quote(name), flow))
		}
	}
}

// checkSymmetry looks at whether the two directions of a nat connection come to
// one CPU. Their tuples share the client's address and port alone, so that no
// symmetric hash of the whole tuple does that: hashing the client's address does,
// which is the source on one side and the destination on the other.
func (i *inspection) checkSymmetry(r *report, spread map[string]Hashing) {
	servers, clients := i.sides()
	known := func(l netlink.Link) bool { _, found := spread[l.Attrs().Name]; return found }
	servers, clients = slices.DeleteFunc(servers, func(l netlink.Link) bool { return !known(l) }), slices.DeleteFunc(clients, func(l netlink.Link) bool { return !known(l) })
	if len(servers) == 0 || len(clients) == 0 {
		return
	}
	first := spread[clients[0].Attrs().Name]
	for _, flow := range i.flowsOf(func(s realserver.Server) bool { return s.Method == realserver.NAT }) {
		var fixes, found []string
		look := func(l netlink.Link, want string) {
			name, h := l.Attrs().Name, spread[l.Attrs().Name]
			fields, told := h.Fields[flow]
			if !told {
				return
			}
			found = append(found, fmt.Sprintf("%s hashes %s", name, cmp.Or(fields, "nothing")))
			if fields != want {
				fixes = append(fixes, fmt.Sprintf("ethtool -N %s rx-flow-hash %s %s", quote(name), flow, want))
			}
			if len(h.Key) > 0 && !bytes.Equal(h.Key, first.Key) && len(h.Key) == len(first.Key) {
				fixes = append(fixes, fmt.Sprintf("ethtool -X %s hkey %s", quote(name), hexKey(first.Key)))
			}
		}
		for _, l := range clients {
			look(l, "s")
		}
		for _, l := range servers {
			look(l, "d")
		}
		if len(fixes) == 0 {
			continue
		}
		r.add(Info, flow, fmt.Sprintf("the two directions of a nat connection come to different CPUs (%s: %s)", flow, strings.Join(found, ", ")),
			"both write the connection's line of memory, which then moves between the CPUs: right, but slower. Hashing the client's address alone avoids it, and suits many clients that send about as much",
			strings.Join(fixes, " && "))
	}
}

// hexKey writes a key as ethtool -X takes it.
func hexKey(key []byte) string {
	parts := make([]string, len(key))
	for n, b := range key {
		parts[n] = fmt.Sprintf("%02x", b)
	}
	return strings.Join(parts, ":")
}
