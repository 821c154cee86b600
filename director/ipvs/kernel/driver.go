package kernel

import (
	"context"
	"iter"
	"net/netip"
	"time"
)

// Driver is the kernel's IPVS in one network namespace. Safe for concurrent use.
//
// Errors of the kernel are [*Error] and match [ErrNoService] and its like. A call
// whose context ends returns the context's error; what it asked for may or may
// not have happened. No call is idempotent: what is there cannot be made, what
// is not there cannot be removed.
type Driver interface {
	// Name returns the driver's name, "libipvs" or "genetlink".
	Name() string
	// Info returns the version of IPVS and the size of its connection table.
	Info(ctx context.Context) (Info, error)

	// Services returns all services with their servers. The kernel lists services
	// and the servers of each one after another, so that what is changed meanwhile
	// by others may be found in part; a service that vanishes meanwhile is left
	// out, and each server comes once.
	Services(ctx context.Context) ([]ServiceEntry, error)
	// Service returns one service with its servers.
	Service(ctx context.Context, id ServiceID) (ServiceEntry, error)
	NewService(ctx context.Context, s Service) error
	// SetService replaces all of a service but its identity. It keeps its servers.
	SetService(ctx context.Context, s Service) error
	// DeleteService deletes a service with its servers.
	DeleteService(ctx context.Context, id ServiceID) error

	// NewServer puts a server at the head of the service's list.
	NewServer(ctx context.Context, service ServiceID, s Server) error
	// SetServer replaces all of a server but its address.
	SetServer(ctx context.Context, service ServiceID, s Server) error
	DeleteServer(ctx context.Context, service ServiceID, server netip.AddrPort) error

	// Flush deletes all services.
	Flush(ctx context.Context) error
	// Zero resets counters and rates of the service and its servers; of all, and of
	// the totals, if id is the zero value.
	Zero(ctx context.Context, id ServiceID) error

	Timeouts(ctx context.Context) (Timeouts, error)
	// SetTimeouts leaves those as they are that are 0.
	SetTimeouts(ctx context.Context, t Timeouts) error

	// SyncDaemons returns those that run, the master first.
	SyncDaemons(ctx context.Context) ([]SyncDaemon, error)
	StartSync(ctx context.Context, d SyncDaemon) error
	StopSync(ctx context.Context, role SyncRole) error

	// Connections reads the connections and templates as they are asked for, in no
	// order. A line that cannot be read ends it with an error that names the line.
	Connections(ctx context.Context) iter.Seq2[Connection, error]

	// Close gives up the driver's sockets. Calls after it fail. Closing twice is
	// harmless.
	Close() error
}

// Info is what the kernel says of IPVS itself.
type Info struct {
	Version   string // "1.2.1"
	TableSize uint64 // buckets of the connection table
}

// Timeouts are those of IPVS that can be set: of TCP connections, of TCP
// connections after a FIN, and of UDP. In whole seconds.
type Timeouts struct {
	TCP, TCPFin, UDP time.Duration
}

// SyncRole is what a sync daemon does. The numbers are the kernel's.
type SyncRole uint8

// The roles.
const (
	Master SyncRole = 1 // IP_VS_STATE_MASTER
	Backup SyncRole = 2 // IP_VS_STATE_BACKUP
)

// String returns ipvsadm's word.
func (r SyncRole) String() string {
	if r == Master {
		return "master"
	}
	return "backup"
}

// SyncDaemon is a sync daemon of the kernel. When one is started, MaxLength 0,
// Port 0, TTL 0 and the zero Group mean the kernel's defaults; as listed they are
// what is in use (kernel: net/netfilter/ipvs/ip_vs_sync.c, start_sync_thread).
type SyncDaemon struct {
	Role      SyncRole
	Interface string
	ID        uint8  // a backup whose ID is 0 takes what any master sends
	MaxLength uint16 // of a message, in octets
	Group     netip.Addr
	Port      uint16
	TTL       uint8
}

// Connection is a connection, or a template of persistence.
type Connection struct {
	Protocol Protocol // 0 of a template of a service by mark
	Client   netip.AddrPort
	// Virtual is 0.0.0.0:0 or [::]:0 of a template of a service by mark.
	Virtual netip.AddrPort
	Mark    uint32 // of a template of a service by mark
	Server  netip.AddrPort
	State   string // the kernel's name: "ESTABLISHED"; of a template NONE or ASSURED
	// Expires is how long it lives without packets, in whole seconds, rounded
	// down.
	Expires  time.Duration
	Template bool
	// Engine and EngineData are a persistence engine's: "sip" and a Call-ID.
	Engine, EngineData string
}
