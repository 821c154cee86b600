package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// packet sends a packet and compares all that becomes of it.
func (s *stateMachine) packet(p bpftest.Packet) {
	s.sent = append(s.sent, p)
	if len(s.sent) > 8 {
		s.sent = s.sent[1:]
	}
	s.note("%d %s -> %s %q seq %#x ack %#x, %d octets", p.Protocol, p.From, p.To, p.Flags, p.Seq, p.Ack, len(p.Payload))
	var got outcome
	s.eitherTick(func() { got = s.run(p) }, func(m *stateModel, tick uint32) error {
		want, err := m.packet(p, tick, s.chosen(p))
		if err != nil {
			return err
		}
		return got.differs(want)
	})
}

// packetAmid is packet while the tables cannot be read: of a connection that there is.
func (s *stateMachine) packetAmid(p bpftest.Packet) {
	s.note("  %d %s -> %s %q", p.Protocol, p.From, p.To, p.Flags)
	before := s.now()
	got := s.run(p)
	var errs []error
	for _, tick := range []uint32{before, s.now()} {
		m := s.m.clone()
		want, err := m.packet(p, tick, choice{})
		if err == nil {
			want.events = strings.TrimSpace(want.events + " carried")
			err = got.differs(want)
		}
		if err == nil {
			s.m = m
			return
		}
		errs = append(errs, err)
	}
	s.fail("%v", errors.Join(errs...))
}

// run sends a packet; what becomes of it.
func (s *stateMachine) run(p bpftest.Packet) (o outcome) {
	run := ebpf.RunOptions{Data: p.Bytes(), DataOut: make([]byte, 2048)}
	action, err := s.plane.ShuntRoot.Run(&run)
	s.ok(err)
	o.action, o.events = bpftest.Action(action), s.readEvents()
	if o.action != bpftest.TX && o.action != bpftest.Redirect {
		return o
	}
	if err := bpftest.Verify(run.DataOut); err != nil && !errors.Is(err, bpftest.ErrNotChecked) {
		s.fail("%v", err)
	}
	o.from, o.to = endsOf(run.DataOut)
	return o
}

// endsOf are the addresses and ports of a frame without tags and options.
func endsOf(frame []byte) (from, to netip.AddrPort) {
	source, length, ports := 14+12, 4, 14+20
	if frame[14]>>4 == 6 {
		source, length, ports = 14+8, 16, 14+40
	}
	end := func(n int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(frame[source+n*length : source+(n+1)*length])
		return netip.AddrPortFrom(a, uint16(frame[ports+2*n])<<8|uint16(frame[ports+2*n+1]))
	}
	return end(0), end(1)
}

// differs compares what became of a packet with what the model says.
func (o outcome) differs(want outcome) error {
	const perhaps = "collision-avoided?"
	if strings.Contains(want.events, perhaps) {
		want.events = strings.Join(strings.Fields(strings.ReplaceAll(want.events, perhaps, "")), " ")
		o.events = strings.Join(strings.Fields(strings.ReplaceAll(o.events, "collision-avoided", "")), " ")
	}
	if !want.from.IsValid() {
		o.from, o.to = netip.AddrPort{}, netip.AddrPort{}
	}
	if o != want {
		return fmt.Errorf("the packet: %+v, want %+v", o, want)
	}
	return nil
}

// readEvents returns the names of the events since the last call.
func (s *stateMachine) readEvents() string {
	counts, err := s.plane.EventCounts()
	s.ok(err)
	var names []string
	for i, n := range counts {
		if name := bpf.Events[i].Name; n != s.events[i] && name != "not-ours" && name != "icmp" { // neighbours look for one another
			names = append(names, name)
		}
	}
	s.events = counts
	slices.Sort(names)
	return strings.Join(names, " ")
}

// tableView is what the tables hold.
type tableView struct {
	flows     map[flowKey]bpf.Entry
	replies   map[flowKey]bpf.Entry
	templates map[netip.Addr]bpf.Entry
	servers   map[uint32]netip.AddrPort // by index
}

func (s *stateMachine) view() *tableView {
	v := &tableView{map[flowKey]bpf.Entry{}, map[flowKey]bpf.Entry{}, map[netip.Addr]bpf.Entry{}, map[uint32]netip.AddrPort{}}
	for _, service := range s.Dataplane.model.services {
		for address, server := range service.members {
			v.servers[server.index] = address
		}
	}
	for e, err := range s.plane.Entries(s.v6) {
		s.ok(err)
		key := flowKey{e.Protocol, e.Source, e.Destination}
		switch {
		case e.Template:
			v.templates[e.Source.Addr()] = e
		case e.Reply:
			v.replies[key] = e
		default:
			v.flows[key] = e
		}
	}
	return v
}

// chosen is what the tables have of a client's packet.
func (s *stateMachine) chosen(p bpftest.Packet) (c choice) {
	v := s.view()
	if e, ok := v.flows[flowKey{p.Protocol, p.From, p.To}]; ok {
		c.server = v.servers[e.Server]
	}
	if e, ok := v.templates[networkOf(p.From.Addr())]; ok {
		c.template = v.servers[e.Server]
	}
	return c
}

// eitherTick does something to the tables, and to the model as of the tick before it
// or the one after it: one of the two must agree.
func (s *stateMachine) eitherTick(do func(), with func(*stateModel, uint32) error) {
	s.T.Helper()
	before := s.now()
	do()
	s.readEvents() // packets have read theirs
	var errs []error
	view := s.view()
	for _, tick := range []uint32{before, s.now()} {
		m := s.m.clone()
		err := with(m, tick)
		if err == nil {
			err = m.differs(view, tick)
		}
		if err == nil {
			s.m = m
			s.sometimesCheck()
			return
		}
		errs = append(errs, err)
	}
	s.fail("%v", errors.Join(errs...))
}

// compare compares the tables with the model as it is.
func (s *stateMachine) compare() {
	s.T.Helper()
	if err := s.m.differs(s.view(), s.now()); err != nil {
		s.fail("%v", err)
	}
	s.sometimesCheck()
}

const checkInterval = 10 // steps

func (s *stateMachine) sometimesCheck() {
	if s.steps++; s.steps%checkInterval == 0 {
		s.check()
	}
}

// differs compares connections and templates with the tables'. Of times the model
// takes the tables' word, if that is as exact as it is to be.
func (m *stateModel) differs(v *tableView, tick uint32) error {
	for key, e := range v.flows {
		f, ok := m.flows[key]
		if !ok {
			return fmt.Errorf("%v is in the table: %+v", key, e)
		}
		server := v.servers[e.Server]
		if server.Addr() != f.server.Addr() || server.Port() != f.server.Port() && server.Port() != 0 || conntrack.State(e.State) != f.state ||
			e.Proven != f.proof.Proven || e.UnderTemplate != f.controlled || realserver.Method(e.Method) != f.method {
			return fmt.Errorf("%v: %s, %+v, want %+v", key, server, e, f)
		}
		if late := int32(f.last - e.Seen); late < -1 || late > 2*int32(m.refresh)+1 {
			return fmt.Errorf("%v was last seen at %d, its last packet was at %d", key, e.Seen, f.last)
		}
		f.seen = e.Seen
		m.flows[key] = f
	}
	for key, f := range m.flows {
		if _, ok := v.flows[key]; !ok {
			return fmt.Errorf("%v is not in the table, want %+v", key, f)
		}
	}
	for key := range m.replies {
		if _, ok := v.replies[key]; !ok {
			return fmt.Errorf("the reply key %v is not in the table", key)
		}
	}
	if len(v.replies) != len(m.replies) {
		return fmt.Errorf("%d reply keys, want %d", len(v.replies), len(m.replies))
	}
	return m.templatesDiffer(v, tick)
}

func (m *stateModel) templatesDiffer(v *tableView, tick uint32) error {
	for network, e := range v.templates {
		t, ok := m.templates[network]
		if !ok || t.server != v.servers[e.Server] || t.controlled != int(e.Controlled) {
			return fmt.Errorf("template of %s: %s, %+v, want %+v", network, v.servers[e.Server], e, t)
		}
		t.seen, t.prolonged = e.Seen, e.Prolonged
		m.templates[network] = t
	}
	service := m.services[ofPersistence]
	for network, t := range m.templates {
		if _, ok := v.templates[network]; ok {
			continue
		}
		if t.controlled > 0 || !m.isTemplateOver(service, t, tick) {
			return fmt.Errorf("there is no template of %s, want %+v", network, t)
		}
		delete(m.templates, network) // the sweep's
	}
	return nil
}
