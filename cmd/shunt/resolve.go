package main

import (
	"errors"
	"fmt"
	"net"
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

// lookUp runs a read of a service, by what is written or, if the daemon does not
// know that, by the beginning of a name.
func lookUp(c *cli.Context, client *api.Client, ref string, request func(ref string) error) error {
	unknown := request(ref) // needs no other request where it is known
	if !isNotFound(unknown) {
		return unknown
	}
	services, err := client.Services(c.Context)
	if err != nil {
		return err
	}
	i, err := matchService(services, ref)
	if err != nil {
		return err
	}
	if i < 0 || services[i].Name == ref || services[i].Listen == ref {
		return unknown
	}
	return request(services[i].Name)
}

// listenOf returns the URL of the service that ref stands for.
func listenOf(c *cli.Context, client *api.Client, ref string) (listen string, err error) {
	err = lookUp(c, client, ref, func(ref string) error {
		service, err := client.Service(c.Context, ref)
		listen = service.Listen
		return err
	})
	return listen, err
}

// exact runs a change of a service, or of one of its servers if address is not
// empty. A change goes to what is written and to nothing else: "web" said a
// second time, when it has been removed, must not become "website". What may have
// been meant is in the error's hint.
func exact(c *cli.Context, client *api.Client, ref, address string, request func() error) error {
	err := request()
	problem, ok := errors.AsType[*api.Problem](err)
	if !ok || !isNotFound(err) {
		return err
	}
	services, listErr := client.Services(c.Context)
	if listErr != nil {
		return err
	}
	meant := similar(services, ref, address)
	if len(meant) == 0 {
		return err
	}
	hinted := *problem
	hinted.Hint = "did you mean " + alternatives(meant) + "?"
	return &hinted
}

// maxSimilar is how many names a hint has at most.
const maxSimilar = 5

// similar returns the names that begin with ref, or where ref is a service the
// addresses of its servers that begin with address.
func similar(services []api.Service, ref, address string) []string {
	var names []string
	for _, s := range services {
		if s.Listen == ref || s.Name == ref {
			return similarServers(s.Servers, address)
		}
		if strings.HasPrefix(s.Name, ref) && len(names) < maxSimilar {
			names = append(names, s.Name)
		}
	}
	return names
}

// similarServers finds another port of the same address before other addresses.
func similarServers(servers []api.Server, address string) []string {
	bare := strings.Trim(address, "[]")
	if host, _, err := net.SplitHostPort(address); err == nil {
		bare = host
	}
	var ports, addresses []string
	for _, s := range servers {
		host, _, _ := net.SplitHostPort(s.Address)
		switch {
		case address == "" || s.Address == address:
		case host == bare && len(ports) < maxSimilar:
			ports = append(ports, s.Address)
		case strings.HasPrefix(s.Address, address) && len(addresses) < maxSimilar:
			addresses = append(addresses, s.Address)
		}
	}
	if len(ports) > 0 {
		return ports
	}
	return addresses
}
