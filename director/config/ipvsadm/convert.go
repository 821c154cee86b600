package ipvsadm

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
)

// Key returns the director's name for the service.
func (s Service) Key() director.ServiceKey {
	if s.Mark != 0 {
		return director.ServiceKey{Mark: s.Mark, Address: s.Address}
	}
	return director.ServiceKey{Protocol: s.Protocol, Address: s.Address}
}

// Director returns the service as the director has it, without servers. Its
// address is somebody else's to put on the host: ipvsadm touches none. The error
// wraps ErrUnsupported: the kernel takes what the director has no words for.
func (s Service) Director() (director.Service, error) {
	service := director.Service{
		Key:       s.Key(),
		Scheduler: director.Scheduler(s.Scheduler),
		Flags: director.SchedulerFlags{
			Fallback: s.Flags&Flag1 != 0,
			Port:     s.Flags&Flag2 != 0,
			Third:    s.Flags&Flag3 != 0,
		},
		VIP:       director.VIPExternal,
		OnePacket: s.OnePacket,
	}
	if !s.Persistent {
		if s.Engine != "" {
			return director.Service{}, fmt.Errorf("service %s: persistence engine %s without persistence (-p): %w", service.Key, s.Engine, director.ErrUnsupported)
		}
		return service, nil
	}
	prefix, err := s.prefix()
	if err != nil {
		return director.Service{}, fmt.Errorf("service %s: %w", service.Key, err)
	}
	service.Persistence = director.Persistence{
		Timeout: time.Duration(s.Timeout) * time.Second,
		Prefix:  prefix,
		Engine:  director.Engine(s.Engine),
	}
	return service, nil
}

// prefix returns the netmask as the length of a prefix.
func (s Service) prefix() (uint8, error) {
	if s.Address.Addr().Is6() {
		return uint8(s.Netmask), nil
	}
	length := bits.LeadingZeros32(^s.Netmask)
	if s.Netmask != prefixMask(uint8(length)) {
		return 0, fmt.Errorf("netmask %s is no prefix: %w", dotted(s.Netmask), director.ErrUnsupported)
	}
	return uint8(length), nil
}

// prefixMask returns the mask of an IPv4 prefix.
func prefixMask(length uint8) uint32 { return ^(fullMask >> min(length, 32)) }

// FromDirector returns the service as ipvsadm has it. The error wraps
// ErrUnsupported: ipvsadm knows no service of several addresses, or of a range
// of ports.
func FromDirector(service director.Service) (Service, error) {
	key := service.Key
	if key.Bits != 0 || key.LastPort != 0 {
		return Service{}, fmt.Errorf("service %s: ipvsadm has no prefixes and no ranges of ports: %w", key, director.ErrUnsupported)
	}
	s := Service{
		Protocol:  key.Protocol,
		Address:   key.Address,
		Mark:      key.Mark,
		Scheduler: string(service.Scheduler),
		Netmask:   fullMask,
		OnePacket: service.OnePacket,
	}
	if key.IsMark() {
		s.Protocol = tcp
	}
	for flag, isSet := range map[Flags]bool{Flag1: service.Flags.Fallback, Flag2: service.Flags.Port, Flag3: service.Flags.Third} {
		if isSet {
			s.Flags |= flag
		}
	}
	isIPv6 := key.Address.Addr().Is6()
	if isIPv6 {
		s.Netmask = fullPrefix
	}
	p := service.Persistence
	s.Engine = string(p.Engine) // which a service without persistence can have too
	if p.Engine = ""; p == (director.Persistence{}) {
		return s, nil
	}
	s.Persistent, s.Timeout = true, uint32(p.Timeout/time.Second)
	if isIPv6 {
		s.Netmask = uint32(p.Prefix)
	} else {
		s.Netmask = prefixMask(p.Prefix)
	}
	if p.Mask != 0 {
		s.Netmask = uint32(p.Mask)
	}
	return s, nil
}

// Director returns the timeouts as the director has them, those that are to stay
// as they are from base.
func (t Timeouts) Director(base conntrack.Timeouts) conntrack.Timeouts {
	for _, v := range []struct {
		seconds uint32
		value   *time.Duration
	}{{t.TCP, &base.TCP}, {t.TCPFin, &base.TCPFin}, {t.UDP, &base.UDP}} {
		if v.seconds != 0 {
			*v.value = time.Duration(v.seconds) * time.Second
		}
	}
	return base
}

// Director returns the daemon as the director has it, the defaults filled in.
func (d Daemon) Director() director.SyncDaemon {
	return director.SyncDaemon{
		Role:      director.SyncRole(d.Role),
		Interface: d.Interface,
		ID:        d.ID,
		MaxLength: d.MaxLength,
		Group:     d.Group,
		Port:      d.Port,
		TTL:       d.TTL,
	}.Normalize()
}
