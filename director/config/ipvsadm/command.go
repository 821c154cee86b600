package ipvsadm

import (
	"net/netip"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/realserver"
)

// Operation is what a command does. The numbers from AddService to Zero are
// ipvsadm's, less one (ipvsadm.c, CMD_ADD to CMD_ZERO), and index its tables.
type Operation uint8

// The operations.
const (
	AddService    Operation = iota // -A
	EditService                    // -E
	DeleteService                  // -D
	Flush                          // -C
	List                           // -L, -l, and no argument at all
	AddServer                      // -a
	DeleteServer                   // -d
	EditServer                     // -e
	SetTimeouts                    // --set
	StartDaemon                    // --start-daemon
	StopDaemon                     // --stop-daemon
	Restore                        // -R
	Save                           // -S
	Zero                           // -Z
	Help                           // -h: Usage, on the standard output
	Version                        // -v: VersionText, on the standard output
)

// Command is a command line of ipvsadm that it accepts: what is left to refuse
// is the kernel's. Comparable. Fields that are of no account to the operation
// are zero, or have what the command line said without being asked.
type Command struct {
	Operation Operation
	// Given are the options on the command line, so that what was left to its
	// default can be told from what was not.
	Given Option
	// Service is that of the commands on services and servers, and of list and
	// zero if Given has OptService; else these are about all services.
	Service Service
	Server  Server   // of AddServer, EditServer and DeleteServer
	Set     Timeouts // of SetTimeouts
	Daemon  Daemon   // of StartDaemon; StopDaemon has its Role alone
}

// Has reports whether one of the options was given.
func (c Command) Has(options Option) bool { return c.Given&options != 0 }

// Service is a virtual service as ipvsadm hands it to the kernel.
type Service struct {
	// Protocol is TCP for a firewall mark, as in ipvsadm, and without meaning.
	Protocol conntrack.Protocol
	// Address is the virtual address; for a firewall mark 0.0.0.0:0, or [::]:0 if
	// it is of IPv6 (-6).
	Address   netip.AddrPort
	Mark      uint32 // 0: by address
	Scheduler string // at most 15 bytes; wlc by default with AddService and EditService
	Flags     Flags
	// Persistent is -p; Timeout its seconds.
	Persistent bool
	Timeout    uint32
	// Netmask is -M, for persistent services: for IPv4 the mask as a number
	// (255.255.255.0 is 0xffffff00), for IPv6 the length of the prefix.
	Netmask   uint32
	Engine    string // --pe, at most 16 bytes
	OnePacket bool   // -o
}

// Flags are a scheduler's flags, in the kernel's numbers.
type Flags uint8

// The flags; sh and mh call the first two by other names.
const (
	Flag1 Flags = 0x08 // IP_VS_SVC_F_SCHED1: flag-1, sh-fallback, mh-fallback
	Flag2 Flags = 0x10 // IP_VS_SVC_F_SCHED2: flag-2, sh-port, mh-port
	Flag3 Flags = 0x20 // IP_VS_SVC_F_SCHED3: flag-3
)

// Server is a server as ipvsadm hands it to the kernel. The port is the
// service's for DR and Tunnel, and where none was given; 0 if the server was
// named before its service.
type Server = realserver.Server

// Timeouts are what --set gives, in seconds; 0 leaves the kernel's.
type Timeouts struct{ TCP, TCPFin, UDP uint32 }

// Role is a sync daemon's.
type Role string

// The roles.
const (
	Master Role = "master"
	Backup Role = "backup"
)

// Daemon is a sync daemon; zero fields are the kernel's to choose.
type Daemon struct {
	Role      Role
	Interface string // eth0 by default with StartDaemon; at most 15 bytes
	ID        uint8
	MaxLength uint16
	Group     netip.Addr
	Port      uint16
	TTL       uint8
}
