package ipvsadm

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// table is IPVS's table as a value: what Shunt has of it, to be changed by
// commands, and what others have. Commands are refused as the kernel would refuse
// them, and in its order (kernel: net/netfilter/ipvs/ip_vs_ctl.c,
// ip_vs_genl_set_cmd), and where Shunt has reasons of its own.
type table struct {
	state director.State
	// foreign are the services, and the sync daemons, that somebody else has.
	foreign     map[director.ServiceKey]director.Service
	foreignSync map[director.SyncRole]bool
	// draining are the servers that are being drained.
	draining map[member]bool
	// spared is what a restore that began with -C says of foreign services, which
	// it leaves as they are; nil: it did not begin so.
	spared map[director.ServiceKey]*spared
	// before are the services as they were.
	before map[director.ServiceKey]director.Service
}

func newTable(state director.State) *table {
	t := &table{
		state: state.Clone(), foreign: make(map[director.ServiceKey]director.Service), foreignSync: make(map[director.SyncRole]bool),
		draining: make(map[member]bool),
		before:   make(map[director.ServiceKey]director.Service, len(state.Services)),
	}
	for _, s := range state.Services {
		t.before[s.Key] = s
	}
	return t
}

// change carries out a command that changes the table; nil or why not. After a
// refusal the table is as it was.
func (t *table) change(c language.Command) *refusal {
	switch c.Operation {
	case language.AddService:
		return t.addService(c.Service)
	case language.EditService:
		return t.editService(c.Service)
	case language.DeleteService:
		return t.deleteService(c.Service.Key())
	case language.Flush:
		t.state.Services, t.spared = nil, make(map[director.ServiceKey]*spared)
	case language.AddServer, language.EditServer, language.DeleteServer:
		return t.changeServer(c)
	case language.SetTimeouts:
		t.state.Timeouts = c.Set.Director(t.state.Timeouts)
	case language.StartDaemon:
		return t.startDaemon(c.Daemon.Director())
	case language.StopDaemon:
		return t.stopDaemon(director.SyncRole(c.Daemon.Role))
	}
	return nil
}

func (t *table) addService(s language.Service) *refusal {
	key := s.Key()
	exists := &refusal{of: language.AddService, errno: syscall.EEXIST}
	if foreign, found := t.foreign[key]; found {
		if t.spare(foreign, s) {
			return nil
		}
		return exists.foreign(key)
	}
	if t.state.Service(key) >= 0 {
		return exists
	}
	service, r := read(language.AddService, s)
	if r != nil {
		return r
	}
	// A service that a restore makes anew keeps what ipvsadm has no words for.
	if was, found := t.before[key]; found {
		service = inherit(service, was)
	}
	if err := service.Validate(); err != nil {
		return refused(language.AddService, errnoOf(err), err)
	}
	t.state.Services = append(t.state.Services, service)
	return nil
}

// editService replaces all that ipvsadm has words for: what the command line
// leaves out is set to its default.
func (t *table) editService(s language.Service) *refusal {
	i, r := t.service(language.EditService, s.Key())
	if r != nil {
		return r
	}
	service, r := read(language.EditService, s)
	if r != nil {
		return r
	}
	was := t.state.Services[i]
	service = inherit(service, was)
	service.Servers = was.Servers
	if err := service.Validate(); err != nil {
		return refused(language.EditService, errnoOf(err), err)
	}
	t.state.Services[i] = service
	return nil
}

func (t *table) deleteService(key director.ServiceKey) *refusal {
	i, r := t.service(language.DeleteService, key)
	if r != nil {
		return r
	}
	t.state.Services = slices.Delete(t.state.Services, i, i+1)
	return nil
}

// read turns a service into the director's, without servers.
func read(o language.Operation, s language.Service) (director.Service, *refusal) {
	missing := &refusal{of: o, errno: syscall.ENOENT}
	switch {
	case s.Scheduler == "none": // the kernel makes a service that never chooses
		return director.Service{}, refused(o, syscall.EINVAL, errors.New("a service without a scheduler is of no use"))
	case !director.Scheduler(s.Scheduler).Known():
		return director.Service{}, missing
	case s.Engine != "" && director.Engine(s.Engine) != director.EngineSIP:
		return director.Service{}, missing
	}
	service, err := s.Director()
	if err != nil {
		return service, refused(o, syscall.EINVAL, err)
	}
	return service.Normalize(), nil
}

// inherit gives a service what ipvsadm has no words for.
func inherit(s, was director.Service) director.Service {
	s.Name, s.VIP, s.Access, s.Timeouts, s.Rules = was.Name, was.VIP, was.Access.Clone(), was.Timeouts, was.Rules
	s.Limits, s.Guard, s.MSS = was.Limits, was.Guard, was.MSS
	return s
}

// service returns the index of a service of Shunt's.
func (t *table) service(o language.Operation, key director.ServiceKey) (int, *refusal) {
	i := t.state.Service(key)
	if i >= 0 {
		return i, nil
	}
	missing := &refusal{of: o, errno: syscall.ESRCH}
	if _, found := t.foreign[key]; found {
		return -1, missing.foreign(key)
	}
	return -1, missing
}

// changeServer adds, edits or removes a server.
func (t *table) changeServer(c language.Command) *refusal {
	if spared := t.spared[c.Service.Key()]; spared != nil && c.Operation == language.AddServer {
		return spared.add(c.Server)
	}
	i, r := t.service(c.Operation, c.Service.Key())
	if r != nil {
		return r
	}
	service := &t.state.Services[i]
	server := c.Server
	server.Address = service.Key.ServerAddress(server.Address)
	at := service.Server(server.Address)
	if c.Operation != language.DeleteServer {
		mixed := !sameFamily(server.Address.Addr(), service.Key.Address.Addr())
		switch {
		case mixed && t.synchronizes(): // its messages have one family for all addresses
			return &refusal{of: c.Operation, errno: syscall.EINVAL}
		case server.Lower > server.Upper:
			return &refusal{of: c.Operation, errno: syscall.ERANGE}
		}
	}
	switch {
	case c.Operation == language.AddServer && at >= 0:
		return &refusal{of: c.Operation, errno: syscall.EEXIST}
	case c.Operation == language.AddServer && !isUnicast(server.Address.Addr()):
		return &refusal{of: c.Operation, errno: syscall.EINVAL}
	case c.Operation != language.AddServer && at < 0:
		return &refusal{of: c.Operation, errno: syscall.ENOENT}
	case c.Operation == language.DeleteServer:
		service.Servers = slices.Delete(service.Servers, at, at+1)
		return nil
	}
	// With this server alone: a restore may have thousands.
	one := *service
	one.Servers = []language.Server{server}
	if err := one.Validate(); err != nil {
		return refused(c.Operation, errnoOf(err), err)
	}
	if c.Operation == language.AddServer {
		service.Servers = append(service.Servers, server)
		return nil
	}
	server.Draining = service.Servers[at].Draining
	service.Servers[at] = server
	return nil
}

// isUnicast reports whether the kernel takes the address for a server's, as far as
// can be told without asking it (kernel: ip_vs_ctl.c, ip_vs_new_dest).
func isUnicast(addr netip.Addr) bool {
	if addr.Is4() {
		return addr.As4()[0] != 0 && !addr.IsMulticast() && addr != netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLinkLocalUnicast()
}

func (t *table) synchronizes() bool { return len(t.state.Sync) > 0 || len(t.foreignSync) > 0 }

func (t *table) startDaemon(d director.SyncDaemon) *refusal {
	if t.foreignSync[d.Role] || slices.ContainsFunc(t.state.Sync, func(o director.SyncDaemon) bool { return o.Role == d.Role }) {
		return &refusal{of: language.StartDaemon, errno: syscall.EEXIST}
	}
	for _, s := range t.state.Services {
		if slices.ContainsFunc(s.Servers, func(o language.Server) bool { return !sameFamily(o.Address.Addr(), s.Key.Address.Addr()) }) {
			return &refusal{of: language.StartDaemon, errno: syscall.EINVAL}
		}
	}
	next := director.State{Sync: []director.SyncDaemon{d}}
	if err := next.Validate(); err != nil {
		return refused(language.StartDaemon, errnoOf(err), err)
	}
	t.state.Sync = append(slices.Clone(t.state.Sync), d)
	return nil
}

func sameFamily(a, b netip.Addr) bool { return a.Is4() == b.Is4() }

func (t *table) stopDaemon(role director.SyncRole) *refusal {
	left := slices.DeleteFunc(slices.Clone(t.state.Sync), func(d director.SyncDaemon) bool { return d.Role == role })
	if len(left) < len(t.state.Sync) {
		t.state.Sync = left
		return nil
	}
	missing := &refusal{of: language.StopDaemon, errno: syscall.ESRCH}
	if t.foreignSync[role] {
		missing.because = []string{"the " + string(role) + " sync daemon is in the kernel, and not Shunt's"}
	}
	return missing
}
