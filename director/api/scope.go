package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shunt-lb/shunt/director/lease"
)

// scopeSeparator is between a role and its pools in a line of the tokens file.
const scopeSeparator = ":"

// scope is what an agent may speak for: itself, in its pools. Comparable; zero for
// other roles.
type scope struct {
	agent string
	pools string // with commas
}

// newScope checks the parts of a scope.
func newScope(agent string, pools []string) (scope, error) {
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
	return scope{agent: agent, pools: strings.Join(pools, ",")}, nil
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
