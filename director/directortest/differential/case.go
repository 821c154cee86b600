package differential

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Case is a service, a script of events, and what became of each.
type Case struct {
	Name      string             `json:"name"`
	Kernel    string             `json:"kernel,omitempty"` // that answered: uname -r
	Scheduler director.Scheduler `json:"scheduler"`
	Port      bool               `json:"port,omitempty"` // the flags of sh and mh
	Fallback  bool               `json:"fallback,omitempty"`
	IPv6      bool               `json:"ipv6,omitempty"`
	UDP       bool               `json:"udp,omitempty"`
	DR        bool               `json:"dr,omitempty"` // else nat
	// Many: the service is one of all virtual addresses: by firewall mark in the
	// kernel, by prefix here.
	Many bool `json:"many,omitempty"`
	// PersistSeconds is 0 for no persistence.
	PersistSeconds int   `json:"persist_seconds,omitempty"`
	PersistPrefix  uint8 `json:"persist_prefix,omitempty"`
	OnePacket      bool  `json:"one_packet,omitempty"`
	// The kernel's parameters of these names.
	SloppyTCP       bool `json:"sloppy_tcp,omitempty"`
	ExpireNoDest    bool `json:"expire_nodest_conn,omitempty"`
	ExpireQuiescent bool `json:"expire_quiescent_template,omitempty"`
	ReuseMode       int  `json:"conn_reuse_mode"`

	Events []Event `json:"events"`
}

// Service returns the service without its servers.
func (c Case) Service() director.Service {
	mode, err := director.ParseReuseMode(c.ReuseMode)
	if err != nil {
		panic(err) // no kernel has such a mode either
	}
	s := director.Service{
		Key:       director.ServiceKey{Protocol: c.protocol(), Address: c.Virtual(0)},
		Scheduler: c.Scheduler,
		Flags:     director.SchedulerFlags{Port: c.Port, Fallback: c.Fallback},
		VIP:       director.VIPExternal,
		OnePacket: c.OnePacket,
		Rules: director.Rules{
			SloppyTCP: c.SloppyTCP, ExpireNoDestConn: c.ExpireNoDest,
			ExpireQuiescentTemplate: c.ExpireQuiescent, ConnReuse: mode,
		},
	}
	if c.Many {
		prefix := netip.PrefixFrom(c.Virtual(0).Addr(), 28)
		if c.IPv6 {
			prefix = netip.PrefixFrom(c.Virtual(0).Addr(), 124)
		}
		s.Key.Address = netip.AddrPortFrom(prefix.Masked().Addr(), c.Virtual(0).Port())
		s.Key.Bits = uint8(prefix.Bits())
	}
	if c.PersistSeconds > 0 {
		s.Persistence = director.Persistence{Timeout: time.Duration(c.PersistSeconds) * time.Second, Prefix: c.PersistPrefix}
	}
	return s
}

func (c Case) protocol() conntrack.Protocol {
	if c.UDP {
		return conntrack.UDP
	}
	return conntrack.TCP
}

// Virtual returns the virtual address with the number.
func (c Case) Virtual(n int) netip.AddrPort {
	if c.IPv6 {
		return netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:0:1::%x]:80", 1+n))
	}
	return netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", 1+n))
}

// Server returns the server with the number, of an event that sets it.
func (c Case) Server(e Event) realserver.Server {
	s := realserver.Server{Address: c.ServerAddress(e.Server), Weight: e.Weight, Upper: e.Upper, Lower: e.Lower}
	if c.DR {
		s.Method = realserver.DR
	}
	return s
}

// ServerAddress returns the address of the server with the number. Its port is
// the service's with DR, and where the kernel has a mark in place of an address:
// persistence then leaves the port as it is (kernel: ip_vs_core.c,
// ip_vs_sched_persist).
func (c Case) ServerAddress(n int) netip.AddrPort {
	port := 8080
	if c.DR || c.Many {
		port = 80
	}
	if c.IPv6 {
		return netip.MustParseAddrPort(fmt.Sprintf("[fd00:2::%x]:%d", 0x11+n, port))
	}
	return netip.MustParseAddrPort(fmt.Sprintf("10.0.2.%d:%d", 11+n, port))
}

// Client returns the client of an event; 256 of them follow one another in a
// network (a /24, a /64).
func (c Case) Client(e Event) netip.AddrPort {
	if c.IPv6 {
		return netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:f:%x::%x]:%d", e.Client>>8, 1+e.Client&255, e.Port))
	}
	return netip.MustParseAddrPort(fmt.Sprintf("198.51.%d.%d:%d", 100+e.Client>>8, 1+e.Client&255, e.Port))
}
