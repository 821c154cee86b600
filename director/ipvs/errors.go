package ipvs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// What an operation needs and the kernel has not.
var (
	errNoService = fmt.Errorf("service: %w", director.ErrNotFound)
	errNoServer  = fmt.Errorf("server: %w", director.ErrNotFound)
)

// refusal is an error of the kernel's in our words. It matches the director's
// sentinel that it comes to, if there is one, and the kernel's.
type refusal struct {
	text  string
	kind  error // may be nil
	cause error
}

// Error returns the text.
func (r *refusal) Error() string { return r.text }

// Unwrap returns kind and cause.
func (r *refusal) Unwrap() []error {
	if r.kind == nil {
		return []error{r.cause}
	}
	return []error{r.kind, r.cause}
}

// kinds are the director's sentinels for the kernel's; of an error that matches
// several, the first counts.
var kinds = []struct{ is, kind error }{
	{kernel.ErrNoService, director.ErrNotFound},
	{kernel.ErrNoServer, director.ErrNotFound},
	{kernel.ErrNoDaemon, director.ErrNotFound},
	{kernel.ErrNoInterface, director.ErrNoInterface},
	{kernel.ErrServiceExists, director.ErrExists},
	{kernel.ErrServerExists, director.ErrExists},
	{kernel.ErrDaemonExists, director.ErrExists},
	{kernel.ErrNoScheduler, director.ErrNoScheduler},
	{kernel.ErrUnsupported, director.ErrUnsupported},
	{kernel.ErrRange, director.ErrInvalid},
	{kernel.ErrInvalid, director.ErrInvalid},
}

// refuse says what of the service the kernel has no such thing for; nil if it has
// all.
func refuse(features director.Features, s director.Service) error {
	err := features.Check(director.State{Services: []director.Service{s}})
	if err == nil {
		return nil
	}
	var lacks []string
	for _, problem := range director.Problems(err) {
		lacks = append(lacks, problem.Text)
	}
	return &refusal{text: strings.Join(lacks, "; "), kind: director.ErrUnsupported, cause: err}
}

// explain returns what the kernel's refusal means. What was attempted is left out:
// the operation says it.
func explain(err error) error {
	is, kind := meaning(err)
	if refused := (*kernel.Error)(nil); errors.As(err, &refused) && refused.Reason != "" {
		return &refusal{text: refused.Reason, kind: kind, cause: err}
	}
	if is == nil {
		return err
	}
	return &refusal{text: is.Error(), kind: kind, cause: err}
}

// meaning returns the kernel's sentinel that the error matches and the director's
// that it comes to; nil for none.
func meaning(err error) (is, kind error) {
	for _, k := range kinds {
		if errors.Is(err, k.is) {
			return k.is, k.kind
		}
	}
	return nil, nil
}

// because returns the refusal with a text that says more than the kernel's number.
func because(err error, format string, args ...any) error {
	_, kind := meaning(err)
	return &refusal{text: fmt.Sprintf(format, args...), kind: kind, cause: err}
}

// explainService explains why the kernel has not taken the service.
func explainService(err error, s kernel.Service) error {
	switch {
	case err == nil || !errors.Is(err, kernel.ErrNoScheduler):
		return explain(err)
	case s.Engine == "":
		return because(err, "the kernel has no scheduler %s: modprobe ip_vs_%s", s.Scheduler, s.Scheduler)
	default:
		return because(err, "the kernel has no scheduler %s, or no persistence engine %s: modprobe -a ip_vs_%s ip_vs_pe_%s",
			s.Scheduler, s.Engine, s.Scheduler, s.Engine)
	}
}

// maxMaglev is how many servers mh can have (kernel: ip_vs_mh.c, the largest of its
// primes by the default CONFIG_IP_VS_MH_TAB_INDEX).
const maxMaglev = 4093

// explainServer explains why the kernel has not taken the server. Its EINVAL has
// several meanings (kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_new_dest and
// ip_vs_genl_set_cmd).
func explainServer(err error, s *kernel.ServiceEntry, server kernel.Server) error {
	mixed := s.ServiceID.Address.Addr().Is4() != server.Address.Addr().Is4()
	switch {
	case err == nil || !errors.Is(err, kernel.ErrInvalid):
		return explain(err)
	case mixed && server.Method == kernel.Tunnelling:
		return because(err, "a sync daemon runs, which does not know servers of another address family than their service's: stop it first")
	case mixed:
		return because(err, "%s is not of the service's address family: only tunnels can mix them", server.Address.Addr())
	case s.Scheduler == string(director.Maglev) && len(s.Servers) >= maxMaglev:
		return because(err, "the scheduler mh has %d servers at most", maxMaglev)
	default:
		return because(err, "the kernel takes the address %s neither for a unicast one nor for one of this host, or the server for invalid otherwise", server.Address.Addr())
	}
}

// explainSync explains why the kernel has not started the daemon.
func explainSync(err error, s director.SyncDaemon) error {
	switch {
	case errors.Is(err, kernel.ErrNoInterface):
		return because(err, "there is no interface %s", s.Interface)
	case errors.Is(err, kernel.ErrInvalid):
		return because(err, "the kernel takes the daemon for invalid: %s may not do multicast, or a service has servers of another address family, which the daemons do not know", s.Interface)
	default:
		return explain(err)
	}
}
