package xdp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Decide has the loaded programs decide on a client's first packet, as a trial,
// and reads what their scheduler looks at.
func (d *Dataplane) Decide(ctx context.Context, question director.Question) (director.Decision, error) {
	if err := checkQuestion(question); err != nil {
		return director.Decision{}, err
	}
	leave, err := d.gate.enter(ctx)
	if err != nil {
		return director.Decision{}, err
	}
	defer leave()
	d.mu.Lock()
	defer d.mu.Unlock()
	view, err := d.view(ctx)
	if err != nil {
		return director.Decision{}, err
	}
	question, args, err := d.explain(question)
	if err != nil {
		return director.Decision{}, fmt.Errorf("ask the programs about a packet of %s to %s: %w", question.Client, question.Virtual, err)
	}
	decision := director.Decision{Question: question, By: deciders[args.DecidedBy], Turn: -1, Slot: -1}
	if args.Event != uint32(bpf.KernelEventEVENT_NONE) {
		decision.Event = bpf.Events[args.Event].Name
	}
	if s := d.model.servers[args.Server]; s != nil && args.Recipe != 0 {
		decision.Server = s.address
		decision.Method = realserver.Method(bpf.Follows(args.Recipe).Method)
	}
	if svc := d.model.services[args.Service]; svc != nil {
		decision.Service, decision.Scheduler, decision.Flags = svc.key, svc.scheduler, svc.flags
		decision.Connection = view.met(&args, question, svc)
		if err := d.explainScheduler(&decision, svc); err != nil {
			return director.Decision{}, err
		}
	}
	return decision, nil
}

// deciders by the ABI's numbers.
var deciders = [...]director.DecisionBy{
	bpf.KernelDeciderDECIDED_BY_NOTHING:    director.ByNothing,
	bpf.KernelDeciderDECIDED_BY_CONNECTION: director.ByConnection,
	bpf.KernelDeciderDECIDED_BY_TEMPLATE:   director.ByTemplate,
	bpf.KernelDeciderDECIDED_BY_SCHEDULER:  director.ByScheduler,
}

func checkQuestion(q director.Question) error {
	switch client, virtual := q.Client.Addr(), q.Virtual.Addr(); {
	case q.Protocol != conntrack.TCP && q.Protocol != conntrack.UDP:
		return fmt.Errorf("a packet of protocol %s: %w: want tcp or udp", q.Protocol, director.ErrInvalid)
	case !client.IsValid() || !virtual.IsValid() || client.Is4() != virtual.Is4():
		return fmt.Errorf("a packet of %s to %s: %w: want two addresses of one family", client, virtual, director.ErrInvalid)
	case q.Virtual.Port() == 0:
		return fmt.Errorf("a packet to %s: %w: port 0 is none that packets go to", q.Virtual, director.ErrInvalid)
	default:
		return nil
	}
}

// portTries is how many client ports are drawn in search of one without a
// connection.
const portTries = 64

// explain asks the programs. For a client without a port, one is drawn that has no
// connection, if such a one comes up.
func (d *Dataplane) explain(q director.Question) (director.Question, bpf.KernelExplainArgs, error) {
	const firstPort, ports = 32768, 28232 // net.ipv4.ip_local_port_range
	anyPort := q.Client.Port() == 0
	for try := 1; ; try++ {
		if anyPort {
			q.Client = netip.AddrPortFrom(q.Client.Addr(), uint16(firstPort+rand.UintN(ports)))
		}
		args := bpf.KernelExplainArgs{
			Source: bpf.Address(q.Client.Addr()), SourcePort: bpf.Port(q.Client.Port()),
			Destination: bpf.Address(q.Virtual.Addr()), DestinationPort: bpf.Port(q.Virtual.Port()),
			Protocol: uint8(q.Protocol),
		}
		if q.Protocol == conntrack.TCP {
			args.TcpFlags = tcpSYN
		}
		err := d.plane.Explain(q.Client.Addr().Is6(), &args)
		if err != nil || !anyPort || args.DecidedBy != uint32(bpf.KernelDeciderDECIDED_BY_CONNECTION) || try == portTries {
			return q, args, err
		}
	}
}

// tcpSYN is the flag of a first segment (RFC 9293 §3.1).
const tcpSYN = 2

// met returns the connection or template that decided; nil if none did.
func (v *view) met(args *bpf.KernelExplainArgs, q director.Question, svc *service) *conntrack.Connection {
	if args.Met == 0 {
		return nil
	}
	e := bpf.Follows(args.Met)
	e.Source, e.Destination, e.Protocol = q.Client, q.Virtual, uint8(q.Protocol)
	e.Seen, e.Busy = args.MetSeen, false
	if args.DecidedBy == uint32(bpf.KernelDeciderDECIDED_BY_TEMPLATE) {
		network := netip.PrefixFrom(q.Client.Addr(), int(svc.persistence.Prefix)).Masked().Addr()
		e.Source, e.Template, e.Service = netip.AddrPortFrom(network, 0), true, svc.index
		e.Controlled = bpf.Controlled(args.MetHop)
	}
	_, c, ok := v.connection(&e)
	if !ok {
		return nil
	}
	c.Age = 0 // not told
	return &c
}
