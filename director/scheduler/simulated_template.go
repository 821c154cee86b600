package scheduler

import (
	"net/netip"
	"time"
)

// Prolonged is what a template gets when its time is over and it still has
// connections; from then on a new connection prolongs it by no more either
// (kernel: ip_vs_conn.c, ip_vs_conn_expire).
const Prolonged = time.Minute

// simulatedTemplate is one persistence template of a Simulation.
type simulatedTemplate struct {
	network    netip.Prefix
	server     *simulatedServer
	controlled int
	timeout    time.Duration
	timer
}

// network returns the client's network. Validated services have a prefix that
// fits; for others it is the client alone.
func (s *Simulation) network(client netip.Addr) netip.Prefix {
	network, err := client.Prefix(int(s.service.Persistence.Prefix))
	if err != nil {
		return netip.PrefixFrom(client, client.BitLen())
	}
	return network
}

// usableTemplate returns the client's template, or nil. One that may not be
// followed any more is left to die (kernel: ip_vs_conn.c, ip_vs_check_template).
// Its server's weight and overload do not matter, but for the rule and a drain.
func (s *Simulation) usableTemplate(client netip.Addr) *simulatedTemplate {
	network := s.network(client)
	t := s.templates[network]
	if t == nil {
		return nil
	}
	quiescent := s.service.Rules.ExpireQuiescentTemplate && t.server.offered() == 0
	if !t.server.available || t.server.Draining || quiescent {
		delete(s.templates, network)
		return nil
	}
	return t
}

// addTemplate makes one for the client's network.
func (s *Simulation) addTemplate(client netip.Addr, server *simulatedServer) *simulatedTemplate {
	t := &simulatedTemplate{network: s.network(client), server: server, timeout: s.service.Persistence.Timeout}
	t.expire = func() {
		if t.controlled > 0 {
			t.timeout = Prolonged
			s.timers.set(&t.timer, s.now.Add(Prolonged))
			return
		}
		s.removeTemplate(t)
	}
	server.templates[t] = true
	s.bind(server, func(*Load) {})
	s.templates[t.network] = t
	s.timers.set(&t.timer, s.now.Add(t.timeout))
	return t
}

func (s *Simulation) removeTemplate(t *simulatedTemplate) {
	if s.templates[t.network] == t {
		delete(s.templates, t.network)
	}
	s.timers.stop(&t.timer)
	delete(t.server.templates, t)
	s.unbind(t.server, func(*Load) {})
}
