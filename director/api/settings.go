package api

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// The settings of a service beside its scheduler and its servers: persistence,
// one-packet, timeouts of its own, limits, the guard, the size of segments, and what the kernel has as
// sysctls.

// setSettings takes the model's settings over.
func (c ServiceConfig) setSettings(s *director.Service) error {
	if c.Persistence != nil {
		if c.Persistence.Timeout <= 0 {
			return invalid(fmt.Sprintf("persistence: timeout %s is out of range", c.Persistence.Timeout), "give a timeout such as 5m, or leave persistence out for none")
		}
		var err error
		if s.Persistence, err = c.Persistence.persistence(s.Key); err != nil {
			return err
		}
	}
	s.OnePacket, s.MSS = c.OnePacket, c.MSS
	if c.Timeouts != nil {
		c.Timeouts.apply(&s.Timeouts)
	}
	s.Rules = director.Rules{
		SloppyTCP: c.SloppyTCP, ExpireNoDestConn: c.ExpireNodestConn, ExpireQuiescentTemplate: c.ExpireQuiescentTemplate,
	}
	if c.Limits != nil {
		c.Limits.apply(&s.Limits)
	}
	if err := setGuard(&s.Guard, c.Guard); err != nil {
		return err
	}
	if err := setHealth(s, c.Health); err != nil {
		return err
	}
	return setReuse(&s.Rules, c.ConnReuseMode)
}

// persistence turns the model into the director's value. It may have no timeout: the
// kernel takes an engine for a service that is not persistent.
func (p Persistence) persistence(key director.ServiceKey) (director.Persistence, error) {
	value := director.Persistence{Timeout: time.Duration(p.Timeout), Prefix: key.FullPrefix(), Engine: director.Engine(p.Engine)}
	var err error
	if value.Mask, err = parseMask(p.Mask); err != nil {
		return director.Persistence{}, err
	}
	set(&value.Prefix, p.Prefix)
	return value, nil
}

// applySettings changes what the edit names.
func (e ServiceEdit) applySettings(s *director.Service) error {
	if e.Persistence != nil {
		if err := e.Persistence.apply(s); err != nil {
			return err
		}
	}
	set(&s.OnePacket, e.OnePacket)
	set(&s.MSS, e.MSS)
	if e.Limits != nil {
		e.Limits.apply(&s.Limits)
	}
	if err := setGuard(&s.Guard, e.Guard); err != nil {
		return err
	}
	if err := setHealth(s, e.Health); err != nil {
		return err
	}
	if e.Timeouts != nil {
		e.Timeouts.apply(&s.Timeouts)
	}
	set(&s.Rules.SloppyTCP, e.SloppyTCP)
	set(&s.Rules.ExpireNoDestConn, e.ExpireNodestConn)
	set(&s.Rules.ExpireQuiescentTemplate, e.ExpireQuiescentTemplate)
	return setReuse(&s.Rules, e.ConnReuseMode)
}

// apply changes what the edit names of the service's persistence. A timeout makes
// a service persistent that was not, and 0s ends it.
func (e PersistenceEdit) apply(s *director.Service) error {
	switch {
	case e.Timeout != nil && *e.Timeout == 0:
		if e.Prefix != nil || e.Engine != nil && *e.Engine != "" {
			return invalid("persistence: timeout 0s takes persistence away: it has no prefix then, and no engine", "leave them out, or give a timeout such as 5m")
		}
		s.Persistence = director.Persistence{}
		return nil
	case e.Timeout == nil && s.Persistence == (director.Persistence{}):
		if e.Prefix == nil && (e.Engine == nil || *e.Engine == "") {
			return nil // nothing is asked for that is not so
		}
		return invalid("persistence: the service has none: timeout is required", "give a timeout such as 5m")
	case s.Persistence == (director.Persistence{}) && e.Timeout != nil:
		s.Persistence.Prefix = s.Key.FullPrefix()
	}
	if e.Timeout != nil {
		s.Persistence.Timeout = time.Duration(*e.Timeout)
	}
	if e.Engine != nil {
		s.Persistence.Engine = director.Engine(*e.Engine)
	}
	set(&s.Persistence.Prefix, e.Prefix)
	return nil
}

// apply replaces the timeouts that the model names; 0s is the director's.
func (t ServiceTimeouts) apply(to *conntrack.Timeouts) {
	for _, f := range []struct {
		from *Duration
		to   *time.Duration
	}{{t.TCP, &to.TCP}, {t.TCPFin, &to.TCPFin}, {t.UDP, &to.UDP}} {
		if f.from != nil {
			*f.to = time.Duration(*f.from)
		}
	}
}

// setReuse takes a conn_reuse_mode over; nil leaves it as it is.
func setReuse(rules *director.Rules, number *int) error {
	if number == nil {
		return nil
	}
	mode, err := director.ParseReuseMode(*number)
	if err != nil {
		return invalid(fmt.Sprintf("conn-reuse-mode %d: want 0, 1 or 3", *number), "0 replaces no connection, 1 those in TIME_WAIT and CLOSE, 3 also those in FIN_WAIT")
	}
	rules.ConnReuse = mode
	return nil
}

// set replaces the value if there is one.
func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// persistenceModel is the reverse of setSettings; nil for none.
func persistenceModel(p director.Persistence) *Persistence {
	if p == (director.Persistence{}) {
		return nil
	}
	model := &Persistence{Timeout: Duration(p.Timeout), Prefix: new(p.Prefix), Engine: string(p.Engine)}
	if p.Mask != 0 {
		model.Mask = p.Mask.String()
	}
	return model
}

// parseMask reads a mask of IPv4; empty for none.
func parseMask(text string) (director.Mask, error) {
	if text == "" {
		return 0, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return 0, invalid(fmt.Sprintf("persistence: mask %.40q is not an IPv4 mask", text), "leave it out and give a prefix such as 24")
	}
	octets := addr.As4()
	return director.Mask(binary.BigEndian.Uint32(octets[:])), nil
}

// serviceTimeouts returns the timeouts that are the service's own; nil without.
func serviceTimeouts(t conntrack.Timeouts) *ServiceTimeouts {
	if t == (conntrack.Timeouts{}) {
		return nil
	}
	return &ServiceTimeouts{TCP: given(Duration(t.TCP)), TCPFin: given(Duration(t.TCPFin)), UDP: given(Duration(t.UDP))}
}

// reuseModel returns the conn_reuse_mode; nil for the default.
func reuseModel(mode director.ReuseMode) *int {
	if mode == director.ReuseClosed {
		return nil
	}
	return new(mode.Number())
}

// options turns the model into the domain's value; what is left out is the zero
// value.
func (t Tunnel) options() (realserver.TunnelOptions, error) {
	options := realserver.TunnelOptions{Port: t.Port}
	var err error
	if t.Type != "" {
		if options.Type, err = realserver.ParseTunnelType(t.Type); err != nil {
			return options, fmt.Errorf("tunnel: %w", err)
		}
	}
	if t.Checksum != "" {
		if options.Checksum, err = realserver.ParseTunnelChecksum(t.Checksum); err != nil {
			return options, fmt.Errorf("tunnel: %w", err)
		}
	}
	return options, nil
}

// tunnelModel is the reverse of Tunnel.options; nil for the zero value.
func tunnelModel(o realserver.TunnelOptions) *Tunnel {
	if o == (realserver.TunnelOptions{}) {
		return nil
	}
	t := &Tunnel{Type: o.Type.String(), Port: o.Port}
	if o.Checksum != realserver.TunnelNoChecksum {
		t.Checksum = o.Checksum.String()
	}
	return t
}
