package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// inspection is one run: the host, and what has been read of it. Not safe for
// concurrent use: it belongs to one thread's network namespace.
type inspection struct {
	Host

	ctx      context.Context // of the programs it runs
	strict   bool            // rules of a firewall are named in doubt
	route    *netlink.Handle
	closeNIC func()
	byName   map[string]netlink.Link

	ways      []way // see paths
	waysRead  bool
	addrs     []netlink.Addr // see addresses
	addrsRead bool
}

func (i *inspection) close() {
	i.route.Close()
	if i.closeNIC != nil {
		i.closeNIC()
	}
}

// path returns where a file of /proc or /sys is. Processes' folders are given as
// proc/thread-self: the main thread, which proc/self is, may be in another
// network namespace.
func (i *inspection) path(name string) string { return filepath.Join("/", i.Root, name) }

// read returns a file's text without surrounding space.
func (i *inspection) read(name string) (string, error) {
	text, err := os.ReadFile(i.path(name))
	return strings.TrimSpace(string(text)), err
}

// number reads a file that holds a number.
func (i *inspection) number(name string) (int, error) {
	text, err := i.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", i.path(name), err)
	}
	return n, nil
}

// conf reads a per-interface parameter of IPv4: all's value and the interface's.
func (i *inspection) conf(name, knob string) (all, own int, err error) {
	all, err = i.number("proc/sys/net/ipv4/conf/all/" + knob)
	if err != nil {
		return 0, 0, err
	}
	own, err = i.number("proc/sys/net/ipv4/conf/" + name + "/" + knob)
	return all, own, err
}

// named returns the interfaces of the configuration that exist, in its order.
func (i *inspection) named() []netlink.Link {
	var links []netlink.Link
	for _, name := range i.Interfaces {
		if l, found := i.byName[name]; found {
			links = append(links, l)
		}
	}
	return links
}

// isNamed reports whether the data plane uses the interface.
func (i *inspection) isNamed(name string) bool { return slices.Contains(i.Interfaces, name) }

// linkName returns an interface's name by its index.
func (i *inspection) linkName(index int) string {
	for name, l := range i.byName {
		if l.Attrs().Index == index {
			return name
		}
	}
	return fmt.Sprintf("interface %d", index)
}

// way is how packets to a server leave the host.
type way struct {
	service director.Service
	server  realserver.Server
	route   netlink.Route
	err     error // there is no route
}

// link returns the name of the interface the way leads out of.
func (w way) link(i *inspection) string { return i.linkName(w.route.LinkIndex) }

// hop is the neighbour the way leads to: the gateway or the server itself.
func (w way) hop() netip.Addr {
	if gateway, ok := netip.AddrFromSlice(w.route.Gw); ok {
		return gateway.Unmap()
	}
	if w.route.Via != nil {
		if via, ok := w.route.Via.(*netlink.Via); ok {
			if gateway, ok := netip.AddrFromSlice(via.Addr); ok {
				return gateway
			}
		}
	}
	return w.server.Address.Addr()
}

// paths returns the ways to all servers that are reached over the network, one
// for each address and method.
func (i *inspection) paths() []way {
	if i.waysRead {
		return i.ways
	}
	i.waysRead = true
	type target struct {
		addr   netip.Addr
		method realserver.Method
	}
	seen := map[target]bool{}
	for _, service := range i.Services {
		for _, server := range service.Servers {
			t := target{server.Address.Addr(), server.Method}
			if server.Method == realserver.Local || seen[t] {
				continue
			}
			seen[t] = true
			w := way{service: service, server: server}
			routes, err := i.route.RouteGet(t.addr.AsSlice())
			switch {
			case err != nil:
				w.err = err
			case len(routes) == 0:
				w.err = unix.ENETUNREACH
			default:
				w.route = routes[0]
			}
			i.ways = append(i.ways, w)
		}
	}
	return i.ways
}

// sides splits the named interfaces: those servers are reached by, and the
// others, which only clients can be behind. In a one-armed set-up the second is
// empty.
func (i *inspection) sides() (servers, clients []netlink.Link) {
	for _, l := range i.named() {
		if slices.ContainsFunc(i.paths(), func(w way) bool { return w.err == nil && w.route.LinkIndex == l.Attrs().Index }) {
			servers = append(servers, l)
		} else {
			clients = append(clients, l)
		}
	}
	return servers, clients
}

// uses reports whether a server of the family has the method.
func (i *inspection) uses(method realserver.Method, v6 bool) bool {
	return slices.ContainsFunc(i.Services, func(s director.Service) bool {
		return s.Key.Address.Addr().Is6() == v6 &&
			slices.ContainsFunc(s.Servers, func(r realserver.Server) bool { return r.Method == method })
	})
}

// vips returns the virtual addresses, each once, and the service each is taken
// from; a managed one goes before external ones. Services of firewall marks have
// none.
func (i *inspection) vips() map[netip.Addr]director.Service {
	all := map[netip.Addr]director.Service{}
	for _, s := range i.Services {
		if s.Key.IsMark() {
			continue
		}
		if have, found := all[s.Key.Address.Addr()]; !found || have.VIP == director.VIPExternal {
			all[s.Key.Address.Addr()] = s
		}
	}
	return all
}

// addresses lists the host's addresses.
func (i *inspection) addresses() ([]netlink.Addr, error) {
	if !i.addrsRead {
		addrs, err := i.route.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list the host's addresses: %w", err)
		}
		i.addrs, i.addrsRead = addrs, true
	}
	return i.addrs, nil
}

// ref is how the CLI is told of a service.
func ref(s director.Service) string {
	if s.Name != "" {
		return s.Name
	}
	return s.Key.String()
}

var plain = regexp.MustCompile(`^[A-Za-z0-9@%_+=:,./-]+$`)

// quote makes s one word of a shell. Interfaces and programs can have names that
// a shell would take for commands.
func quote(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// setConf is the command that sets a per-interface parameter of IPv4. sysctl
// takes a name with slashes for one whose dots are dots.
func setConf(knob, value string, names ...string) string {
	command := "sysctl -w"
	for _, name := range names {
		if strings.Contains(name, ".") {
			command += " " + quote("net/ipv4/conf/"+name+"/"+knob+"="+value)
		} else {
			command += " " + quote("net.ipv4.conf."+name+"."+knob+"="+value)
		}
	}
	return command
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
