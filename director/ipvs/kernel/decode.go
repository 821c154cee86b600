package kernel

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
)

// attributes goes over a message's attributes. Each is read by a method of the
// decoder that checks its length.
func attributes(b []byte, read func(*netlink.AttributeDecoder) error) error {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for d.Next() {
		if err := read(d); err != nil {
			return err
		}
	}
	return d.Err()
}

// only returns the one attribute of that type.
func only(b []byte, attribute uint16) (content []byte, err error) {
	err = attributes(b, func(d *netlink.AttributeDecoder) error {
		if d.Type() == attribute {
			content = d.Bytes()
		}
		return nil
	})
	if err == nil && content == nil {
		err = fmt.Errorf("no attribute %d in the kernel's answer", attribute)
	}
	return content, err
}

// wireAddress is an address whose family stands in another attribute.
type wireAddress struct {
	family Family
	octets []byte
	port   uint16
}

func (w wireAddress) addrPort() (netip.AddrPort, error) {
	n := w.family.bits() / 8
	if w.family != IPv4 && w.family != IPv6 {
		return netip.AddrPort{}, fmt.Errorf("address family %d", w.family)
	}
	if len(w.octets) < n {
		return netip.AddrPort{}, fmt.Errorf("address of %d octets", len(w.octets))
	}
	a, _ := netip.AddrFromSlice(w.octets[:n])
	return netip.AddrPortFrom(a, w.port), nil
}

func decodeService(b []byte) (s ServiceEntry, err error) {
	var address wireAddress
	var netmask []byte
	var stats, stats64 []byte
	err = attributes(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case serviceFamily:
			address.family = Family(d.Uint16())
		case serviceProtocol:
			s.Protocol = Protocol(d.Uint16())
		case serviceAddress:
			address.octets = d.Bytes()
		case servicePort:
			address.port, err = bigPort(d)
		case serviceMark:
			s.Mark = d.Uint32()
		case serviceScheduler:
			s.Scheduler = d.String()
		case serviceEngine:
			s.Engine = d.String()
		case serviceFlags:
			b := d.Bytes()
			if len(b) != 8 {
				return fmt.Errorf("flags of %d octets", len(b))
			}
			s.Flags = ServiceFlags(binary.NativeEndian.Uint32(b)) &^ flagHashed
		case serviceTimeout:
			s.Timeout = time.Duration(d.Uint32()) * time.Second
		case serviceNetmask:
			if netmask = d.Bytes(); len(netmask) != 4 {
				return fmt.Errorf("mask of %d octets", len(netmask))
			}
		case serviceStats:
			stats = d.Bytes()
		case serviceStats64:
			stats64 = d.Bytes()
		}
		return err
	})
	if err != nil {
		return ServiceEntry{}, fmt.Errorf("a service in the kernel's answer: %w", err)
	}
	if s.Mark != 0 {
		s.ServiceID = MarkID(s.Mark, address.family)
	} else if s.Address, err = address.addrPort(); err != nil {
		return ServiceEntry{}, fmt.Errorf("a service in the kernel's answer: %w", err)
	}
	if netmask != nil {
		s.setNetmask(netmask)
	}
	if s.Stats, err = decodeStats(stats, stats64); err != nil {
		return ServiceEntry{}, fmt.Errorf("the counters of service %s: %w", s.ServiceID, err)
	}
	return s, nil
}

func (s *Service) setNetmask(b []byte) {
	if s.Family() == IPv6 {
		s.Prefix = uint8(min(binary.NativeEndian.Uint32(b), 128))
		return
	}
	mask := binary.BigEndian.Uint32(b)
	s.Prefix = uint8(bits.LeadingZeros32(^mask))
	if mask != ^uint32(0)<<(32-s.Prefix) {
		s.OddMask = netip.AddrFrom4([4]byte(b))
	}
}

// decodeServer reads a server; family is the service's, which servers had before
// Linux 3.18 told theirs.
func decodeServer(b []byte, family Family) (s ServerEntry, err error) {
	address := wireAddress{family: family}
	var stats, stats64 []byte
	err = attributes(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case serverFamily:
			address.family = Family(d.Uint16())
		case serverAddress:
			address.octets = d.Bytes()
		case serverPort:
			address.port, err = bigPort(d)
		case serverMethod:
			s.Method = Method(d.Uint32() & 0x7) // IP_VS_CONN_F_FWD_MASK
		case serverWeight:
			s.Weight = d.Uint32()
		case serverUpper:
			s.Upper = d.Uint32()
		case serverLower:
			s.Lower = d.Uint32()
		case serverActive:
			s.Active = d.Uint32()
		case serverInactive:
			s.Inactive = d.Uint32()
		case serverPersistent:
			s.Persistent = d.Uint32()
		case serverTunnelType:
			s.Tunnel.Type = TunnelType(d.Uint8())
		case serverTunnelPort:
			s.Tunnel.Port, err = bigPort(d)
		case serverTunnelFlags:
			s.Tunnel.Flags = TunnelFlags(d.Uint16())
		case serverStats:
			stats = d.Bytes()
		case serverStats64:
			stats64 = d.Bytes()
		}
		return err
	})
	if err == nil {
		s.Address, err = address.addrPort()
	}
	if err != nil {
		return ServerEntry{}, fmt.Errorf("a server in the kernel's answer: %w", err)
	}
	if s.Stats, err = decodeStats(stats, stats64); err != nil {
		return ServerEntry{}, fmt.Errorf("the counters of server %s: %w", s.Address, err)
	}
	return s, nil
}

func bigPort(d *netlink.AttributeDecoder) (uint16, error) {
	b := d.Bytes()
	if len(b) != 2 {
		return 0, fmt.Errorf("port of %d octets", len(b))
	}
	return binary.BigEndian.Uint16(b), nil
}

// decodeStats reads the 64-bit counters, or the others where the kernel has none
// (before Linux 4.1). Of those, octets alone have 64 bits.
func decodeStats(stats, stats64 []byte) (s Stats, err error) {
	wide := stats64 != nil
	if !wide {
		stats64 = stats
	}
	err = attributes(stats64, func(d *netlink.AttributeDecoder) error {
		number := func(is64 bool) uint64 {
			if is64 {
				return d.Uint64()
			}
			return uint64(d.Uint32())
		}
		switch d.Type() {
		case statsConnections:
			s.Counters.Connections = number(wide)
		case statsInPackets:
			s.Counters.InPackets = number(wide)
		case statsOutPackets:
			s.Counters.OutPackets = number(wide)
		case statsInBytes:
			s.Counters.InBytes = number(true)
		case statsOutBytes:
			s.Counters.OutBytes = number(true)
		case statsConnectionRate:
			s.Rates.Connections = number(wide)
		case statsInPacketRate:
			s.Rates.InPackets = number(wide)
		case statsOutPacketRate:
			s.Rates.OutPackets = number(wide)
		case statsInByteRate:
			s.Rates.InBytes = number(wide)
		case statsOutByteRate:
			s.Rates.OutBytes = number(wide)
		}
		return nil
	})
	return s, err
}

func decodeInfo(b []byte) (info Info, err error) {
	err = attributes(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case infoVersion:
			v := d.Uint32()
			info.Version = fmt.Sprintf("%d.%d.%d", v>>16&0xff, v>>8&0xff, v&0xff)
		case infoTableSize:
			info.TableSize = uint64(d.Uint32())
		}
		return nil
	})
	return info, err
}

func decodeTimeouts(b []byte) (t Timeouts, err error) {
	err = attributes(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case attrTimeoutTCP:
			t.TCP = time.Duration(d.Uint32()) * time.Second
		case attrTimeoutTCPFin:
			t.TCPFin = time.Duration(d.Uint32()) * time.Second
		case attrTimeoutUDP:
			t.UDP = time.Duration(d.Uint32()) * time.Second
		}
		return nil
	})
	return t, err
}

func decodeDaemon(b []byte) (s SyncDaemon, err error) {
	err = attributes(b, func(d *netlink.AttributeDecoder) error {
		switch d.Type() {
		case daemonRole:
			s.Role = SyncRole(d.Uint32())
		case daemonInterface:
			s.Interface = d.String()
		case daemonID:
			s.ID = uint8(d.Uint32())
		case daemonMaxLength:
			s.MaxLength = d.Uint16()
		case daemonGroup, daemonGroup6:
			group, ok := netip.AddrFromSlice(d.Bytes())
			if !ok {
				return fmt.Errorf("group of %d octets", len(d.Bytes()))
			}
			s.Group = group
		case daemonPort:
			s.Port = d.Uint16()
		case daemonTTL:
			s.TTL = d.Uint8()
		}
		return nil
	})
	if err != nil {
		return SyncDaemon{}, fmt.Errorf("a sync daemon in the kernel's answer: %w", err)
	}
	return s, nil
}
