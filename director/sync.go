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
	Interface string // of the multicast; empty: eth0
	ID        uint8  // only daemons of one id hear each other; a backup of id 0 hears all
	// MaxLength is the most bytes of a message; 0: what the kernel takes from the
	// interface's MTU, which is what is found then.
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

// The range of SyncDaemon.MaxLength, for a backup and at all: what a UDP packet of
// IPv4 holds. That of IPv6 holds 20 bytes less.
const (
	MinSyncBackupLength = 1024
	MaxSyncLength       = 65507
)

// Normalize returns a copy with the defaults filled in, but for MaxLength, which
// is moved into its range as the kernel does (kernel: ip_vs_sync.c,
// start_sync_thread).
func (s SyncDaemon) Normalize() SyncDaemon {
	s.Interface = cmp.Or(s.Interface, DefaultSyncInterface)
	if !s.Group.IsValid() {
		s.Group = DefaultSyncGroup
	}
	s.Port = cmp.Or(s.Port, DefaultSyncPort)
	s.TTL = cmp.Or(s.TTL, DefaultSyncTTL)
	most := uint16(MaxSyncLength)
	if s.Group.Is6() {
		most -= 20
	}
	switch {
	case s.MaxLength == 0:
	case s.Role == SyncBackup:
		s.MaxLength = max(MinSyncBackupLength, min(s.MaxLength, most))
	default:
		s.MaxLength = min(s.MaxLength, most)
	}
	return s
}

// As reports whether the daemon found is as wanted: any length will do where none
// is wanted.
func (s SyncDaemon) As(wanted SyncDaemon) bool {
	if wanted.MaxLength == 0 {
		s.MaxLength = 0
	}
	return s == wanted
}

func (s SyncDaemon) fields() []field {
	length := ""
	if s.MaxLength != 0 {
		length = fmt.Sprint(s.MaxLength)
	}
	return []field{
		{"interface", s.Interface},
		{"id", fmt.Sprint(s.ID)},
		{"max-length", length},
		{"group", s.Group.String()},
		{"port", fmt.Sprint(s.Port)},
		{"ttl", fmt.Sprint(s.TTL)},
	}
}

// String describes the daemon, as "master on eth0, id 1, 224.0.0.81:8848, ttl 1".
func (s SyncDaemon) String() string {
	text := fmt.Sprintf("%s on %s, id %d, %s, ttl %d", s.Role, s.Interface, s.ID, netip.AddrPortFrom(s.Group, s.Port), s.TTL)
	if s.MaxLength != 0 {
		text += fmt.Sprintf(", %d bytes at most", s.MaxLength)
	}
	return text
}

func compareSync(a, b SyncDaemon) int { return -cmp.Compare(a.Role, b.Role) }

// sync checks the daemons.
func (c *checker) sync(state State) {
	daemons := state.Sync
	for i, s := range daemons {
		c.enter(-1, fmt.Sprintf("sync[%d]", i))
		if s.Role != SyncMaster && s.Role != SyncBackup {
			c.report("role", "unknown role %q: want master or backup", s.Role)
		} else if first := slices.IndexFunc(daemons, func(o SyncDaemon) bool { return o.Role == s.Role }); first < i {
			c.report("role", "sync[%d] is the %s already", first, s.Role)
		}
		if !ValidInterface(s.Interface) {
			c.report("interface", "%q is not an interface name: want 1 to 15 characters without spaces, '/' and ':'", s.Interface)
		}
		if s.Group.IsValid() && (!s.Group.IsMulticast() || s.Group.Zone() != "") {
			c.report("group", "%s is not a multicast address", s.Group)
		}
	}
	if len(daemons) == 0 {
		return
	}
	c.enter(-1, "sync")
	for _, service := range state.Services {
		for _, server := range service.Servers {
			if service.Key.mixes(server) {
				// Kernel: ip_vs_ctl.c, ip_vs_genl_new_daemon and ip_vs_genl_set_cmd.
				c.report("sync", "server %s of %s is of another address family than the service: the sync daemons cannot carry that", server.Address.Addr(), service.Key)
			}
		}
	}
}

// ValidInterface reports whether an interface can have the name (kernel:
// net/core/dev.c, dev_valid_name).
func ValidInterface(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}

// ourSync returns those of the daemons found whose roles one of the states has: of
// another one somebody else is the owner.
func ourSync(found []SyncDaemon, states ...State) []SyncDaemon {
	return slices.DeleteFunc(slices.Clone(found), func(s SyncDaemon) bool {
		return !slices.ContainsFunc(states, func(state State) bool { return state.hasSync(s.Role) })
	})
}

// foreignSync returns the others.
func foreignSync(found []SyncDaemon, state State) []SyncDaemon {
	return slices.DeleteFunc(slices.Clone(found), func(s SyncDaemon) bool { return state.hasSync(s.Role) })
}

// hasSync reports whether the state has a daemon of the role.
func (s State) hasSync(role SyncRole) bool {
	return slices.ContainsFunc(s.Sync, func(d SyncDaemon) bool { return d.Role == role })
}

// planSync returns the steps that make the daemons of found those desired. One with
// other settings is stopped and started: the kernel cannot change one. It has
// daemons and servers of another family never at a time, so stops go before what
// adds servers, and starts behind what removes them.
func planSync(desired, found []SyncDaemon) (stops, starts []Operation) {
	for _, was := range found {
		if !slices.ContainsFunc(desired, was.As) {
			stops = append(stops, StopSync{Role: was.Role})
		}
	}
	for _, want := range desired {
		if !slices.ContainsFunc(found, func(was SyncDaemon) bool { return was.As(want) }) {
			starts = append(starts, StartSync{Daemon: want})
		}
	}
	return stops, starts
}
