package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/lease"
	"github.com/shunt-lb/shunt/realserver"
)

// maxRegistration is how large an agent's message may be, in bytes.
const maxRegistration = 16 << 10

// maxLeftOut is how many services an agent is told that do not take its server: agents
// read 64 KiB of an answer, and take a longer one for a failure. /v1/pools has all.
const maxLeftOut = 32

// ListPools answers listPools.
func (e endpoints) ListPools(w http.ResponseWriter, _ *http.Request) {
	e.read(w, func() (any, error) {
		leases, err := e.leases()
		if err != nil {
			return nil, err
		}
		services := e.services()
		names := slices.Collect(maps.Keys(services))
		for _, name := range leases.Pools() {
			if services[name] == nil {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		list := PoolList{Pools: make([]Pool, 0, len(names)), Counts: leaseCounts(leases.Counts())}
		for _, name := range names {
			list.Pools = append(list.Pools, e.poolModel(name, services[name], leases.Members(name)))
		}
		return list, nil
	})
}

// GetPool answers getPool.
func (e endpoints) GetPool(w http.ResponseWriter, r *http.Request, pool PoolName) {
	e.read(w, func() (any, error) {
		leases, err := e.leases()
		if err != nil {
			return nil, err
		}
		if refusal := callerOf(r.Context()).mayRead(pool); refusal != nil {
			return nil, e.refuse("", refusal)
		}
		services, members := e.services()[pool], leases.Members(pool)
		if len(services)+len(members) == 0 {
			return nil, refusalProblem(noPool(pool))
		}
		return e.poolModel(pool, services, members), nil
	})
}

// RegisterMember answers registerMember.
func (e endpoints) RegisterMember(w http.ResponseWriter, r *http.Request, pool PoolName, agent AgentName) {
	e.read(w, func() (any, error) {
		leases, services, err := e.admitted(r, pool, agent)
		if err != nil {
			return nil, err
		}
		var body Registration
		if err := e.readBody(w, r, &body, maxRegistration); err != nil {
			return nil, err
		}
		registration, err := body.registration(pool, agent)
		if err != nil {
			return nil, e.refuse(agent, &lease.Refusal{Reason: lease.Invalid, Text: "register: " + err.Error()})
		}
		if err := e.suits(services, registration.Server); err != nil {
			return nil, e.refuse(agent, &lease.Refusal{Reason: lease.Invalid, Text: "register: " + err.Error()})
		}
		if refusal := callerOf(r.Context()).mayRegister(registration.Server.Address.Addr()); refusal != nil {
			return nil, e.refuse(agent, refusal)
		}
		member, err := leases.Register(registration)
		if err != nil {
			return nil, leaseProblem(err)
		}
		answer := Lease{Until: member.Until.UTC(), LeftOut: e.leftOut(services, member.Server)}
		answer.LeftOut = answer.LeftOut[:min(len(answer.LeftOut), maxLeftOut)]
		if member.Server.Draining {
			answer.Connections = e.connectionsOf(r.Context(), services, member.Server)
		}
		return answer, nil
	})
}

// DeregisterMember answers deregisterMember.
func (e endpoints) DeregisterMember(w http.ResponseWriter, r *http.Request, pool PoolName, agent AgentName, p DeregisterMemberParams) {
	err := func() error {
		leases, err := e.leases()
		if err != nil {
			return err
		}
		who := callerOf(r.Context())
		if refusal := who.mayWrite(pool, agent); refusal != nil {
			return e.refuse(agent, refusal)
		}
		boot, sequence := "", uint64(0)
		switch {
		case p.Boot != nil && p.Sequence != nil && lease.IsHandle(*p.Boot):
			boot, sequence = *p.Boot, *p.Sequence
		case p.Boot != nil || p.Sequence != nil || who.role < Operator:
			return e.refuse(agent, &lease.Refusal{Reason: lease.Invalid, Text: "deregister: an agent says its boot and the message's sequence"})
		}
		if err := leases.Deregister(pool, agent, boot, sequence); err != nil {
			return leaseProblem(err)
		}
		return nil
	}()
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ReportUnreachable answers reportUnreachable.
func (e endpoints) ReportUnreachable(w http.ResponseWriter, r *http.Request, pool PoolName, agent AgentName) {
	e.read(w, func() (any, error) {
		leases, err := e.leases()
		if err != nil {
			return nil, err
		}
		who := callerOf(r.Context())
		if refusal := who.mayRead(pool); refusal != nil {
			return nil, e.refuse(agent, refusal)
		}
		n, wanted, err := leases.Unreachable(pool, agent, who.who)
		if err != nil {
			return nil, leaseProblem(err)
		}
		return UnreachableCount{Reports: n, Wanted: wanted}, nil
	})
}

func (e endpoints) leases() (*lease.Registry, error) {
	if e.opts.Leases == nil {
		return nil, fmt.Errorf("pools: %w", director.ErrUnsupported)
	}
	return e.opts.Leases, nil
}

// admitted returns the services of the pool that the caller may register the agent in.
func (e endpoints) admitted(r *http.Request, pool, agent string) (*lease.Registry, []director.Service, error) {
	leases, err := e.leases()
	if err != nil {
		return nil, nil, err
	}
	if refusal := callerOf(r.Context()).mayWrite(pool, agent); refusal != nil {
		return nil, nil, e.refuse(agent, refusal)
	}
	if e.director.Head().Number == 0 {
		return nil, nil, newProblem(http.StatusServiceUnavailable, "not-ready", "shuntd is starting", "try again")
	}
	services := e.services()[pool]
	if len(services) == 0 {
		return nil, nil, e.refuse(agent, noPool(pool))
	}
	return leases, services, nil
}

// services returns those that take servers from pools, by pool.
func (e endpoints) services() map[string][]director.Service {
	pools := make(map[string][]director.Service)
	for _, service := range e.director.State().Services {
		if pool := service.Health.Pool; pool != "" {
			pools[pool] = append(pools[pool], service)
		}
	}
	return pools
}

// suits says why none of the pool's services could have the server. One that some can
// have stays when another service comes that cannot: that one goes without it.
func (e endpoints) suits(services []director.Service, server realserver.Server) error {
	var problems []error
	for _, service := range services {
		err := service.Suits(server, e.director.Features())
		if err == nil {
			return nil
		}
		problems = append(problems, fmt.Errorf("service %s cannot have it: %w", service.Key, err))
	}
	return problems[0]
}

// connectionsOf returns what the server has left by the services' counters; nil if they
// cannot be read.
func (e endpoints) connectionsOf(ctx context.Context, services []director.Service, server realserver.Server) *uint64 {
	stats, err := e.director.Stats(ctx)
	if err != nil {
		return nil
	}
	var left uint64
	for _, s := range stats.Services {
		if !slices.ContainsFunc(services, func(service director.Service) bool { return service.Key == s.Key }) {
			continue
		}
		for _, have := range s.Servers {
			if have.Server.Address == s.Key.ServerAddress(server.Address) {
				left += have.Active + have.UDP
			}
		}
	}
	return &left
}

// registration reads what an agent says.
func (b Registration) registration(pool, agent string) (lease.Registration, error) {
	address, err := director.ParseServerAddress(b.Server.Address)
	if err != nil {
		return lease.Registration{}, err
	}
	g := lease.Registration{Pool: pool, Agent: agent, Boot: b.Boot, Sequence: b.Sequence, Lifetime: time.Duration(b.Lifetime)}
	if g.Server, err = b.Server.terms(address); err != nil {
		return g, err
	}
	g.Server.Draining = b.Draining
	if b.Load != nil {
		g.Load = &lease.Load{
			Value: b.Load.Value, Degradation: b.Load.Degradation, CPU: b.Load.CPU, RunQueue: b.Load.RunQueue,
			Pressure: b.Load.Pressure, Memory: b.Load.Memory, Connections: b.Load.Connections,
		}
	}
	return g, nil
}

func noPool(pool string) *lease.Refusal {
	return &lease.Refusal{Reason: lease.NoPool, Text: fmt.Sprintf("no service takes servers from pool %.80q", pool)}
}

// refuse counts a refusal that the registry did not see, and returns its problem.
func (e endpoints) refuse(agent string, refusal *lease.Refusal) *Problem {
	e.opts.Leases.Refuse(agent, refusal)
	return refusalProblem(refusal)
}

func leaseProblem(err error) error {
	if refusal, ok := errors.AsType[*lease.Refusal](err); ok {
		return refusalProblem(refusal)
	}
	return err
}

// refusalProblem says why a message was refused.
func refusalProblem(r *lease.Refusal) *Problem {
	switch r.Reason {
	case lease.Replayed:
		return newProblem(http.StatusConflict, "replayed", r.Text, "")
	case lease.Superseded:
		return newProblem(http.StatusConflict, "superseded", r.Text, "do two hosts run an agent of this name?")
	case lease.Taken:
		return newProblem(http.StatusConflict, "address-taken", r.Text, "it is free when that agent's lease ends")
	case lease.NoMember:
		return newProblem(http.StatusNotFound, "no-member", r.Text, "")
	case lease.NoPool:
		return newProblem(http.StatusNotFound, "no-pool", r.Text, "a service takes servers from the pool that its health policy names")
	case lease.Foreign:
		return newProblem(http.StatusForbidden, "not-its-own", r.Text, "a token's line says `agent:POOL,POOL`, and its name is the agent's; a certificate has units shunt-pool-POOL, and the agent's name as common name")
	case lease.Denied:
		return newProblem(http.StatusForbidden, "address-denied", r.Text, "a token's line says where its servers are: `servers:PREFIX,PREFIX` behind its pools; a certificate's units shunt-servers-PREFIX do")
	case lease.TooFast:
		return newProblem(http.StatusTooManyRequests, "too-fast", r.Text, "")
	case lease.Full:
		return newProblem(http.StatusInsufficientStorage, "full", r.Text, "")
	default:
		return invalid(r.Text, "")
	}
}

// leftOut returns those of the services that do not take the server, and why.
func (e endpoints) leftOut(services []director.Service, server realserver.Server) (all []LeftOut) {
	for i := range services {
		if err := services[i].Takes(server, e.director.Features()); err != nil {
			all = append(all, LeftOut{Service: services[i].Key.String(), Why: err.Error()})
		}
	}
	return all
}

func (e endpoints) poolModel(name string, services []director.Service, members []lease.Member) Pool {
	p := Pool{Name: name, Services: make([]string, 0, len(services)), Members: make([]Member, 0, len(members))}
	for _, service := range services {
		p.Services = append(p.Services, service.Key.String())
	}
	for i := range members {
		m := &members[i]
		model := Member{
			Agent: m.Agent, Address: m.Server.Address.String(), Method: m.Server.Method.String(), Weight: m.Server.Weight,
			Draining: m.Server.Draining, Since: m.Since.UTC(), Until: m.Until.UTC(), Lifetime: Duration(m.Lifetime),
			LoadAt: given(m.LoadAt), Unreachable: m.Unreachable, LeftOut: e.leftOut(services, m.Server),
		}
		if l := m.Load; l != nil {
			model.Load = &AgentLoad{
				Value: l.Value, Degradation: l.Degradation, CPU: l.CPU, RunQueue: l.RunQueue,
				Pressure: l.Pressure, Memory: l.Memory, Connections: l.Connections,
			}
		}
		p.Members = append(p.Members, model)
	}
	return p
}

func leaseCounts(c lease.Counts) LeaseCounts {
	counts := LeaseCounts{
		Registered: c.Registered, Renewed: c.Renewed, Left: c.Left, Expired: c.Expired, Reports: c.Reports,
		Refused: make(map[string]uint64, len(c.Refused)),
	}
	for reason, n := range c.Refused {
		counts.Refused[string(reason)] = n
	}
	return counts
}
