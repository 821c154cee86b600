package ipvsadm

// argument says whether an option has one.
type argument uint8

const (
	argumentNone argument = iota
	argumentNeeded
	argumentOptional
)

// option is one that ipvsadm knows (ipvsadm.c, options_table).
type option struct {
	long     string
	short    byte // 0: none
	argument argument
	// isCommand is whether it must come first, and nowhere else; then it is the
	// operation.
	isCommand bool
	operation Operation
	// kind is what is noted of it, and refused twice; 0: nothing.
	kind Option
	// read takes the argument, nil if none was given; nil: nothing to do.
	read func(*reading, *string) error
}

// options are tried in this order.
var options = [...]option{
	command("add-service", 'A', AddService),
	command("edit-service", 'E', EditService),
	command("delete-service", 'D', DeleteService),
	command("clear", 'C', Flush),
	command("list", 'L', List),
	command("list", 'l', List),
	command("zero", 'Z', Zero),
	command("add-server", 'a', AddServer),
	command("edit-server", 'e', EditServer),
	command("delete-server", 'd', DeleteServer),
	command("set", 0, SetTimeouts),
	command("help", 'h', Help),
	command("version", 'v', Version),
	command("restore", 'R', Restore),
	command("save", 'S', Save),
	{long: "start-daemon", argument: argumentNeeded, isCommand: true, operation: StartDaemon},
	{long: "stop-daemon", argument: argumentNeeded, isCommand: true, operation: StopDaemon},

	{long: "tcp-service", short: 't', argument: argumentNeeded, kind: OptService, read: (*reading).tcp},
	{long: "udp-service", short: 'u', argument: argumentNeeded, kind: OptService, read: (*reading).udp},
	{long: "sctp-service", argument: argumentNeeded, kind: OptService, read: (*reading).sctp},
	{long: "fwmark-service", short: 'f', argument: argumentNeeded, kind: OptService, read: (*reading).mark},
	{long: "scheduler", short: 's', argument: argumentNeeded, kind: OptScheduler, read: (*reading).scheduler},
	{long: "persistent", short: 'p', argument: argumentOptional, kind: OptPersistent, read: (*reading).persistent},
	{long: "netmask", short: 'M', argument: argumentNeeded, kind: OptNetmask, read: (*reading).netmask},
	{long: "real-server", short: 'r', argument: argumentNeeded, kind: OptServer, read: (*reading).server},
	{long: "masquerading", short: 'm', kind: OptForward, read: (*reading).nat},
	{long: "ipip", short: 'i', kind: OptForward, read: (*reading).tunnel},
	{long: "gatewaying", short: 'g', kind: OptForward, read: (*reading).dr},
	{long: "weight", short: 'w', argument: argumentNeeded, kind: OptWeight, read: (*reading).weight},
	{long: "u-threshold", short: 'x', argument: argumentNeeded, kind: OptUpper, read: (*reading).upper},
	{long: "l-threshold", short: 'y', argument: argumentNeeded, kind: OptLower, read: (*reading).lower},
	{long: "numeric", short: 'n', kind: OptNumeric},
	{long: "connection", short: 'c', kind: OptConnection},
	{long: "mcast-interface", argument: argumentNeeded, kind: OptInterface, read: (*reading).multicastInterface},
	{long: "syncid", argument: argumentNeeded, kind: OptSyncID, read: (*reading).syncID},
	{long: "timeout", kind: OptTimeout},
	{long: "daemon", kind: OptDaemon},
	{long: "stats", kind: OptStats},
	{long: "rate", kind: OptRate},
	{long: "thresholds", kind: OptThresholds},
	{long: "persistent-conn", kind: OptPersistentConn},
	{long: "nosort", kind: OptNoSort},
	{long: "sort"}, // the default
	{long: "exact", short: 'X', kind: OptExact},
	{long: "ipv6", short: '6', read: (*reading).ipv6},
	{long: "ops", short: 'o', kind: OptOnePacket, read: (*reading).onePacket},
	{long: "pe", argument: argumentNeeded, kind: OptEngine, read: (*reading).engine},
	{long: "sched-flags", short: 'b', argument: argumentNeeded, kind: OptFlags, read: (*reading).schedulerFlags},
	{long: "mcast-group", argument: argumentNeeded, kind: OptGroup, read: (*reading).multicastGroup},
	{long: "mcast-port", argument: argumentNeeded, kind: OptPort, read: (*reading).multicastPort},
	{long: "mcast-ttl", argument: argumentNeeded, kind: OptTTL, read: (*reading).multicastTTL},
	{long: "sync-maxlen", argument: argumentNeeded, kind: OptMaxLength, read: (*reading).maxLength},
	{long: "tun-info", kind: OptTunInfo},
	{long: "tun-type", argument: argumentNeeded, kind: OptTunType, read: (*reading).tunnelType},
	{long: "tun-port", argument: argumentNeeded, kind: OptTunPort, read: (*reading).tunnelPort},
	{long: "tun-nocsum", kind: OptTunNoChecksum, read: (*reading).tunnelNoChecksum},
	{long: "tun-csum", kind: OptTunChecksum, read: (*reading).tunnelChecksum},
	{long: "tun-remcsum", kind: OptTunRemoteChecksum, read: (*reading).tunnelRemoteChecksum},
}

func command(long string, short byte, operation Operation) option {
	return option{long: long, short: short, isCommand: true, operation: operation}
}

func findOption(matches func(*option) bool) *option {
	for i := range options {
		if matches(&options[i]) {
			return &options[i]
		}
	}
	return nil
}
