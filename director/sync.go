package director

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// SyncDaemon is one of the kernel's two daemons that replicate connections
// between directors by multicast: the master sends, the backup receives (kernel:
// net/netfilter/ipvs/ip_vs_sync.c; ipvsadm --start-daemon). Comparable.
type SyncDaemon struct {
	Role      SyncRole
	Interface string // of the multicast
	ID        uint8  // only daemons of one id hear each other; a backup of id 0 hears all
	// MaxLength is the most bytes of a message; 0: what the interface's MTU allows.
	MaxLength uint16
	// Group, Port and TTL are the multicast's; zero: 224.0.0.81, 8848 and 1.
	Group netip.Addr
	Port  uint16
	TTL   uint8
}

// SyncRole says which of the two daemons.
type SyncRole string

// The roles; a director can have both.
const (
	SyncMaster SyncRole = "master"
	SyncBackup SyncRole = "backup"
)

// Defaults of a sync daemon (kernel: ip_vs_sync.c, start_sync_thread), ipvsadm's
// interface included.
const (
	DefaultSyncInterface = "eth0"
	DefaultSyncPort      = 8848 // IP_VS_SYNC_PORT
	DefaultSyncTTL       = 1
)

// DefaultSyncGroup is IP_VS_SYNC_GROUP.
var DefaultSyncGroup = netip.AddrFrom4([4]byte{224, 0, 0, 81})

// Normalize returns a copy with the defaults filled in, but for MaxLength: the
// kernel derives that from the interface.
func (s SyncDaemon) Normalize() SyncDaemon {
	s.Interface = cmp.Or(s.Interface, DefaultSyncInterface)
	if !s.Group.IsValid() {
		s.Group = DefaultSyncGroup
	}
	s.Port = cmp.Or(s.Port, DefaultSyncPort)
	s.TTL = cmp.Or(s.TTL, DefaultSyncTTL)
	return s
}

// String describes the daemon, as "master on eth0, id 1, to 224.0.0.81:8848".
func (s SyncDaemon) String() string {
	text := fmt.Sprintf("%s on %s, id %d, %s, ttl %d", s.Role, s.Interface, s.ID, netip.AddrPortFrom(s.Group, s.Port), s.TTL)
	if s.MaxLength != 0 {
		text += fmt.Sprintf(", %d bytes at most", s.MaxLength)
	}
	return text
}

func compareSync(a, b SyncDaemon) int { return -cmp.Compare(a.Role, b.Role) }

// sync checks the daemons.
func (c *checker) sync(daemons []SyncDaemon) {
	for i, s := range daemons {
		c.enter(-1, fmt.Sprintf("sync[%d]", i))
		if s.Role != SyncMaster && s.Role != SyncBackup {
			c.report("role", "unknown role %q: want master or backup", s.Role)
		} else if first := slices.IndexFunc(daemons, func(o SyncDaemon) bool { return o.Role == s.Role }); first < i {
			c.report("role", "sync[%d] is the %s already", first, s.Role)
		}
		// Kernel: IP_VS_IFNAME_MAXLEN with its zero, and net/core/dev.c, dev_valid_name.
		if s.Interface == "" || len(s.Interface) > 15 || strings.ContainsAny(s.Interface, "/: \t\n\v\f\r") {
			c.report("interface", "%q is not an interface name", s.Interface)
		}
		if s.MaxLength > MaxSyncLength {
			c.report("max-length", "%d bytes: want %d at most", s.MaxLength, MaxSyncLength)
		}
		if s.Group.IsValid() && (!s.Group.IsMulticast() || s.Group.Zone() != "") {
			c.report("group", "%s is not a multicast address", s.Group)
		}
	}
}

// MaxSyncLength is the largest SyncDaemon.MaxLength: that of a UDP packet.
const MaxSyncLength = 65507

// ourSync returns those of the daemons found whose roles one of the states has: of
// another one somebody else is the owner.
func ourSync(found []SyncDaemon, states ...State) []SyncDaemon {
	return slices.DeleteFunc(slices.Clone(found), func(s SyncDaemon) bool {
		return !slices.ContainsFunc(states, func(state State) bool {
			return slices.ContainsFunc(state.Sync, func(o SyncDaemon) bool { return o.Role == s.Role })
		})
	})
}

// planSync returns the steps that make the daemons of found those desired; stops
// come first. One with other settings is stopped and started: the kernel cannot
// change one.
func planSync(desired, found []SyncDaemon) (ops []Operation) {
	var starts []Operation
	for _, was := range found {
		if !slices.Contains(desired, was) {
			ops = append(ops, StopSync{Role: was.Role})
		}
	}
	for _, want := range desired {
		if !slices.Contains(found, want) {
			starts = append(starts, StartSync{Daemon: want})
		}
	}
	return append(ops, starts...)
}
