package director

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/realserver"
)

// Action says what a step of a plan does.
type Action string

// The actions. To drain is to set a server's weight to 0, or to order a drain: its
// connections go on and it gets no new ones.
const (
	ActionAdd    Action = "add"
	ActionChange Action = "change"
	ActionDrain  Action = "drain"
	ActionRemove Action = "remove"
)

// Step is an operation of a plan for people: with what it replaces.
type Step struct {
	// Operation is nil where the plan has nothing for the data plane: for the terms of
	// a drain, for overrides and health, of which follows what is offered.
	Operation Operation
	Action    Action
	Service   ServiceKey     // zero for the timeouts and sync daemons
	Server    netip.AddrPort // zero for a service's own settings
	Changes   []Difference   // what it sets; Old is empty where it adds
}

// Difference is one field of a step, in the words of the configuration.
type Difference struct {
	Field, Old, New string
	// Redacted is the difference without the secrets that Old or New may have; nil: they
	// have none.
	Redacted *Difference
}

// String returns the difference as "weight 3 → 1", or "weight 1" where there
// was nothing.
func (d Difference) String() string {
	if d.Old == "" {
		return d.Field + " " + d.New
	}
	return fmt.Sprintf("%s %s → %s", d.Field, d.Old, d.New)
}

// String returns the step in a line, such as "drain server 10.0.0.1:80 of
// tcp://192.0.2.1:80: weight 3 → 0".
func (s Step) String() string {
	order := "drain"
	if len(s.Changes) > 0 && strings.HasPrefix(s.Changes[0].Field, overrideField) {
		order = overrideField
	}
	text := fmt.Sprintf("edit %s of server %s of %s", order, s.Server, s.Service)
	if !s.Server.IsValid() {
		text = fmt.Sprintf("edit service %s", s.Service)
	}
	if s.Operation != nil {
		text = s.Operation.String()
	}
	switch {
	case s.Action == ActionDrain && s.Operation == nil:
		text = fmt.Sprintf("drain server %s of %s", s.Server, s.Service)
	case s.Action == ActionDrain:
		text = "drain" + strings.TrimPrefix(text, "edit")
	}
	var changes []string
	for _, c := range s.Changes {
		changes = append(changes, c.String())
	}
	if len(changes) == 0 || s.Action == ActionRemove {
		return text
	}
	return text + ": " + strings.Join(changes, ", ")
}

// Explain returns the operations as steps; found is what they were planned
// against.
func Explain(ops []Operation, found State) []Step {
	if len(ops) == 0 {
		return nil
	}
	before := indexed{found, indexServices(found)}
	steps := make([]Step, 0, len(ops))
	for _, op := range ops {
		steps = append(steps, before.explain(op))
	}
	return steps
}

// Between returns the steps that lead from one state to another, drains and overrides
// included.
func Between(from, to State) []Step {
	return explainHealth(explainOverrides(explainDrains(Explain(Plan(to, from), from), from, to), from, to), from, to)
}

// explainDrains adds what changes of the terms of drains: to the step of the
// server if it has one, else as a step by itself; and of servers that agents
// registered, which no operation is about, that a drain begins and ends.
func explainDrains(steps []Step, from, to State) []Step {
	for _, drain := range to.Drains {
		old, was := from.Drain(drain.Service, drain.Server)
		changes := diffFields(old.fields(), drain.fields())
		if !was && !to.configures(drain.Service, drain.Server) { // no operation says it
			steps = append(steps, Step{
				Action: ActionDrain, Service: drain.Service, Server: drain.Server,
				Changes: diffFields(drainFields(Drain{}, false), drainFields(drain, true)),
			})
			continue
		}
		if len(changes) == 0 {
			continue
		}
		at := slices.IndexFunc(steps, func(s Step) bool { return s.Service == drain.Service && s.Server == drain.Server })
		if at < 0 {
			steps = append(steps, Step{Action: ActionChange, Service: drain.Service, Server: drain.Server, Changes: changes})
			continue
		}
		if steps[at].Action == ActionAdd {
			changes = diffFields(nil, drain.fields())
		}
		steps[at].Changes = append(steps[at].Changes, changes...)
	}
	for _, old := range from.Drains {
		_, stays := to.Drain(old.Service, old.Server)
		if i := to.Service(old.Service); !stays && i >= 0 && !from.configures(old.Service, old.Server) && to.Services[i].mayHave(old.Server) {
			steps = append(steps, Step{
				Action: ActionChange, Service: old.Service, Server: old.Server,
				Changes: diffFields(drainFields(old, true), drainFields(Drain{}, false)),
			})
		}
	}
	return steps
}

// explainOverrides adds what changes of overrides, each as a step by itself; those of
// servers that go are not told.
func explainOverrides(steps []Step, from, to State) []Step {
	add := func(o Override, was, is []field) {
		if changes := diffFields(was, is); len(changes) > 0 {
			steps = append(steps, Step{Action: ActionChange, Service: o.Service, Server: o.Server, Changes: changes})
		}
	}
	for _, order := range to.Overrides {
		old, _ := from.Override(order.Service, order.Server)
		add(order, old.fields(), order.fields())
	}
	for _, old := range from.Overrides {
		if _, stays := to.Override(old.Service, old.Server); stays {
			continue
		}
		if i := to.Service(old.Service); i >= 0 && to.Services[i].mayHave(old.Server) {
			add(old, old.fields(), Override{}.fields())
		}
	}
	return steps
}

// indexed is a state with the places of its services.
type indexed struct {
	State
	places map[ServiceKey]int
}

// get returns the service, or the zero Service if there is none.
func (s indexed) get(key ServiceKey) Service {
	if i, ok := s.places[key]; ok {
		return s.Services[i]
	}
	return Service{}
}

// explain returns the operation on the state as a step.
func (s indexed) explain(op Operation) Step {
	step := Step{Operation: op}
	switch op := op.(type) {
	case SetTimeouts:
		step.Action = ActionChange
		step.Changes = diffFields(s.timeoutFields(), State{Timeouts: op.Timeouts}.timeoutFields())
	case StartSync:
		step.Action = ActionAdd
		step.Changes = diffFields(nil, op.Daemon.fields())
	case StopSync:
		step.Action = ActionRemove
	case AddService:
		step.Action, step.Service = ActionAdd, op.Service.Key
		step.Changes = diffFields(nil, op.Service.fields())
	case EditService:
		step.Action, step.Service = ActionChange, op.Service.Key
		step.Changes = diffFields(s.get(op.Service.Key).fields(), op.Service.fields())
	case RemoveService:
		step.Action, step.Service = ActionRemove, op.Key
		step.Changes = []Difference{{Field: "servers", Old: fmt.Sprint(len(s.get(op.Key).Servers)), New: "0"}}
	case AddServer:
		step.Action, step.Service, step.Server = ActionAdd, op.Key, op.Server.Address
		step.Changes = diffFields(nil, serverFields(op.Server))
	case EditServer:
		step.Action, step.Service, step.Server = ActionChange, op.Key, op.Server.Address
		old := s.get(op.Key)
		if i := old.Server(op.Server.Address); i >= 0 {
			step.Changes = diffFields(serverFields(old.Servers[i]), serverFields(op.Server))
			if old.Servers[i].Weight > 0 && op.Server.Weight == 0 || !old.Servers[i].Draining && op.Server.Draining {
				step.Action = ActionDrain
			}
		}
	case RemoveServer:
		step.Action, step.Service, step.Server = ActionRemove, op.Key, op.Address
	}
	return step
}

// field is a name and its value in words; an empty value is not shown.
type field struct{ name, value string }

func (s Service) fields() []field {
	words := func(list []string) string { return strings.Join(list, ",") }
	prefixes := func(list []netip.Prefix) string {
		var all []string
		for _, p := range list {
			all = append(all, p.String())
		}
		return words(all)
	}
	return []field{
		{"name", s.Name},
		{"scheduler", string(s.Scheduler)},
		{"flags", words(s.Scheduler.FlagNames(s.Flags))},
		{"vip", string(s.VIP)},
		{"allow", prefixes(s.Access.Allow)},
		{"deny", prefixes(s.Access.Deny)},
		{"persistence", s.Persistence.String()},
		{"one-packet", word(s.OnePacket)},
		{"timeout tcp", duration(s.Timeouts.TCP)},
		{"timeout tcp-fin", duration(s.Timeouts.TCPFin)},
		{"timeout udp", duration(s.Timeouts.UDP)},
		{"conn-reuse-mode", reuseWord(s.Rules.ConnReuse)},
		{"sloppy-tcp", word(s.Rules.SloppyTCP)},
		{"expire-nodest-conn", word(s.Rules.ExpireNoDestConn)},
		{"expire-quiescent-template", word(s.Rules.ExpireQuiescentTemplate)},
		{"limit rate", perSecond(s.Limits.Rate)},
		{"limit connections", threshold(s.Limits.Connections)},
		{"source prefix", prefixWord(s.Limits.Source.Prefix)},
		{"source rate", perSecond(s.Limits.Source.Rate)},
		{"source connections", threshold(s.Limits.Source.Connections)},
		{"guard", guardWord(s.Guard)},
		{"mss", threshold(uint32(s.MSS))},
	}
}

// drainingField names the field that says whether a server is being drained.
const drainingField = "draining"

func serverFields(s realserver.Server) []field {
	return []field{
		{"method", s.Method.String()},
		{"tunnel", tunnelWord(s)},
		{"weight", fmt.Sprint(s.Weight)},
		{"upper", threshold(s.Upper)},
		{"lower", threshold(s.Lower)},
		{drainingField, word(s.Draining)},
	}
}

// What is not set has no word: a step does not show it.

func word(set bool) string {
	if set {
		return "yes"
	}
	return ""
}

func duration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func tunnelWord(s realserver.Server) string {
	if s.Method != realserver.Tunnel {
		return ""
	}
	return s.Tunnel.String()
}

func threshold(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func perSecond(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d/s", n)
}

func prefixWord(bits uint8) string {
	if bits == 0 {
		return ""
	}
	return fmt.Sprintf("/%d", bits)
}

func guardWord(g SourceGuard) string {
	if g == (SourceGuard{}) {
		return ""
	}
	return g.String()
}

func reuseWord(m ReuseMode) string {
	if m == ReuseClosed {
		return ""
	}
	return fmt.Sprint(m.Number())
}

func (d Drain) fields() []field {
	deadline := ""
	if !d.Deadline.IsZero() {
		deadline = d.Deadline.UTC().Format(time.RFC3339)
	}
	return []field{{"drain deadline", deadline}, {"drain kill", word(d.Kill)}}
}

// drainFields are a drain's, with that of its server.
func drainFields(d Drain, draining bool) []field {
	return append([]field{{drainingField, word(draining)}}, d.fields()...)
}

// overrideField begins the names of an override's fields.
const overrideField = "override"

func (o Override) fields() []field {
	state, until := "", ""
	switch {
	case !o.Service.Address.IsValid() && !o.Service.IsMark(): // none
	case o.Up:
		state = "up"
	default:
		state = "down"
	}
	if !o.Until.IsZero() {
		until = o.Until.UTC().Format(time.RFC3339)
	}
	return []field{{overrideField, state}, {overrideField + " until", until}, {overrideField + " why", o.Why}}
}

func (s State) timeoutFields() []field {
	return []field{
		{"tcp", s.Timeouts.TCP.String()}, {"tcp-fin", s.Timeouts.TCPFin.String()}, {"udp", s.Timeouts.UDP.String()},
	}
}

// diffFields returns the fields of is that differ from was, which has the same
// names or is nil. What was there and is no more is shown as "none".
func diffFields(was, is []field) []Difference {
	var all []Difference
	for i, f := range is {
		d := Difference{Field: f.name, New: f.value}
		if was != nil {
			if was[i].value == f.value {
				continue
			}
			d.Old, d.New = orNone(was[i].value), orNone(f.value)
		}
		if d.New != "" {
			all = append(all, d)
		}
	}
	return all
}
