package metrics

import (
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/director"
)

// ServiceHealth is what is offered of a service at the moment.
type ServiceHealth struct {
	Service       director.ServiceKey
	Quorum, Panic bool
	Servers       []ServerHealth // each address once
}

// ServerHealth is what is offered of a server, and what its checks found.
type ServerHealth struct {
	Address                   netip.AddrPort
	Up, Overridden, Suspended bool
	Checks                    []CheckHealth
}

// CheckHealth are the results of a check of a server.
type CheckHealth struct {
	Kind           string
	Passed, Failed uint64        // since it is asked
	Took           time.Duration // the last one; 0: there was none
}

// addHealth shows what is offered. A server's checks of one kind are one series: their
// results are summed, and the slowest's duration is told.
func (s scrape) addHealth(services []ServiceHealth) {
	for _, service := range services {
		key := service.Service.String()
		s.add(nameServiceQuorum, one(service.Quorum), key)
		s.add(nameServicePanic, one(service.Panic), key)
		for _, server := range service.Servers {
			address := server.Address.String()
			s.add(nameServerUp, one(server.Up), key, address)
			s.add(nameServerOverride, one(server.Overridden), key, address)
			s.add(nameServerSuspend, one(server.Suspended), key, address)
			kinds := map[string]CheckHealth{}
			for _, check := range server.Checks {
				sum := kinds[check.Kind]
				kinds[check.Kind] = CheckHealth{Passed: sum.Passed + check.Passed, Failed: sum.Failed + check.Failed, Took: max(sum.Took, check.Took)}
			}
			for kind, sum := range kinds {
				s.add(nameCheckResults, float64(sum.Passed), key, address, kind, "passed")
				s.add(nameCheckResults, float64(sum.Failed), key, address, kind, "failed")
				if sum.Took > 0 {
					s.add(nameCheckDuration, sum.Took.Seconds(), key, address, kind)
				}
			}
		}
	}
}
