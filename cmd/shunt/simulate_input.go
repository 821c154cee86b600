package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/scheduler"
	"github.com/shunt-lb/shunt/realserver"
)

// parseServers reads --servers.
func parseServers(c *cli.Context, key director.ServiceKey) ([]realserver.Server, error) {
	var service director.Service
	for _, word := range words(c.String("servers")) {
		server, err := parseServer(word, key)
		if err == nil {
			err = checkServer(server, key)
		}
		if err != nil {
			return nil, usage(c, "--servers: %v", err)
		}
		if service.Server(server.Address) >= 0 {
			return nil, usage(c, "--servers: %s is there twice", server.Address)
		}
		service.Servers = append(service.Servers, server)
	}
	if n := len(service.Servers); n > director.MaxServers {
		return nil, usage(c, "--servers: %d servers: a service has at most %d", n, director.MaxServers)
	}
	return service.Servers, nil
}

// parseServer reads ADDRESS[:PORT][=WEIGHT].
func parseServer(text string, key director.ServiceKey) (realserver.Server, error) {
	address, weight, hasWeight := strings.Cut(text, "=")
	server := realserver.Server{Weight: 1, Method: realserver.NAT}
	var err error
	if server.Address, err = parseEndpoint(address, key.Address.Port()); err != nil {
		return server, fmt.Errorf("%q is not ADDRESS[:PORT][=WEIGHT]: %w", text, err)
	}
	if hasWeight {
		number, err := strconv.ParseUint(weight, 10, 32)
		if err != nil || number > realserver.MaxWeight {
			return server, fmt.Errorf("%q: %q is not a weight: want 0 to %d", text, weight, realserver.MaxWeight)
		}
		server.Weight = uint32(number)
	}
	return server, nil
}

// checkServer says why no service of the key can have the server; what else is
// wrong with such a service is nobody's concern here.
func checkServer(server realserver.Server, key director.ServiceKey) error {
	service := director.Service{Key: key, Servers: []realserver.Server{server}}.Normalize()
	for _, problem := range director.Problems(service.Validate()) {
		if problem.Server >= 0 {
			return errors.New(problem.Text)
		}
	}
	return nil
}

// parseEndpoint reads an address with or without a port.
func parseEndpoint(text string, port uint16) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), port), nil
	}
	return netip.ParseAddrPort(text)
}

// simulatedChange is one --change.
type simulatedChange func(*scheduler.Simulation)

// simulatedChanges reads them, and refuses what there is nothing to do for.
func simulatedChanges(c *cli.Context, service director.Service) ([]simulatedChange, error) {
	var changes []simulatedChange
	service = service.Clone()
	for _, text := range c.StringSlice("change") {
		verb, rest, found := strings.Cut(text, ":")
		server, err := parseServer(rest, service.Key)
		if err == nil && verb == "add" {
			err = checkServer(server, service.Key)
		}
		known := service.Server(server.Address)
		_, weight, hasWeight := strings.Cut(rest, "=")
		switch {
		case !found || !slices.Contains([]string{"add", "remove", "weight"}, verb):
			return nil, usage(c, "--change %q: want add:ADDRESS[=WEIGHT], remove:ADDRESS or weight:ADDRESS=WEIGHT", text)
		case err != nil:
			return nil, usage(c, "--change: %v", err)
		case verb == "add" && known >= 0:
			return nil, usage(c, "--change %q: %s is there already", text, server.Address)
		case verb != "add" && known < 0:
			return nil, usage(c, "--change %q: there is no %s", text, server.Address)
		case verb == "remove" && hasWeight:
			return nil, usage(c, "--change %q: a server that goes needs no weight %s", text, weight)
		case verb == "weight" && !hasWeight:
			return nil, usage(c, "--change %q: the weight is missing: write %s=1", text, text)
		}
		switch verb {
		case "add":
			service.Servers = append(service.Servers, server)
			changes = append(changes, func(s *scheduler.Simulation) { s.AddServer(server) })
		case "remove":
			service.Servers = slices.Delete(service.Servers, known, known+1)
			changes = append(changes, func(s *scheduler.Simulation) { s.RemoveServer(server.Address) })
		case "weight":
			service.Servers[known].Weight = server.Weight
			edited := service.Servers[known]
			changes = append(changes, func(s *scheduler.Simulation) { s.EditServer(edited) })
		}
	}
	return changes, nil
}

// simulatedRequests reads the clients, or draws them.
func simulatedRequests(c *cli.Context, key director.ServiceKey, seed uint64) ([]scheduler.Request, error) {
	if !c.IsSet("clients") {
		if n := c.Int("count"); n < 1 || n > maxClients {
			return nil, usage(c, "--count %d: want 1 to %d", n, maxClients)
		}
		return drawRequests(key, c.Int("count"), newRandom(seed)), nil
	}
	if c.IsSet("count") {
		return nil, usage(c, "--clients and --count exclude each other")
	}
	name := c.String("clients")
	return interruptible(c, name, func() ([]scheduler.Request, error) {
		if name == standardInput {
			return parseRequests("standard input", streamsOf(c).in, key)
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read the clients: %w", err)
		}
		defer file.Close()
		return parseRequests(name, file, key)
	})
}

// firstPort is the port of the first client that has none; the next have the next.
const (
	firstPort = 32768
	ports     = 28232 // as many as Linux takes by itself
)

// parseRequests reads a list of clients; blank lines and what follows # count
// for nothing.
func parseRequests(name string, list io.Reader, key director.ServiceKey) ([]scheduler.Request, error) {
	var requests []scheduler.Request
	lines := bufio.NewScanner(list)
	for number := 1; lines.Scan(); number++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		request := scheduler.Request{Virtual: key.Address}
		var err error
		if request.Client, err = parseEndpoint(fields[0], uint16(firstPort+len(requests)%ports)); err != nil {
			return nil, fmt.Errorf("%s:%d: %q is not CLIENT[:PORT]", name, number, fields[0])
		}
		if len(fields) > 1 {
			if request.Virtual, err = parseEndpoint(fields[1], key.Address.Port()); err != nil {
				return nil, fmt.Errorf("%s:%d: %q is not VIRTUAL[:PORT]", name, number, fields[1])
			}
		}
		switch {
		case len(fields) > 2:
			return nil, fmt.Errorf("%s:%d: %q stands behind client and virtual address", name, number, fields[2])
		case request.Client.Addr().Is4() != request.Virtual.Addr().Is4():
			return nil, fmt.Errorf("%s:%d: %s cannot connect to %s: one is IPv6", name, number, request.Client, request.Virtual)
		case len(requests) == maxClients:
			return nil, fmt.Errorf("%s:%d: more than %d clients", name, number, maxClients)
		}
		requests = append(requests, request)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("%s: there are no clients", name)
	}
	return requests, nil
}

// newRandom gives the same numbers for the same seed.
func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// drawRequests draws clients from all addresses that hosts may have, about, and
// virtual addresses and ports from the service's.
func drawRequests(key director.ServiceKey, n int, random *rand.Rand) []scheduler.Request {
	requests := make([]scheduler.Request, n)
	first, last := key.Ports()
	first = max(first, 1)
	everywhere := netip.MustParsePrefix("2000::/3")
	for i := range requests {
		if key.Address.Addr().Is4() {
			everywhere = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(1 + random.IntN(223))}), 8)
		}
		requests[i] = scheduler.Request{
			Client:  netip.AddrPortFrom(randomIn(everywhere, random), uint16(1024+random.IntN(65536-1024))),
			Virtual: netip.AddrPortFrom(randomIn(key.Prefix(), random), first+uint16(random.IntN(int(last-first)+1))),
		}
	}
	return requests
}

// randomIn returns an address of a network.
func randomIn(network netip.Prefix, random *rand.Rand) netip.Addr {
	b := network.Addr().AsSlice()
	for i := range b {
		host := byte(0xff)
		if fixed := network.Bits() - 8*i; fixed > 0 {
			host >>= min(fixed, 8)
		}
		b[i] |= byte(random.Uint32()) & host
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
