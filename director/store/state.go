package store

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// stateJSON is a whole state, or the difference between two: the services that
// were added or changed, whole, and the keys of those that are gone. Protocols
// and methods are the kernel's numbers.
type stateJSON struct {
	Timeouts *timeoutsJSON `json:"timeouts,omitempty"` // nil: as before
	Sync     *[]syncJSON   `json:"sync,omitempty"`     // all of them; nil: as before
	Services []serviceJSON `json:"services,omitempty"`
	Removed  []keyJSON     `json:"removed,omitempty"`
	Drains   *[]drainJSON  `json:"drains,omitempty"` // all of them; nil: as before
	// Overrides are all of them; nil: as before.
	Overrides *[]overrideJSON `json:"overrides,omitempty"`
}

type syncJSON struct {
	Role      director.SyncRole `json:"role"`
	Interface string            `json:"interface"`
	ID        uint8             `json:"id"`
	MaxLength uint16            `json:"maxLength,omitempty"`
	Group     netip.Addr        `json:"group"`
	Port      uint16            `json:"port"`
	TTL       uint8             `json:"ttl"`
}

func encodeSync(daemons []director.SyncDaemon) *[]syncJSON {
	all := make([]syncJSON, len(daemons))
	for i, s := range daemons {
		all[i] = syncJSON(s)
	}
	return &all
}

func decodeSync(all []syncJSON) []director.SyncDaemon {
	var daemons []director.SyncDaemon
	for _, j := range all {
		daemons = append(daemons, director.SyncDaemon(j))
	}
	return daemons
}

type drainJSON struct {
	Service  keyJSON        `json:"service"`
	Server   netip.AddrPort `json:"server"`
	Since    time.Time      `json:"since"`
	Deadline *time.Time     `json:"deadline,omitempty"`
	Kill     bool           `json:"kill,omitempty"`
}

func encodeDrains(drains []director.Drain) *[]drainJSON {
	all := make([]drainJSON, len(drains))
	for i, d := range drains {
		all[i] = drainJSON{Service: keyJSON(d.Service), Server: d.Server, Since: d.Since, Kill: d.Kill}
		if !d.Deadline.IsZero() {
			all[i].Deadline = &d.Deadline
		}
	}
	return &all
}

func decodeDrains(all []drainJSON) []director.Drain {
	var drains []director.Drain
	for _, j := range all {
		d := director.Drain{Service: director.ServiceKey(j.Service), Server: j.Server, Since: j.Since, Kill: j.Kill}
		if j.Deadline != nil {
			d.Deadline = *j.Deadline
		}
		drains = append(drains, d)
	}
	return drains
}

type timeoutsJSON struct {
	TCP    time.Duration `json:"tcpNanoseconds"`
	TCPFin time.Duration `json:"tcpFinNanoseconds"`
	UDP    time.Duration `json:"udpNanoseconds"`
}

type keyJSON struct {
	Protocol conntrack.Protocol `json:"protocol"`
	Mark     uint32             `json:"mark,omitempty"`
	Address  netip.AddrPort     `json:"address"`
	Bits     uint8              `json:"bits,omitempty"`
	LastPort uint16             `json:"lastPort,omitempty"`
}

type serviceJSON struct {
	Key             keyJSON            `json:"key"`
	Name            string             `json:"name,omitempty"`
	Scheduler       director.Scheduler `json:"scheduler,omitempty"`
	Port            bool               `json:"port,omitempty"`
	Fallback        bool               `json:"fallback,omitempty"`
	Third           bool               `json:"flag3,omitempty"`
	VIP             director.VIPOwner  `json:"vip,omitempty"`
	Allow           []netip.Prefix     `json:"allow,omitempty"`
	Deny            []netip.Prefix     `json:"deny,omitempty"`
	Persistence     *persistenceJSON   `json:"persistence,omitempty"`
	OnePacket       bool               `json:"onePacket,omitempty"`
	Timeouts        *timeoutsJSON      `json:"timeouts,omitempty"`
	SloppyTCP       bool               `json:"sloppyTCP,omitempty"`
	ExpireNoDest    bool               `json:"expireNoDestConn,omitempty"`
	ExpireQuiescent bool               `json:"expireQuiescentTemplate,omitempty"`
	ConnReuse       director.ReuseMode `json:"connReuse,omitempty"`
	Limits          limitsJSON         `json:"limits,omitzero"`
	Guard           guardJSON          `json:"guard,omitzero"`
	MSS             uint16             `json:"mss,omitempty"`
	Health          *healthJSON        `json:"health,omitempty"`
	Servers         []serverJSON       `json:"servers,omitempty"` // in order
}

type persistenceJSON struct {
	Timeout time.Duration   `json:"timeoutNanoseconds"`
	Prefix  uint8           `json:"prefix"`
	Mask    director.Mask   `json:"-"` // found, never desired
	Engine  director.Engine `json:"engine,omitempty"`
}

type limitsJSON struct {
	Rate        uint32           `json:"ratePerSecond,omitempty"`
	Connections uint32           `json:"connections,omitempty"`
	Source      sourceLimitsJSON `json:"source,omitzero"`
}

type sourceLimitsJSON struct {
	Prefix      uint8  `json:"prefix,omitempty"`
	Rate        uint32 `json:"ratePerSecond,omitempty"`
	Connections uint32 `json:"connections,omitempty"`
}

type guardJSON struct {
	Mode director.GuardMode `json:"mode,omitempty"`
	On   uint32             `json:"onPerSecond,omitempty"`
	Off  uint32             `json:"offPerSecond,omitempty"`
}

type serverJSON struct {
	Address  netip.AddrPort    `json:"address"`
	Method   realserver.Method `json:"method,omitempty"`
	Tunnel   tunnelJSON        `json:"tunnel,omitzero"`
	Weight   uint32            `json:"weight,omitempty"`
	Upper    uint32            `json:"upper,omitempty"`
	Lower    uint32            `json:"lower,omitempty"`
	Draining bool              `json:"draining,omitempty"`
}

type tunnelJSON struct {
	Type     realserver.TunnelType     `json:"type,omitempty"`
	Port     uint16                    `json:"port,omitempty"`
	Checksum realserver.TunnelChecksum `json:"checksum,omitempty"`
}

func encodeServer(s realserver.Server) serverJSON {
	return serverJSON{
		Address: s.Address, Method: s.Method, Tunnel: tunnelJSON(s.Tunnel), Weight: s.Weight, Upper: s.Upper, Lower: s.Lower, Draining: s.Draining,
	}
}

func (j serverJSON) decode() realserver.Server {
	return realserver.Server{
		Address: j.Address, Method: j.Method, Tunnel: realserver.TunnelOptions(j.Tunnel), Weight: j.Weight, Upper: j.Upper, Lower: j.Lower, Draining: j.Draining,
	}
}

func encodeTimeouts(t conntrack.Timeouts) *timeoutsJSON {
	j := timeoutsJSON(t)
	return &j
}

func encodeState(s director.State) stateJSON {
	j := stateJSON{Timeouts: encodeTimeouts(s.Timeouts), Services: make([]serviceJSON, len(s.Services))}
	for i, service := range s.Services {
		j.Services[i] = encodeService(service)
	}
	if len(s.Sync) > 0 {
		j.Sync = encodeSync(s.Sync)
	}
	if len(s.Drains) > 0 {
		j.Drains = encodeDrains(s.Drains)
	}
	if len(s.Overrides) > 0 {
		j.Overrides = encodeOverrides(s.Overrides)
	}
	return j
}

// version is that of the record that can hold the state.
func (j stateJSON) version() byte {
	if j.Overrides != nil {
		return recordVersion
	}
	least := byte(plainVersion)
	for i := range j.Services {
		switch s := &j.Services[i]; {
		case s.Health != nil:
			return recordVersion
		case least == sizesVersion:
		case s.MSS != 0 || slices.ContainsFunc(s.Servers, func(s serverJSON) bool { return s.Method == realserver.FullNAT }):
			least = sizesVersion
		case s.Limits != (limitsJSON{}) || s.Guard != (guardJSON{}):
			least = limitsVersion
		}
	}
	return least
}

func encodeService(s director.Service) serviceJSON {
	j := serviceJSON{
		Key: keyJSON(s.Key), Name: s.Name, Scheduler: s.Scheduler, Port: s.Flags.Port, Fallback: s.Flags.Fallback, Third: s.Flags.Third,
		VIP: s.VIP, Allow: s.Access.Allow, Deny: s.Access.Deny, Servers: make([]serverJSON, len(s.Servers)),
	}
	j.OnePacket, j.SloppyTCP, j.ConnReuse = s.OnePacket, s.Rules.SloppyTCP, s.Rules.ConnReuse
	j.ExpireNoDest, j.ExpireQuiescent = s.Rules.ExpireNoDestConn, s.Rules.ExpireQuiescentTemplate
	j.Limits = limitsJSON{Rate: s.Limits.Rate, Connections: s.Limits.Connections, Source: sourceLimitsJSON(s.Limits.Source)}
	j.Guard, j.MSS, j.Health = guardJSON(s.Guard), s.MSS, encodeHealth(s.Health)
	if s.Persistence != (director.Persistence{}) {
		p := persistenceJSON(s.Persistence)
		j.Persistence = &p
	}
	if s.Timeouts != (conntrack.Timeouts{}) {
		j.Timeouts = encodeTimeouts(s.Timeouts)
	}
	for i, server := range s.Servers {
		j.Servers[i] = encodeServer(server)
	}
	return j
}

func (j serviceJSON) decode() director.Service {
	s := director.Service{
		Key: director.ServiceKey(j.Key), Name: j.Name, Scheduler: j.Scheduler,
		Flags: director.SchedulerFlags{Port: j.Port, Fallback: j.Fallback, Third: j.Third},
		VIP:   j.VIP, Access: director.Access{Allow: j.Allow, Deny: j.Deny},
		OnePacket: j.OnePacket,
		Rules: director.Rules{
			SloppyTCP: j.SloppyTCP, ExpireNoDestConn: j.ExpireNoDest, ExpireQuiescentTemplate: j.ExpireQuiescent, ConnReuse: j.ConnReuse,
		},
		Limits: director.Limits{Rate: j.Limits.Rate, Connections: j.Limits.Connections, Source: director.SourceLimits(j.Limits.Source)},
		Guard:  director.SourceGuard(j.Guard), MSS: j.MSS, Health: j.Health.decode(),
	}
	if j.Persistence != nil {
		s.Persistence = director.Persistence(*j.Persistence)
	}
	if j.Timeouts != nil {
		s.Timeouts = conntrack.Timeouts(*j.Timeouts)
	}
	for _, server := range j.Servers {
		s.Servers = append(s.Servers, server.decode())
	}
	return s
}

// diff returns what leads from one state to another, and the other state without
// the memory of its owner: unchanged services are those of from. Both are sorted.
func diff(from, to director.State) (change stateJSON, result director.State) {
	if from.Timeouts != to.Timeouts {
		change.Timeouts = encodeTimeouts(to.Timeouts)
	}
	if !slices.Equal(from.Sync, to.Sync) {
		change.Sync = encodeSync(to.Sync)
	}
	if !slices.EqualFunc(from.Drains, to.Drains, director.Drain.Equal) {
		change.Drains = encodeDrains(to.Drains)
	}
	if !sameOverrides(from.Overrides, to.Overrides) {
		change.Overrides = encodeOverrides(to.Overrides)
	}
	result = director.State{
		Timeouts: to.Timeouts, Sync: slices.Clone(to.Sync), Services: make([]director.Service, 0, len(to.Services)), Drains: slices.Clone(to.Drains),
		Overrides: slices.Clone(to.Overrides),
	}
	old := from.Services
	remove := func() {
		change.Removed = append(change.Removed, keyJSON(old[0].Key))
		old = old[1:]
	}
	for _, service := range to.Services {
		for len(old) > 0 && old[0].Key.Compare(service.Key) < 0 {
			remove()
		}
		if len(old) > 0 && old[0].Key == service.Key {
			was := old[0]
			old = old[1:]
			if was.Identical(service) {
				result.Services = append(result.Services, was)
				continue
			}
		}
		change.Services = append(change.Services, encodeService(service))
		result.Services = append(result.Services, service.Clone())
	}
	for len(old) > 0 {
		remove()
	}
	return change, result
}

// apply returns the state that the difference leads to; unchanged services share
// from's memory. A difference that does not fit is an error.
func (j stateJSON) apply(from director.State) (director.State, error) {
	changed := make(map[director.ServiceKey]director.Service, len(j.Services))
	for _, service := range j.Services {
		changed[director.ServiceKey(service.Key)] = service.decode()
	}
	removed := make(map[director.ServiceKey]bool, len(j.Removed))
	for _, key := range j.Removed {
		removed[director.ServiceKey(key)] = true
	}
	result := director.State{
		Timeouts: from.Timeouts, Sync: from.Sync, Services: make([]director.Service, 0, len(from.Services)+len(changed)), Drains: from.Drains,
		Overrides: from.Overrides,
	}
	if j.Sync != nil {
		result.Sync = decodeSync(*j.Sync)
	}
	if j.Drains != nil {
		result.Drains = decodeDrains(*j.Drains)
	}
	if j.Overrides != nil {
		result.Overrides = decodeOverrides(*j.Overrides)
	}
	if j.Timeouts != nil {
		result.Timeouts = conntrack.Timeouts(*j.Timeouts)
	}
	for _, service := range from.Services {
		if removed[service.Key] {
			delete(removed, service.Key)
			continue
		}
		if now, ok := changed[service.Key]; ok {
			delete(changed, service.Key)
			service = now
		}
		result.Services = append(result.Services, service)
	}
	for key := range removed {
		return director.State{}, damaged("removes service %s, which is not there", key)
	}
	for _, service := range changed {
		result.Services = append(result.Services, service)
	}
	slices.SortFunc(result.Services, func(a, b director.Service) int { return a.Key.Compare(b.Key) })
	return result, sorted(result)
}

// sorted returns an error unless the services are sorted and no two have a key.
func sorted(s director.State) error {
	for i := 1; i < len(s.Services); i++ {
		if a, b := s.Services[i-1].Key, s.Services[i].Key; a.Compare(b) >= 0 {
			return fmt.Errorf("the services are not sorted by key: %s stands before %s", a, b)
		}
	}
	return nil
}
