package ipvsadm

import "math/bits"

// Option is a set of kinds of options, as ipvsadm counts them: -t, -u,
// --sctp-service and -f are one kind, and so are -g, -i and -m. --sort and -6 are
// none.
type Option uint64

// The kinds, in the order in which they are checked (ipvsadm.c, OPT_NUMERIC to
// OPT_TUN_REMCSUM).
const (
	OptNumeric Option = 1 << iota
	OptConnection
	OptService
	OptScheduler
	OptPersistent
	OptNetmask
	OptServer
	OptForward
	OptWeight
	OptUpper
	OptLower
	OptInterface
	OptTimeout
	OptDaemon
	OptStats
	OptRate
	OptThresholds
	OptPersistentConn
	OptNoSort
	OptSyncID
	OptExact
	OptOnePacket
	OptEngine
	OptFlags
	OptGroup
	OptPort
	OptTTL
	OptMaxLength
	OptTunInfo
	OptTunType
	OptTunPort
	OptTunNoChecksum
	OptTunChecksum
	OptTunRemoteChecksum
	endOfOptions
)

// optionNames are ipvsadm's words for the kinds in its messages.
var optionNames = [...]string{
	"numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server", "forwarding-method", "weight",
	"u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon", "stats", "rate", "thresholds", "persistent-conn", "nosort",
	"syncid", "exact", "ops", "pe", "sched-flags", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "tun-info", "tun-type",
	"tun-port", "tun-nocsum", "tun-csum", "tun-remcsum",
}

// String returns ipvsadm's word for a single kind; that of the first of several.
func (o Option) String() string {
	if o == 0 || o >= endOfOptions {
		return ""
	}
	return optionNames[bits.TrailingZeros64(uint64(o))]
}
