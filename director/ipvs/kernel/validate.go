package kernel

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// maxTimeout is ipvsadm's. The kernel multiplies by its ticks per second, up to
// 1000, in 32 bits and does not look whether that still fits (kernel:
// ip_vs_ctl.c, ip_vs_edit_service).
const maxTimeout = 31 * 24 * time.Hour

// Each problem returns what is wrong with the value, or "". It is what could not
// be encoded, or what the kernel would take for something else; all other checks
// are the kernel's.

func (id ServiceID) problem() string {
	a := id.Address.Addr()
	switch {
	case !a.IsValid():
		return "the address is missing"
	case a.Zone() != "":
		return "the address has a zone, of which IPVS knows nothing"
	case id.Mark != 0 && (id.Protocol != 0 || !a.IsUnspecified() || id.Address.Port() != 0):
		return "a service by mark has neither protocol nor address nor port"
	case id.Mark == 0 && id.Protocol != TCP && id.Protocol != UDP && id.Protocol != SCTP:
		return fmt.Sprintf("%s is none of tcp, udp and sctp", id.Protocol)
	default:
		return ""
	}
}

func (s Service) problem() string {
	if problem := s.ServiceID.problem(); problem != "" {
		return problem
	}
	longest := s.Family().bits()
	switch {
	case s.Scheduler == "":
		return "the scheduler is missing"
	case !fits(s.Scheduler, maxSchedulerName):
		return fmt.Sprintf("%q is too long for a scheduler's name", s.Scheduler)
	case !fits(s.Engine, maxEngineName):
		return fmt.Sprintf("%q is too long for a persistence engine's name", s.Engine)
	case s.OddMask.IsValid() && (!s.OddMask.Is4() || s.Family() == IPv6):
		return "a mask that is no prefix is for IPv4 alone"
	case int(s.Prefix) > longest:
		return fmt.Sprintf("the prefix of %d bits is longer than an address", s.Prefix)
	default:
		return timeoutProblem("the timeout of persistence", s.Timeout)
	}
}

func serverProblem(server netip.AddrPort) string {
	switch {
	case !server.Addr().IsValid():
		return "the server's address is missing"
	case server.Addr().Zone() != "":
		return "the server's address has a zone, of which IPVS knows nothing"
	default:
		return ""
	}
}

func (d SyncDaemon) problem() string {
	switch {
	case d.Role != Master && d.Role != Backup:
		return fmt.Sprintf("%d is neither master nor backup", d.Role)
	case d.Interface == "":
		return "the interface is missing"
	case !fits(d.Interface, maxInterfaceName):
		return fmt.Sprintf("%q is too long for an interface's name", d.Interface)
	default:
		return ""
	}
}

func (t Timeouts) problem() string {
	for _, one := range []struct {
		name    string
		timeout time.Duration
	}{{"the timeout of TCP", t.TCP}, {"the timeout of TCP after FIN", t.TCPFin}, {"the timeout of UDP", t.UDP}} {
		if problem := timeoutProblem(one.name, one.timeout); problem != "" {
			return problem
		}
	}
	return ""
}

func timeoutProblem(name string, t time.Duration) string {
	if t < 0 || t > maxTimeout || t%time.Second != 0 {
		return fmt.Sprintf("%s is %s: want whole seconds, 0 to %d", name, t, int(maxTimeout.Seconds()))
	}
	return ""
}

// fits reports whether the name and its final zero go into n octets.
func fits(name string, n int) bool { return len(name) < n && !strings.Contains(name, "\x00") }
