package ldirectord

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// end translates the service.
func (t *translator) end(v *virtual) error {
	key, problem := v.key()
	if problem != "" {
		t.leaveOut(v, problem)
		return nil
	}
	flags, problem := v.flagsOf()
	if problem == "" && v.isPersistent && (v.persistent == 0 || v.persistent > maxTimeout) {
		problem = fmt.Sprintf("persistent: ipvsadm takes 1 to %d seconds, and refuses the service", maxTimeout)
	}
	if problem != "" {
		t.leaveOut(v, problem)
		return nil
	}
	s := translation.Service{At: v.d.at, What: v.d.String()}
	s.Service = director.Service{
		Key: key, Name: v.name, Scheduler: v.scheduler, Flags: flags, OnePacket: v.onePacket(),
		// ldirectord's address is the cluster manager's.
		VIP: director.VIPExternal, Persistence: v.persistenceOf(key),
	}
	for _, d := range v.reals {
		if problem := v.real(&s, d); problem != "" {
			v.note(translation.LeftOut, d, problem)
		}
	}
	s.Health = v.health(&s)
	if v.interval != 0 && !t.forks {
		v.note(translation.Assumed, v.intervalAt, "ldirectord ignores it unless fork=yes")
	}
	s.Notes = append(s.Notes, v.notes...)
	return t.build.Add(s)
}

// maxTimeout is the longest persistence that ipvsadm takes, in seconds (ipvsadm.c,
// MAX_TIMEOUT).
const maxTimeout = 31 * 24 * 3600

// leaveOut notes that there is no such service.
func (t *translator) leaveOut(v *virtual, problem string) {
	t.note(translation.LeftOut, v.d, problem)
	for _, note := range v.notes {
		t.build.Note(note)
	}
}

// flagsOf returns the scheduler's flags, which end at a blank; problem says what
// ipvsadm, which gets them as they are, does not take.
func (v *virtual) flagsOf() (flags director.SchedulerFlags, problem string) {
	if v.flags == nil {
		return flags, ""
	}
	words := strings.Fields(v.flags.value)
	if len(words) == 0 {
		v.note(translation.NotCarried, *v.flags, "want the scheduler's flags: "+refused)
		return flags, ""
	}
	v.taken(*v.flags, v.flags.value, words[0], words[0])
	for _, word := range strings.Split(words[0], ",") {
		if err := flags.Set(v.scheduler, word); err != nil {
			return flags, fmt.Sprintf("schedflags: %v: ipvsadm refuses the service", err)
		}
	}
	return flags, ""
}

// key returns the service's key; problem says why there is none.
func (v *virtual) key() (key director.ServiceKey, problem string) {
	switch {
	case v.problem != "":
		return key, v.problem
	case v.mark != 0 && v.v6:
		return director.MarkKey(v.mark, netip.IPv6Unspecified()), ""
	case v.mark != 0:
		return director.MarkKey(v.mark, netip.IPv4Unspecified()), ""
	}
	addr, problem := v.address(v.host)
	if problem != "" {
		return key, problem
	}
	port, problem := v.portOf(v.port)
	if problem != "" {
		return key, problem
	}
	return director.ServiceKey{Protocol: v.protocol, Address: netip.AddrPortFrom(addr, port)}, ""
}

// address reads an address of the service's family, in brackets for IPv6, or
// looks a name up.
func (v *virtual) address(host string) (addr netip.Addr, problem string) {
	bare := host
	if inner, ok := strings.CutPrefix(host, "["); ok {
		bare = strings.TrimSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		found := false
		if v.t.names == nil {
			return addr, fmt.Sprintf("%q is not an address, and names are not looked up", host)
		}
		if addr, found = v.t.names.Address(bare); !found {
			return addr, fmt.Sprintf("the host %q is not found", host)
		}
		addr = addr.Unmap()
	}
	switch {
	case addr.Is4() == v.v6:
		return addr, fmt.Sprintf("%s is not of the family of %s", addr, v.d.key)
	case addr.Zone() != "":
		return addr, fmt.Sprintf("%s has a zone", addr)
	}
	return addr, ""
}

// portOf reads a port or looks its name up.
func (v *virtual) portOf(name string) (port uint16, problem string) {
	if strings.Trim(name, "0123456789") == "" {
		number, err := strconv.ParseUint(name, 10, 16)
		if err != nil {
			return 0, fmt.Sprintf("%q is not a port: want 0 to 65535", name)
		}
		return uint16(number), ""
	}
	if v.t.names == nil {
		return 0, fmt.Sprintf("%q is not a port's number, and names are not looked up", name)
	}
	protocol := v.protocol
	if protocol == 0 {
		protocol = conntrack.TCP
	}
	port, found := v.t.names.Port(name, protocol)
	if !found {
		return 0, fmt.Sprintf("there is no port called %q", name)
	}
	return port, ""
}

// onePacket is -o, which ldirectord gives for UDP only.
func (v *virtual) onePacket() bool {
	if v.ops == nil || v.ops.value != "yes" {
		return false
	}
	if v.protocol != conntrack.UDP {
		v.note(translation.NotCarried, *v.ops, "one-packet scheduling is for UDP: ldirectord ignores it")
		return false
	}
	return true
}

func (v *virtual) persistenceOf(key director.ServiceKey) director.Persistence {
	if !v.isPersistent {
		if v.netmask != nil {
			v.note(translation.NotCarried, *v.netmask, "the service is not persistent: ldirectord ignores it")
		}
		return director.Persistence{}
	}
	p := director.Persistence{Timeout: time.Duration(v.persistent) * time.Second, Prefix: key.FullPrefix()}
	if v.netmask == nil {
		return p
	}
	if v.v6 {
		if bits, err := strconv.ParseUint(v.netmask.value, 10, 8); err == nil && bits >= 1 && bits <= 128 {
			p.Prefix = uint8(bits)
		} else {
			v.note(translation.Differs, *v.netmask, "want a prefix length from 1 to 128: every client is one by itself")
		}
		return p
	}
	mask, err := netip.ParseAddr(v.netmask.value)
	bits, ok := translation.MaskBits(mask)
	switch {
	case err != nil || !mask.Is4():
		v.note(translation.Differs, *v.netmask, "want a netmask such as 255.255.255.0: every client is one by itself; "+refused)
	case !ok:
		v.note(translation.Differs, *v.netmask, "the netmask has holes, and Shunt's networks of clients are prefixes: every client is one by itself")
	default:
		p.Prefix = bits
	}
	return p
}
