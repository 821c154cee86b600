package director

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// The names of the data planes.
const (
	PlaneXDP  = "xdp"
	PlaneIPVS = "ipvs"
)

// Features says what a data plane can do of what a state may ask for.
type Features struct {
	Plane string // its name: what refuses is told by it

	Marks        bool // services of firewall marks
	SCTP         bool // services of SCTP
	Tunnels      bool // method tunnel, to servers of either address family
	Engines      bool // persistence engines
	Sync         bool // the daemons that replicate connections
	OwnAddresses bool // any method to an address of the host itself; loopback addresses

	Ranges   bool // services of prefixes and of ranges of ports
	Access   bool // access lists
	Timeouts bool // timeouts by service
	Rules    bool // rules by service
	Kill     bool // connections can be removed
	Decide   bool // asked what it would decide, it answers
	Limits   bool // limits by service and by source network
	Guard    bool // services' guards
	FullNAT  bool // method fullnat
	MSS      bool // largest segment sizes by service
	TruePath bool // checks by the way of clients' packets, where they are asked for by name
	Passive  bool // passive evidence

	MaxWeight uint32 // the largest weight of a server

	// NoLocal4 and NoLocal6: the director's settings give no address of the family that
	// could stand in for clients', as method fullnat wants. Asked of servers that agents
	// register; of one that is configured, the operation says so.
	NoLocal4, NoLocal6 bool
}

// XDPFeatures returns what the XDP plane can do.
func XDPFeatures() Features {
	return Features{
		Plane: PlaneXDP, Ranges: true, Access: true, Timeouts: true, Rules: true, Kill: true, Decide: true,
		Limits: true, Guard: true, MSS: true, FullNAT: true, Tunnels: true, TruePath: true, Passive: true,
		MaxWeight: math.MaxUint16, // its products with counts of connections fit 64 bits
	}
}

// IPVSFeatures returns what the kernel's IPVS can do.
func IPVSFeatures() Features {
	return Features{
		Plane: PlaneIPVS, Marks: true, SCTP: true, Tunnels: true, Engines: true, Sync: true, OwnAddresses: true,
		MaxWeight: realserver.MaxWeight,
	}
}

// FeaturesOf returns what the data plane of the name can do; ErrUnsupported if
// there is none.
func FeaturesOf(plane string) (Features, error) {
	switch plane {
	case PlaneXDP:
		return XDPFeatures(), nil
	case PlaneIPVS:
		return IPVSFeatures(), nil
	default:
		return Features{}, fmt.Errorf("data plane %q: %w: want %s or %s", plane, ErrUnsupported, PlaneXDP, PlaneIPVS)
	}
}

// Check returns nil, or everything that the state asks for and the data plane
// cannot do, joined: each a *ProblemError that wraps ErrUnsupported. What is
// wrong for every data plane is State.Validate's to say.
func (f Features) Check(s State) error { return f.check(s, nil) }

// check looks at what is touched, nil for all: what another data plane could do and
// is left as it is does not forbid a change of something else.
func (f Features) check(s State, only *touched) error {
	c := lack{features: f}
	for i := range s.Services {
		if service := &s.Services[i]; only == nil || only.services[service.Key] {
			c.enter(i, fmt.Sprintf("services[%d] %s", i, service.label()))
			c.service(service)
		}
	}
	c.enter(-1, "sync")
	c.unless(f.Sync || len(s.Sync) == 0 || only != nil && !only.sync, "sync", "a sync daemon")
	for _, drain := range s.Drains {
		if only == nil || only.drains {
			c.enter(-1, fmt.Sprintf("drain of %s of %s", drain.Server, drain.Service))
			c.unless(f.Kill || !drain.Kill, "kill", "the removal of connections")
		}
	}
	return errors.Join(c.problems...)
}

// lacks returns an error if the data plane cannot do the operation: one from a
// revision that was made for another data plane.
func (f Features) lacks(op Operation) error {
	c := lack{features: f}
	c.enter(-1, "")
	switch op := op.(type) {
	case AddService:
		c.service(&Service{
			Key: op.Service.Key, Access: op.Service.Access, Persistence: op.Service.Persistence, Timeouts: op.Service.Timeouts, Rules: op.Service.Rules,
			Limits: op.Service.Limits, Guard: op.Service.Guard, MSS: op.Service.MSS,
		})
	case EditService:
		return f.lacks(AddService(op))
	case AddServer:
		c.server(op.Key, op.Server)
	case EditServer:
		return f.lacks(AddServer(op))
	case StartSync:
		c.unless(f.Sync, "sync", "a sync daemon")
	}
	return errors.Join(c.problems...)
}

// lack collects what a data plane lacks.
type lack struct {
	checker
	features Features
}

// unless reports that the data plane has no such thing, unless it can.
func (c *lack) unless(can bool, field, what string) {
	if !can {
		c.add(ErrUnsupported, field, fmt.Sprintf("%s is not there on the %s data plane", what, c.features.Plane))
	}
}

func (c *lack) service(s *Service) {
	f, key := c.features, s.Key
	c.unless(f.Marks || !key.IsMark(), "listen", "a service of a firewall mark")
	c.unless(f.SCTP || key.Protocol != conntrack.SCTP, "listen", "sctp")
	c.unless(f.Ranges || key.Bits == 0, "listen", "a service of a prefix")
	c.unless(f.Ranges || key.LastPort == 0, "listen", "a range of ports")
	c.unless(f.OwnAddresses || !key.Address.Addr().IsLoopback(), "listen", "a loopback address as the virtual one")
	c.unless(f.Access || s.Access.IsZero(), "access", "an access list")
	c.unless(f.Engines || s.Persistence.Engine == "", "persistence", "a persistence engine")
	c.unless(f.Timeouts || s.Timeouts == (conntrack.Timeouts{}), "timeouts", "a service's own timeout")
	c.unless(f.Limits || s.Limits.IsZero(), "limits", "a limit of connections")
	c.unless(f.Guard || s.Guard == (SourceGuard{}), "guard", "a guard")
	c.unless(f.MSS || s.MSS == 0, "mss", "a limit of segments' size")
	c.unless(f.Passive || s.Health.Passive.IsZero(), "health.passive", "passive evidence")
	for i, check := range s.Health.Checks {
		c.unless(f.TruePath || check.Via != realserver.ViaVirtual, fmt.Sprintf("check[%d].via", i), fmt.Sprintf("check[%d]: a check by the way of clients' packets", i))
	}
	c.rules(s.Rules)
	where := c.at
	for i, server := range s.Servers {
		c.at.Server, c.at.Where = i, fmt.Sprintf("%s: servers[%d]", where.Where, i)
		c.server(key, server)
	}
	c.at = where
	for i, server := range s.Health.Sorry {
		inner := lack{checker{at: where}, f}
		inner.at.Where = fmt.Sprintf("%s: sorry[%d]", where.Where, i)
		inner.server(key, server)
		c.within(fmt.Sprintf("sorry[%d]", i), inner.problems)
	}
}

func (c *lack) rules(r Rules) {
	unset := func(is bool, rule string) {
		sysctl := "net.ipv4.vs." + strings.ReplaceAll(rule, "-", "_")
		c.unless(c.features.Rules || is, rule, fmt.Sprintf("%s by service (its sysctl is %s)", rule, sysctl))
	}
	unset(!r.SloppyTCP, "sloppy-tcp")
	unset(!r.ExpireNoDestConn, "expire-nodest-conn")
	unset(!r.ExpireQuiescentTemplate, "expire-quiescent-template")
	unset(r.ConnReuse == ReuseClosed, "conn-reuse-mode")
}

// local says that nothing stands in for clients' addresses at a server that wants it.
func (c *lack) local(server realserver.Server) {
	family, lacks := "ipv4", c.features.NoLocal4
	if server.Address.Addr().Is6() {
		family, lacks = "ipv6", c.features.NoLocal6
	}
	if lacks && server.Method == realserver.FullNAT {
		c.add(ErrUnsupported, "method", fmt.Sprintf("method fullnat: the director has no address of %s to stand in for clients': give some in director.fullnat.addresses", family))
	}
}

func (c *lack) server(key ServiceKey, server realserver.Server) {
	if server.Weight > c.features.MaxWeight {
		c.add(ErrUnsupported, "weight", fmt.Sprintf("weight %d: the %s data plane has weights up to %d", server.Weight, c.features.Plane, c.features.MaxWeight))
	}
	c.unless(c.features.Tunnels || server.Method != realserver.Tunnel, "method", "method tunnel")
	c.unless(c.features.FullNAT || server.Method != realserver.FullNAT, "method", "method fullnat")
	addr := server.Address.Addr()
	if c.features.OwnAddresses || server.Method == realserver.Local || !addr.IsValid() {
		return
	}
	switch {
	case addr.IsLoopback():
		c.add(ErrUnsupported, "address", fmt.Sprintf("address %s is a loopback address: only method local reaches it", addr))
	case key.Address.IsValid() && key.Prefix().Contains(addr):
		c.add(ErrUnsupported, "address", fmt.Sprintf("%s is the service's own virtual address: only method local delivers there", addr))
	}
}
