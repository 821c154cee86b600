package ipvsadm

import (
	"math/bits"

	"github.com/shunt-lb/shunt/realserver"
)

// operationNames are ipvsadm's words for the commands in its messages.
var operationNames = [...]string{
	"add-service", "edit-service", "delete-service", "flush", "list", "add-server", "delete-server", "edit-server", "set", "start-daemon",
	"stop-daemon", "restore", "save", "zero", "help", "version",
}

// String returns ipvsadm's word for the operation.
func (o Operation) String() string {
	if int(o) < len(operationNames) {
		return operationNames[o]
	}
	return ""
}

// rule says which options a command, or a type of tunnel, goes with; all others
// it refuses.
type rule struct {
	needed    Option
	allowed   Option
	exclusive Option // one of these at most
}

const (
	serviceOptions = OptScheduler | OptPersistent | OptNetmask | OptOnePacket | OptEngine | OptFlags
	tunnelOptions  = OptTunPort | OptTunNoChecksum | OptTunChecksum | OptTunRemoteChecksum
	serverOptions  = OptForward | OptWeight | OptUpper | OptLower | OptTunType | tunnelOptions
	listOptions    = OptNumeric | OptStats | OptRate | OptThresholds | OptPersistentConn | OptNoSort | OptSyncID | OptExact | OptTunInfo
	daemonOptions  = OptInterface | OptSyncID | OptGroup | OptPort | OptTTL | OptMaxLength
)

// commandRules are ipvsadm.c's commands_v_options.
var commandRules = [...]rule{
	AddService:    {needed: OptService, allowed: serviceOptions},
	EditService:   {needed: OptService, allowed: serviceOptions},
	DeleteService: {needed: OptService},
	Flush:         {},
	List:          {allowed: listOptions, exclusive: OptConnection | OptService | OptTimeout | OptDaemon},
	AddServer:     {needed: OptService | OptServer, allowed: serverOptions},
	DeleteServer:  {needed: OptService | OptServer},
	EditServer:    {needed: OptService | OptServer, allowed: serverOptions},
	SetTimeouts:   {},
	StartDaemon:   {allowed: daemonOptions},
	StopDaemon:    {allowed: OptSyncID},
	Restore:       {},
	Save:          {allowed: OptNumeric},
	Zero:          {allowed: OptService},
}

// tunnelRules are ipvsadm.c's tunnel_types_v_options; only tunnelOptions are
// looked at.
var tunnelRules = [...]rule{
	realserver.TunnelIPIP: {},
	realserver.TunnelGUE:  {needed: OptTunPort, exclusive: OptTunNoChecksum | OptTunChecksum | OptTunRemoteChecksum},
	realserver.TunnelGRE:  {exclusive: OptTunNoChecksum | OptTunChecksum},
}

// check returns what is wrong first, in the order of the options' kinds; name
// and noun say what the rule is of.
func (r rule) check(given Option, name, noun string) error {
	var first Option // of the exclusive ones
	for left := given | r.needed; left != 0; {
		o := Option(1) << bits.TrailingZeros64(uint64(left))
		left &^= o
		switch {
		case given&o == 0:
			return fail("You need to supply the '%s' option for the '%s' %s", o, name, noun)
		case (r.needed|r.allowed|r.exclusive)&o == 0:
			return fail("Illegal '%s' option with the '%s' %s", o, name, noun)
		case r.exclusive&o == 0:
		case first != 0:
			return fail("The option '%s' conflicts with the '%s' option in the '%s' %s", o, first, name, noun)
		default:
			first = o
		}
	}
	return nil
}
