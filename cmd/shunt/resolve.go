package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director/api"
)

// matchService returns the index of the service that ref stands for: by its URL
// or name, else by the beginning of a name that only one has; -1 if there is
// none. A URL is never the beginning of one.
func matchService(services []api.Service, ref string) (int, error) {
	found, names := -1, []string{}
	for i, s := range services {
		if s.Listen == ref || s.Name == ref && ref != "" {
			return i, nil
		}
		if s.Name != "" && strings.HasPrefix(s.Name, ref) && !strings.Contains(ref, "://") {
			found = i
			names = append(names, s.Name)
		}
	}
	if len(names) > 1 {
		return -1, &usageError{fmt.Sprintf("service %q could be %s", ref, alternatives(names)), "a longer beginning says which"}
	}
	return found, nil
}

// matchServer returns the index of the server that text stands for: an address
// without a port is that of any port, and what is no address is the beginning of
// one; -1 if there is none. An address is never the beginning of another.
func matchServer(servers []api.Server, text string) (int, error) {
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	found, names := -1, []string{}
	for i, s := range servers {
		if s.Address == text {
			return i, nil
		}
		is, _ := netip.ParseAddrPort(s.Address)
		if err == nil && is.Addr() == address || err != nil && isBeginning(text) && strings.HasPrefix(s.Address, text) {
			found = i
			names = append(names, s.Address)
		}
	}
	if len(names) > 1 {
		return -1, &usageError{fmt.Sprintf("server %q could be %s", text, alternatives(names)), "a longer beginning says which"}
	}
	return found, nil
}

// isBeginning reports whether the text is less than a whole address with a port.
func isBeginning(text string) bool {
	_, err := netip.ParseAddrPort(text)
	return err != nil
}

// target runs a request about a service, and about one of its servers if address
// is not empty. They are first taken as written, which needs no other request;
// if the daemon does not know them, as beginnings of names. A change says which
// one it took.
func target(c *cli.Context, client *api.Client, ref, address string, request func(ref, address string) error) error {
	_, errAddr := netip.ParseAddr(strings.Trim(address, "[]"))
	var first error
	if address == "" || errAddr == nil || !isBeginning(address) {
		if first = request(ref, address); !isNotFound(first) {
			return first
		}
	}
	services, err := client.Services(c.Context)
	if err != nil {
		return err
	}
	full, fullAddress := ref, address
	i, err := matchService(services, ref)
	if err != nil {
		return err
	}
	if i >= 0 {
		if services[i].Listen != ref && services[i].Name != ref {
			full = services[i].Name
		}
		if address != "" {
			j, err := matchServer(services[i].Servers, address)
			if err != nil {
				return err
			}
			if j >= 0 {
				fullAddress = services[i].Servers[j].Address
			}
		}
	}
	if full == ref && fullAddress == address {
		if first != nil {
			return first
		}
		return request(ref, address)
	}
	if changes(c) {
		fmt.Fprintln(c.App.ErrWriter, "shunt: taking", strings.TrimSpace(full+" "+fullAddress))
	}
	return request(full, fullAddress)
}
