package ipvsadm

import (
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
	"github.com/shunt-lb/shunt/realserver"
)

// member is a server of a service.
type member struct {
	service director.ServiceKey
	server  netip.AddrPort
}

// spared is a foreign service that a restore would make anew as it is: -S has saved
// it with all others, and -C has left it. Nothing is to be done then; where the
// lines say something else of it, they are refused.
type spared struct {
	service director.Service
	named   map[netip.AddrPort]bool // the servers that the lines had
}

// spare reports whether -A says of a foreign service what it is, after a -C.
func (t *table) spare(foreign director.Service, s language.Service) bool {
	is, err := language.FromDirector(foreign)
	if !s.Persistent { // without it a mask means nothing
		s.Netmask, s.Timeout = is.Netmask, is.Timeout
	}
	if t.spared == nil || t.spared[foreign.Key] != nil || err != nil || is != s {
		return false
	}
	t.spared[foreign.Key] = &spared{foreign, make(map[netip.AddrPort]bool)}
	return true
}

// add says whether the server is there as it is to be, as far as -S tells.
func (s *spared) add(server language.Server) *refusal {
	exists := &refusal{of: language.AddServer, errno: syscall.EEXIST}
	at := s.service.Server(server.Address) // one of port 0 may be beside one of the service's
	if at < 0 {
		at = s.service.Server(s.service.Key.ServerAddress(server.Address))
	}
	if at < 0 {
		return exists.foreign(s.service.Key)
	}
	is := s.service.Servers[at]
	if s.named[is.Address] || saved(is) != saved(server) {
		return exists.foreign(s.service.Key)
	}
	s.named[is.Address] = true
	return nil
}

// saved is what -S tells of a server besides its address.
func saved(s realserver.Server) realserver.Server {
	s.Address, s.Upper, s.Lower, s.Draining = netip.AddrPort{}, 0, 0, false
	if s.Method == realserver.Local {
		s.Method = realserver.DR
	}
	return s
}

// lacking returns a refusal where lines of a restore left servers out that a foreign
// service has; nil for none.
func (t *table) lacking() *refusal {
	for _, key := range slices.SortedFunc(maps.Keys(t.spared), director.ServiceKey.Compare) {
		if s := t.spared[key]; len(s.named) < len(s.service.Servers) {
			r := (&refusal{of: language.AddService, errno: syscall.EEXIST}).foreign(key)
			r.because = append(r.because, "it has servers that these lines do not have")
			return r
		}
	}
	return nil
}
