package director

import (
	"fmt"
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// Operation is one step of a plan. The set is closed: a data plane switches
// over the types below.
type Operation interface {
	// String says what the step does, as "add server 10.0.0.1:80 to tcp://…".
	fmt.Stringer
	operation()
}

// AddService adds a service; its Servers are added by AddServer steps.
type AddService struct{ Service Service }

// EditService changes the settings of the service with the same key; its
// Servers are not looked at.
type EditService struct{ Service Service }

// RemoveService removes a service with its servers. Its connections' packets
// are dropped from then on.
type RemoveService struct{ Key ServiceKey }

// AddServer adds a server at the head of the service's list.
type AddServer struct {
	Key    ServiceKey
	Server realserver.Server
}

// EditServer changes the server with the same address. Connections keep the
// method they were created with.
type EditServer struct {
	Key    ServiceKey
	Server realserver.Server
}

// RemoveServer removes a server; its connections' packets are dropped from then
// on.
type RemoveServer struct {
	Key     ServiceKey
	Address netip.AddrPort
}

// SetTimeouts sets the connection timeouts.
type SetTimeouts struct{ Timeouts conntrack.Timeouts }

// StartSync starts a sync daemon.
type StartSync struct{ Daemon SyncDaemon }

// StopSync stops the sync daemon of the role.
type StopSync struct{ Role SyncRole }

func (AddService) operation()    {}
func (EditService) operation()   {}
func (RemoveService) operation() {}
func (AddServer) operation()     {}
func (EditServer) operation()    {}
func (RemoveServer) operation()  {}
func (SetTimeouts) operation()   {}
func (StartSync) operation()     {}
func (StopSync) operation()      {}

func (o AddService) String() string    { return fmt.Sprintf("add service %s", o.Service.Key) }
func (o EditService) String() string   { return fmt.Sprintf("edit service %s", o.Service.Key) }
func (o RemoveService) String() string { return fmt.Sprintf("remove service %s", o.Key) }
func (o AddServer) String() string {
	return fmt.Sprintf("add server %s to %s", o.Server.Address, o.Key)
}

func (o EditServer) String() string {
	return fmt.Sprintf("edit server %s of %s", o.Server.Address, o.Key)
}

func (o RemoveServer) String() string {
	return fmt.Sprintf("remove server %s from %s", o.Address, o.Key)
}
func (o SetTimeouts) String() string { return fmt.Sprintf("set timeouts %s", o.Timeouts) }
func (o StartSync) String() string   { return fmt.Sprintf("start sync daemon %s", o.Daemon.Role) }
func (o StopSync) String() string    { return fmt.Sprintf("stop sync daemon %s", o.Role) }
