package event

import "log/slog"

// Name identifies a kind of event. Names are stable: they appear in the API, in
// metrics and in operators' alerts.
type Name string

// The names.
const (
	Started  Name = "started"
	Stopping Name = "stopping"
	Detached Name = "detached"

	Change       Name = "change"
	ChangeFailed Name = "change-failed"
	RolledBack   Name = "rolled-back"
	Reload       Name = "reload"
	ReloadFailed Name = "reload-failed"

	Drift        Name = "drift"
	Repaired     Name = "repaired"
	RepairFailed Name = "repair-failed"
	ForeignFound Name = "foreign-found"
	ForeignGone  Name = "foreign-gone"

	ServerReachable   Name = "server-reachable"
	ServerUnreachable Name = "server-unreachable"

	ServerUp        Name = "server-up"
	ServerDown      Name = "server-down"
	ServerSuspended Name = "server-suspended"
	ServerAbsolved  Name = "server-absolved"
	ServerHeld      Name = "server-held"
	QuorumLost      Name = "quorum-lost"
	QuorumRegained  Name = "quorum-regained"
	PanicOn         Name = "panic-on"
	PanicOff        Name = "panic-off"
	NotifyFailed    Name = "notify-failed"
	HealthTrouble   Name = "health-trouble"

	DrainStarted   Name = "drain-started"
	DrainProgress  Name = "drain-progress"
	DrainFinished  Name = "drain-finished"
	DrainOverdue   Name = "drain-overdue"
	DrainKilled    Name = "drain-killed"
	DrainFailed    Name = "drain-failed"
	DrainCancelled Name = "drain-cancelled"
	DrainCut       Name = "drain-cut"

	Migrated        Name = "migrated"
	MigrationFailed Name = "migration-failed"

	TablePressure Name = "table-pressure"
	TableRelieved Name = "table-relieved"
	TableFull     Name = "table-full"
	TableHasRoom  Name = "table-has-room"
	TableResized  Name = "table-resized"

	ConnectionsLost Name = "connections-lost"

	LimitHit      Name = "limit-hit"
	LimitHitEnded Name = "limit-hit-ended"
	GuardOn       Name = "guard-on"
	GuardOff      Name = "guard-off"

	DropsStarted Name = "drops-started"
	DropsEnded   Name = "drops-ended"
	Fault        Name = "fault"

	InterfaceAttached Name = "interface-attached"
	InterfaceDetached Name = "interface-detached"

	ServerRegistered    Name = "server-registered"
	ServerLeaving       Name = "server-leaving"
	ServerLeft          Name = "server-left"
	LeaseExpired        Name = "lease-expired"
	RegistrationRefused Name = "registration-refused"
	ServerReported      Name = "server-reported"
	LeasesDamaged       Name = "leases-damaged"

	StoreRepaired Name = "store-repaired"
	AccessRefused Name = "access-refused"
	ObserveFailed Name = "observe-failed"
)

// Info describes a name.
type Info struct {
	Name  Name
	Level slog.Level // of the log line that comes with it
	Help  string
}

// Names returns every name, in the order of the documentation.
func Names() []Info {
	return []Info{
		{Started, slog.LevelInfo, "the daemon is ready"},
		{Stopping, slog.LevelInfo, "the daemon stops; traffic flows on"},
		{Detached, slog.LevelWarn, "the data plane was removed from the kernel"},
		{Change, slog.LevelInfo, "a revision was made and the kernel follows it"},
		{ChangeFailed, slog.LevelError, "a change failed and was undone; nothing changed"},
		{RolledBack, slog.LevelError, "the steps a failed change had made were undone, or could not be"},
		{Reload, slog.LevelInfo, "the configuration file was applied, by SIGHUP or shunt reload"},
		{ReloadFailed, slog.LevelError, "the configuration file could not be applied, by SIGHUP or shunt reload; nothing changed"},
		{Drift, slog.LevelWarn, "the kernel differs from what is desired: somebody changed it"},
		{Repaired, slog.LevelInfo, "a difference in the kernel was repaired"},
		{RepairFailed, slog.LevelError, "a difference in the kernel could not be repaired; it is tried again"},
		{ForeignFound, slog.LevelWarn, "the kernel has a service that Shunt does not manage; it is left alone"},
		{ForeignGone, slog.LevelInfo, "a service that Shunt does not manage is gone or was adopted"},
		{ServerReachable, slog.LevelInfo, "a server has a next hop and gets new connections"},
		{ServerUnreachable, slog.LevelWarn, "a server has no next hop and gets no new connections"},
		{ServerUp, slog.LevelInfo, "a server is up: it gets new connections, for all that orders and checks say"},
		{ServerDown, slog.LevelWarn, "a server is down, by its checks, by an order or for maintenance: it gets no new connections"},
		{ServerSuspended, slog.LevelWarn, "packets told that a server does not answer: it gets no new connections until its checks have looked"},
		{ServerAbsolved, slog.LevelInfo, "a suspended server gets new connections again"},
		{ServerHeld, slog.LevelWarn, "a server went up and down too often: it is held down for a while"},
		{QuorumLost, slog.LevelError, "too few of a service's servers are up; its sorry servers, if it has some, stand in"},
		{QuorumRegained, slog.LevelInfo, "enough of a service's servers are up again"},
		{PanicOn, slog.LevelError, "so many of a service's servers look dead that the checks are doubted: all are offered"},
		{PanicOff, slog.LevelInfo, "the checks of a service are believed again"},
		{NotifyFailed, slog.LevelWarn, "a command or pipe that is told of changes could not be told"},
		{HealthTrouble, slog.LevelError, "something that follows from checks, or what they need, could not be done; it is tried again"},
		{DrainStarted, slog.LevelInfo, "a server is being drained, or still is after a restart"},
		{DrainProgress, slog.LevelInfo, "a draining server has other connections left than it had"},
		{DrainFinished, slog.LevelInfo, "a draining server has no connection left"},
		{DrainOverdue, slog.LevelWarn, "a draining server has connections left at its deadline, and none is removed"},
		{DrainKilled, slog.LevelWarn, "what a draining server had left at its deadline was removed"},
		{DrainFailed, slog.LevelError, "what a draining server has left could not be removed; it is tried again"},
		{DrainCancelled, slog.LevelInfo, "a drain was cancelled before it was through; the server gets new connections"},
		{DrainCut, slog.LevelWarn, "a draining server was removed before it was through, and what it had left with it"},
		{Migrated, slog.LevelInfo, "a service came from the kernel's IPVS to XDP with its connections"},
		{MigrationFailed, slog.LevelWarn, "a service was not moved from the kernel's IPVS, or not wholly: the message says who serves it"},
		{TablePressure, slog.LevelWarn, "a connection table is filling"},
		{TableRelieved, slog.LevelInfo, "a connection table is filling no more"},
		{TableFull, slog.LevelError, "a connection table has no room for new connections: they are refused, or served without state"},
		{TableHasRoom, slog.LevelInfo, "new connections have found room in a connection table for a while"},
		{TableResized, slog.LevelInfo, "the connection tables have another size"},
		{ConnectionsLost, slog.LevelWarn, "connections found no room in the resized tables"},
		{LimitHit, slog.LevelWarn, "new connections of a service are refused for one of its limits"},
		{LimitHitEnded, slog.LevelInfo, "no new connection of a service was refused for this limit for a while"},
		{GuardOn, slog.LevelWarn, "the guard of a service went on: tcp clients have to show first that they are real"},
		{GuardOff, slog.LevelInfo, "the guard of a service went off"},
		{DropsStarted, slog.LevelWarn, "packets are dropped for a reason for which none were"},
		{DropsEnded, slog.LevelInfo, "no packet was dropped for this reason for a while"},
		{Fault, slog.LevelError, "something was counted that cannot happen: a bug"},
		{InterfaceAttached, slog.LevelInfo, "the fast path runs on an interface"},
		{InterfaceDetached, slog.LevelError, "the fast path does not run on an interface any more"},
		{ServerRegistered, slog.LevelInfo, "an agent registered its server, or registered it on other terms"},
		{ServerLeaving, slog.LevelInfo, "an agent asks for no new connections to its server: it is about to leave"},
		{ServerLeft, slog.LevelInfo, "an agent took its server away"},
		{LeaseExpired, slog.LevelWarn, "an agent did not renew its lease: its server is gone"},
		{RegistrationRefused, slog.LevelWarn, "a message of an agent was refused: the first time for its reason, the second, the fourth and so on; and once each run of an agent that another has followed"},
		{ServerReported, slog.LevelWarn, "enough agents reported a server unreachable: its checks are asked at once"},
		{LeasesDamaged, slog.LevelError, "the file of the leases could not be read and was set aside: agents register anew"},
		{StoreRepaired, slog.LevelWarn, "a damaged copy of the store was replaced by the good one"},
		{AccessRefused, slog.LevelWarn, "a caller of the API was refused: no or wrong credentials, or too small a role"},
		{ObserveFailed, slog.LevelError, "the data plane could not be read"},
	}
}
