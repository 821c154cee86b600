package kernel

import (
	"errors"
	"syscall"
)

// What the kernel's refusals mean; match with errors.Is. The errno matches too.
var (
	ErrServiceExists = errors.New("the service exists already")
	ErrNoService     = errors.New("there is no such service")
	ErrServerExists  = errors.New("the service has this server already")
	ErrNoServer      = errors.New("the service has no such server")
	ErrNoScheduler   = errors.New("the kernel has no such scheduler or persistence engine: modprobe ip_vs_SCHEDULER or ip_vs_pe_ENGINE")
	ErrDaemonExists  = errors.New("a sync daemon of this role runs already")
	ErrNoDaemon      = errors.New("no sync daemon of this role runs")
	ErrNoInterface   = errors.New("there is no such network interface")
	ErrNotLoaded     = errors.New("the kernel has no IPVS: modprobe ip_vs, or use a kernel that has it")
	ErrPermission    = errors.New("permission denied: IPVS needs root (CAP_NET_ADMIN)")
	ErrRange         = errors.New("a number is out of range: weights must be below 2147483648, and the lower threshold must not exceed the upper one")
	ErrInvalid       = errors.New("the kernel takes it for invalid")
	ErrUnsupported   = errors.New("the kernel does not support this with the address's family")
	ErrNoMemory      = errors.New("the kernel is out of memory")
	ErrClosed        = errors.New("the driver is closed")
)

// Op is what was attempted.
type Op string

// The attempts.
const (
	OpOpen          Op = "open IPVS"
	OpInfo          Op = "read IPVS's version"
	OpListServices  Op = "list services"
	OpGetService    Op = "get service"
	OpNewService    Op = "add service"
	OpSetService    Op = "change service"
	OpDeleteService Op = "remove service"
	OpListServers   Op = "list servers of"
	OpNewServer     Op = "add server"
	OpSetServer     Op = "change server"
	OpDeleteServer  Op = "remove server"
	OpFlush         Op = "remove all services"
	OpZero          Op = "zero counters"
	OpTimeouts      Op = "read timeouts"
	OpSetTimeouts   Op = "set timeouts"
	OpSyncDaemons   Op = "list sync daemons"
	OpStartSync     Op = "start sync daemon"
	OpStopSync      Op = "stop sync daemon"
	OpConnections   Op = "list connections"
)

// Error is a refusal of the kernel's, or of what it was not even asked.
type Error struct {
	Op     Op
	Object string // "10.0.0.7:80 of tcp://192.0.2.1:443"; may be empty
	// Errno is the kernel's number. A kernel without IPVS has ENOPROTOOPT, as for
	// those who use its socket options.
	Errno syscall.Errno
	// Reason is what is wrong with the value, where it was not given to the kernel;
	// Errno is EINVAL then.
	Reason string
}

// Error says the act, its object, and what the kernel's number means there.
func (e *Error) Error() string {
	act := act(e.Op, e.Object)
	if e.Reason != "" {
		return act + ": " + e.Reason
	}
	if meaning := e.meaning(); meaning != nil {
		return act + ": " + meaning.Error()
	}
	return act + ": " + e.Errno.Error()
}

func act(op Op, object string) string {
	if object == "" {
		return string(op)
	}
	return string(op) + " " + object
}

// Unwrap returns the meaning, if there is one, and the errno.
func (e *Error) Unwrap() []error {
	if meaning := e.meaning(); meaning != nil {
		return []error{meaning, e.Errno}
	}
	return []error{e.Errno}
}

// meanings are what numbers mean to one operation (kernel:
// net/netfilter/ipvs/ip_vs_ctl.c; ipvsadm tells the same ones apart).
var meanings = map[Op]map[syscall.Errno]error{
	OpGetService:    {syscall.ESRCH: ErrNoService},
	OpNewService:    {syscall.EEXIST: ErrServiceExists, syscall.ENOENT: ErrNoScheduler},
	OpSetService:    {syscall.ESRCH: ErrNoService, syscall.ENOENT: ErrNoScheduler},
	OpDeleteService: {syscall.ESRCH: ErrNoService},
	OpListServers:   {syscall.ESRCH: ErrNoService},
	OpNewServer:     {syscall.ESRCH: ErrNoService, syscall.EEXIST: ErrServerExists},
	OpSetServer:     {syscall.ESRCH: ErrNoService, syscall.ENOENT: ErrNoServer},
	OpDeleteServer:  {syscall.ESRCH: ErrNoService, syscall.ENOENT: ErrNoServer},
	OpZero:          {syscall.ESRCH: ErrNoService},
	OpStartSync:     {syscall.EEXIST: ErrDaemonExists, syscall.ENODEV: ErrNoInterface},
	OpStopSync:      {syscall.ESRCH: ErrNoDaemon},
}

// common are what numbers mean to every operation.
var common = map[syscall.Errno]error{
	syscall.ENOPROTOOPT:  ErrNotLoaded,
	syscall.EPERM:        ErrPermission,
	syscall.EACCES:       ErrPermission,
	syscall.ENOMEM:       ErrNoMemory,
	syscall.ENOBUFS:      ErrNoMemory,
	syscall.ERANGE:       ErrRange,
	syscall.EINVAL:       ErrInvalid,
	syscall.EOPNOTSUPP:   ErrUnsupported,
	syscall.EAFNOSUPPORT: ErrUnsupported,
}

func (e *Error) meaning() error {
	if meaning := meanings[e.Op][e.Errno]; meaning != nil {
		return meaning
	}
	return common[e.Errno]
}

// isGone reports whether the kernel said that there is no such service.
func isGone(err error) bool { return errors.Is(err, ErrNoService) }
