package scheduler

import (
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/realserver"
)

// simulatedServer is a server with what it has; its load is in Simulation.loads.
type simulatedServer struct {
	realserver.Server
	address    netip.AddrPort
	available  bool                        // not removed (IP_VS_DEST_F_AVAILABLE)
	templates  map[*simulatedTemplate]bool // those left to die too
	references int                         // connections and templates
}

// offered is the weight that the scheduler gets to see.
func (s *simulatedServer) offered() uint32 {
	if s.Draining {
		return 0
	}
	return s.Weight
}

// AddServer puts a server at the head of the list. One that was removed while it
// had connections comes back with them: the kernel keeps it (kernel: ip_vs_ctl.c,
// ip_vs_trash_get_dest). One that is there is edited.
func (s *Simulation) AddServer(server realserver.Server) {
	if s.serverAt(server.Address) != nil {
		s.EditServer(server)
		return
	}
	added := s.gone[server.Address]
	if added == nil {
		added = &simulatedServer{address: server.Address, templates: make(map[*simulatedTemplate]bool)}
	}
	delete(s.gone, server.Address)
	added.available = true
	s.configure(added, server)
	s.servers = slices.Insert(s.servers, 0, added)
	s.model.Add(server.Address, added.Weight)
	if added.Draining {
		s.model.Edit(server.Address, 0) // and not added with 0: mh goes on with its weight
		s.drain(server)
	}
}

// EditServer sets all of a server but its address; one that is not there is
// ignored.
func (s *Simulation) EditServer(server realserver.Server) {
	if edited := s.serverAt(server.Address); edited != nil {
		s.configure(edited, server)
		s.model.Edit(server.Address, edited.offered())
		s.drain(server)
	}
}

// drain tells a model with a table whether the server is draining.
func (s *Simulation) drain(server realserver.Server) {
	if model, ok := s.model.(drainer); ok {
		model.drain(server.Address, server.Draining)
	}
}

// RemoveServer takes a server out of the list; one that is not there is ignored.
// Its connections stay, but for ExpireNoDestConn.
func (s *Simulation) RemoveServer(address netip.AddrPort) {
	i := slices.IndexFunc(s.servers, func(server *simulatedServer) bool { return server.address == address })
	if i < 0 {
		return
	}
	removed := s.servers[i]
	s.servers = slices.Delete(s.servers, i, i+1)
	s.model.Remove(address)
	removed.available = false
	s.gone[address] = removed
	if s.service.Rules.ExpireNoDestConn {
		s.flush(removed)
	}
	s.forget(removed)
}

// serverAt returns a server of the list, or nil.
func (s *Simulation) serverAt(address netip.AddrPort) *simulatedServer {
	for _, server := range s.servers {
		if server.address == address {
			return server
		}
	}
	return nil
}

// configure sets weight and thresholds. An upper threshold that is raised or
// taken away ends overload until the next connection (kernel: ip_vs_ctl.c,
// __ip_vs_update_dest of 6.1).
func (s *Simulation) configure(server *simulatedServer, to realserver.Server) {
	if to.Upper == 0 || to.Upper > server.Upper {
		s.setLoad(server, func(l *Load) { l.Overloaded = false })
	}
	server.Server = to
}

// bind gives the server one more connection or template (kernel: ip_vs_conn.c,
// ip_vs_bind_dest of 6.1).
func (s *Simulation) bind(server *simulatedServer, count func(l *Load)) {
	server.references++
	s.setLoad(server, func(l *Load) {
		count(l)
		if server.Upper != 0 && l.Active+l.Inactive >= int64(server.Upper) {
			l.Overloaded = true
		}
	})
}

// unbind takes one away (kernel: ip_vs_conn.c, ip_vs_unbind_dest of 6.1).
func (s *Simulation) unbind(server *simulatedServer, count func(l *Load)) {
	server.references--
	s.setLoad(server, func(l *Load) {
		count(l)
		total := l.Active + l.Inactive
		switch {
		case server.Lower != 0:
			l.Overloaded = l.Overloaded && total >= int64(server.Lower)
		case server.Upper != 0:
			l.Overloaded = l.Overloaded && total*4 >= int64(server.Upper)*3
		default:
			l.Overloaded = false
		}
	})
	s.forget(server)
}

func (s *Simulation) setLoad(server *simulatedServer, change func(l *Load)) {
	load := s.loads[server.address]
	change(&load)
	s.loads[server.address] = load
}

// forget lets go of a removed server that nothing refers to. The kernel keeps it
// two minutes more, which nobody can tell: it has no counts.
func (s *Simulation) forget(server *simulatedServer) {
	if !server.available && server.references == 0 {
		delete(s.gone, server.address)
		delete(s.loads, server.address)
	}
}
