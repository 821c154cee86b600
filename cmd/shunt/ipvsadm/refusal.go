package ipvsadm

import (
	"errors"
	"strings"
	"syscall"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/api"
	language "github.com/shunt-lb/shunt/director/config/ipvsadm"
)

// refusal is a command that the kernel refuses, or Shunt does in its place.
type refusal struct {
	// of is the operation whose words are used; Help for none's.
	of    language.Operation
	errno syscall.Errno
	// because is empty where the kernel refuses too: its users know why.
	because []string
	hint    string
}

// Error returns ipvsadm's line.
func (r *refusal) Error() string {
	if r.errno == syscall.EOPNOTSUPP && len(r.because) > 0 {
		return "Operation not supported" // what is unsupported is not IPv6: see Refusal
	}
	return language.Refusal(r.of, r.errno)
}

// The hints.
const (
	adoptHint = "`shunt import --adopt` makes Shunt its manager without touching traffic"
	planeHint = "shuntd --dataplane ipvs has it"
)

// foreign makes a refusal of one because somebody else made the service.
func (r *refusal) foreign(key director.ServiceKey) *refusal {
	r.because, r.hint = []string{key.String() + " is in the kernel, and not Shunt's"}, adoptHint
	return r
}

// refused is a refusal for reasons of Shunt's: each line of err is one.
func refused(o language.Operation, errno syscall.Errno, err error) *refusal {
	r := &refusal{of: o, errno: errno}
	for line := range strings.Lines(err.Error()) {
		r.because = append(r.because, strings.TrimSpace(line))
	}
	return r
}

// errnoOf is how a problem of a value is told: what no data plane takes is an
// invalid operation, what this one lacks is not supported.
func errnoOf(err error) syscall.Errno {
	if errors.Is(err, director.ErrUnsupported) {
		return syscall.EOPNOTSUPP
	}
	return syscall.EINVAL
}

// answered is the daemon's refusal of a change that looked right here: by its
// data plane or its kernel.
func answered(o language.Operation, p *api.Problem) *refusal {
	errnos := map[api.ProblemCode]syscall.Errno{
		api.ProblemCodeServiceExists:    syscall.EEXIST,
		api.ProblemCodeServerExists:     syscall.EEXIST,
		api.ProblemCodeSyncRunning:      syscall.EEXIST,
		api.ProblemCodeNoService:        syscall.ESRCH,
		api.ProblemCodeNoSync:           syscall.ESRCH,
		api.ProblemCodeNoServer:         syscall.ENOENT,
		api.ProblemCodeSchedulerMissing: syscall.ENOENT,
		api.ProblemCodeNoInterface:      syscall.ENODEV,
		api.ProblemCodeUnsupported:      syscall.EOPNOTSUPP,
		api.ProblemCodeForbidden:        syscall.EPERM,
		api.ProblemCodeUnauthorized:     syscall.EPERM,
		api.ProblemCodeFull:             syscall.ENOMEM,
	}
	errno, known := errnos[p.Code]
	if !known {
		errno = syscall.EINVAL
	}
	switch p.Code {
	case api.ProblemCodeSchedulerMissing, api.ProblemCodeNoInterface, api.ProblemCodeNoSync, api.ProblemCodeSyncRunning:
		return &refusal{of: o, errno: errno} // the line says it all
	}
	r := refused(o, errno, errors.New(p.Detail))
	if r.hint = p.Hint; p.Code == api.ProblemCodeUnsupported && r.hint == "" {
		r.hint = planeHint
	}
	return r
}
