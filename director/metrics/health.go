package metrics

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// Health is what is known of servers' health at the moment, and what knowing it takes.
type Health struct {
	Services []ServiceHealth
	Checks   Checks
	Probing  *Probing // nil: nothing is asked by the way of clients' packets
	// Notified has how many changes were told, by the way (command, pipe) and the result
	// (told, failed, skipped).
	Notified    map[[2]string]uint64
	Maintenance map[string]int    // files by their folder
	Hosts       map[string]uint64 // questions to hosts by SNMP, by their result
	Leases      Leases
}

// ServiceHealth is what is offered of a service at the moment.
type ServiceHealth struct {
	Service              director.ServiceKey
	Quorum, Panic, Sorry bool
	Weight, Needed       uint64         // the weights that are up, and how many are needed
	Servers              []ServerHealth // each address once
}

// ServerHealth is what is offered of a server, and what its checks found.
type ServerHealth struct {
	Address                   netip.AddrPort
	Up, Overridden, Suspended bool
	Changes, Suspensions      uint64
	Evidence                  *director.Evidence // nil: packets are not counted
	Load                      *Load              // nil: its weight follows none
	Checks                    []CheckHealth
}

// Load is a server's, and the share of its weight that it leaves.
type Load struct{ Value, Share float64 }

// CheckHealth are the results of a check of a server.
type CheckHealth struct {
	Kind           string
	Passed, Failed uint64        // since it is asked
	Took           time.Duration // the last one; 0: there was none
	CertificateEnd time.Time     // of the certificate shown last; zero: none was
}

// Checks is what asking takes.
type Checks struct {
	Asked, Running, Overdue, Waiting int
	Lag                              time.Duration // of the one that is due the longest
	Overruns, Unasked                uint64
	Times                            []Times
}

// Times are how long probes of a kind took.
type Times struct {
	Kind   string
	Passed bool
	Count  uint64
	Sum    time.Duration
	AtMost map[time.Duration]uint64 // how many took at most so long
}

// Probing is what probes by the way of clients' packets take.
type Probing struct {
	Ports   int
	Refused uint64
}

// Leases are what agents say.
type Leases struct {
	Members map[string][2]int // of each pool, how many are active and how many drain
	Registered, Renewed, Left,
	Expired, Reports uint64
	Refused map[string]uint64 // by reason
}

// addHealth shows what is known of servers' health.
func (s scrape) addHealth(h Health) {
	for i := range h.Services {
		s.addServiceHealth(&h.Services[i])
	}
	s.addChecks(&h.Checks)
	if h.Probing != nil {
		s.add(nameProbePorts, float64(h.Probing.Ports))
		s.add(nameProbeRefused, float64(h.Probing.Refused))
	}
	for result, n := range h.Hosts {
		s.add(nameSNMPPolls, float64(n), result)
	}
	for how, n := range h.Notified {
		s.add(nameNotified, float64(n), how[0], how[1])
	}
	for folder, n := range h.Maintenance {
		s.add(nameMaintenance, float64(n), folder)
	}
	s.addLeases(&h.Leases)
}

func (s scrape) addServiceHealth(h *ServiceHealth) {
	service := h.Service.String()
	s.add(nameServiceQuorum, one(h.Quorum), service)
	s.add(nameServicePanic, one(h.Panic), service)
	s.add(nameServiceSorry, one(h.Sorry), service)
	s.add(nameServiceWeight, float64(h.Weight), service)
	s.add(nameServiceNeeds, float64(h.Needed), service)
	for i := range h.Servers {
		s.addServerHealth(service, &h.Servers[i])
	}
}

func (s scrape) addServerHealth(service string, h *ServerHealth) {
	server := h.Address.String()
	s.add(nameServerUp, one(h.Up), service, server)
	s.add(nameServerOverride, one(h.Overridden), service, server)
	s.add(nameServerSuspend, one(h.Suspended), service, server)
	s.add(nameServerChanges, float64(h.Changes), service, server)
	if e := h.Evidence; e != nil {
		s.add(nameEvidence, float64(e.Unanswered), service, server, "unanswered")
		s.add(nameEvidence, float64(e.Resets), service, server, "reset")
		s.add(nameEvidence, float64(e.Unreachable), service, server, "unreachable")
		s.add(nameSuspensions, float64(h.Suspensions), service, server)
	}
	if h.Load != nil {
		s.add(nameLoad, h.Load.Value, service, server)
		s.add(nameLoadWeight, h.Load.Share, service, server)
	}
	s.addServerChecks(service, server, h.Checks)
}

// addServerChecks shows a server's checks of one kind as one series: their results are
// summed, and the slowest's duration and the earliest end of a certificate are told.
func (s scrape) addServerChecks(service, server string, checks []CheckHealth) {
	kinds := make(map[string]CheckHealth, len(checks))
	for _, check := range checks {
		sum := kinds[check.Kind]
		sum.Passed, sum.Failed, sum.Took = sum.Passed+check.Passed, sum.Failed+check.Failed, max(sum.Took, check.Took)
		if end := check.CertificateEnd; sum.CertificateEnd.IsZero() || !end.IsZero() && end.Before(sum.CertificateEnd) {
			sum.CertificateEnd = end
		}
		kinds[check.Kind] = sum
	}
	for kind, sum := range kinds {
		s.add(nameCheckResults, float64(sum.Passed), service, server, kind, resultPassed)
		s.add(nameCheckResults, float64(sum.Failed), service, server, kind, resultFailed)
		if sum.Took > 0 {
			s.add(nameCheckDuration, sum.Took.Seconds(), service, server, kind)
		}
		if !sum.CertificateEnd.IsZero() {
			s.add(nameCertificateEnd, seconds(sum.CertificateEnd), service, server, kind)
		}
	}
}

// The results of checks.
const (
	resultPassed = "passed"
	resultFailed = "failed"
)

func (s scrape) addChecks(c *Checks) {
	s.add(nameChecks, float64(c.Asked))
	s.add(nameChecksRunning, float64(c.Running))
	s.add(nameChecksOverdue, float64(c.Overdue))
	s.add(nameChecksWaiting, float64(c.Waiting))
	s.add(nameCheckLag, c.Lag.Seconds())
	s.add(nameCheckOverruns, float64(c.Overruns))
	s.add(nameCheckUnasked, float64(c.Unasked))
	for _, t := range c.Times {
		result := resultFailed
		if t.Passed {
			result = resultPassed
		}
		s.addTimes(nameCheckTimes, t, t.Kind, result)
	}
}

func (s scrape) addLeases(l *Leases) {
	for pool, n := range l.Members {
		s.add(namePoolMembers, float64(n[0]), pool, "active")
		s.add(namePoolMembers, float64(n[1]), pool, "draining")
	}
	s.add(nameLeaseChanges, float64(l.Registered), "registered")
	s.add(nameLeaseChanges, float64(l.Renewed), "renewed")
	s.add(nameLeaseChanges, float64(l.Left), "left")
	s.add(nameLeaseChanges, float64(l.Expired), "expired")
	s.add(nameLeaseReports, float64(l.Reports))
	for reason, n := range l.Refused {
		s.add(nameLeaseRefused, float64(n), reason)
	}
}
