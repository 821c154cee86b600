package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/lease"
)

// maxNetworks is how many networks an agent's servers are in at most: each is compared
// with each registration.
const maxNetworks = 256

// scope is what an agent may speak for: itself, in its pools, with a server in its
// networks. Zero for other roles.
type scope struct {
	agent    string
	pools    string         // with commas
	networks []netip.Prefix // empty: the server may have any address
}

// newScope checks the parts of a scope: handles of pools, and networks or addresses.
func newScope(agent string, pools, networks []string) (scope, error) {
	if !lease.IsHandle(agent) {
		return scope{}, fmt.Errorf("agent %.80q: want 1 to 63 letters, digits, '.', '_', '@' or '-', a letter or digit first", agent)
	}
	if len(pools) == 0 {
		return scope{}, fmt.Errorf("agent %s has no pool", agent)
	}
	for _, pool := range pools {
		if !lease.IsHandle(pool) {
			return scope{}, fmt.Errorf("pool %.80q: want 1 to 63 letters, digits, '.', '_', '@' or '-', a letter or digit first", pool)
		}
	}
	s := scope{agent: agent, pools: strings.Join(pools, ",")}
	if len(networks) > maxNetworks {
		return scope{}, fmt.Errorf("%d networks of servers: at most %d", len(networks), maxNetworks)
	}
	for _, text := range networks {
		network, err := director.ParsePrefix(text)
		if err != nil {
			return scope{}, fmt.Errorf("servers: %w", err)
		}
		s.networks = append(s.networks, network)
	}
	return s, nil
}

// has reports whether the pool is one of the scope's.
func (s scope) has(pool string) bool { return slices.Contains(strings.Split(s.pools, ","), pool) }

// mayRead refuses agents what is of other pools.
func (c caller) mayRead(pool string) *lease.Refusal {
	if c.role == Agent && !c.scope.has(pool) {
		return &lease.Refusal{Reason: lease.Foreign, Text: fmt.Sprintf("%s may speak of the pools %s, not of %s", c.who, c.scope.pools, pool)}
	}
	return nil
}

// mayWrite refuses whoever is neither the agent in a pool of its own nor an operator.
func (c caller) mayWrite(pool, agent string) *lease.Refusal {
	if c.role >= Operator {
		return nil
	}
	if refusal := c.mayRead(pool); refusal != nil {
		return refusal
	}
	if c.role != Agent || c.scope.agent != agent {
		return &lease.Refusal{Reason: lease.Foreign, Text: fmt.Sprintf("%s may not speak for agent %s of pool %s", c.who, agent, pool)}
	}
	return nil
}

// mayRegister refuses an agent a server outside its networks.
func (c caller) mayRegister(server netip.Addr) *lease.Refusal {
	networks := c.scope.networks
	if len(networks) == 0 || slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(server) }) {
		return nil
	}
	// The address comes first: long texts are cut in events.
	return &lease.Refusal{
		Reason: lease.Denied,
		Text:   fmt.Sprintf("register: server %s is outside the networks of %s: %s", server, c.who, strings.Join(prefixTexts(networks), ",")),
	}
}
