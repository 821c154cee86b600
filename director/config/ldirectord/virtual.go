package ldirectord

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// virtual is a virtual service as it is read. Names are looked up at its end, when
// the protocol is known.
type virtual struct {
	t     *translator
	d     directive
	notes []translation.Note // their service is known at the end
	v6    bool               // virtual6

	host, port string // not with a mark
	mark       uint32
	problem    string // why there cannot be such a service

	protocol   conntrack.Protocol // 0 with a mark
	scheduler  director.Scheduler
	flags      []directive // schedflags: they mean what the scheduler at the end says
	persistent uint32      // seconds; 0: not
	netmask    *directive
	ops        *directive
	name       string
	off        bool // checktype=off: no server gets clients
	reals      []directive
}

// newVirtual begins a service: address:port, name:port, [address]:port with
// virtual6, or a firewall mark.
func newVirtual(t *translator, d directive) *virtual {
	v := &virtual{t: t, d: d, v6: d.key == "virtual6", scheduler: director.WeightedRoundRobin, protocol: conntrack.TCP}
	words := strings.Fields(d.value + " .")
	value := words[0]
	if len(words) > 2 && !strings.HasPrefix(words[1], "#") {
		v.note(translation.NotCarried, d, "there are more words than an address: ldirectord ignores them")
	}
	if mark, err := strconv.ParseUint(value, 10, 32); err == nil {
		if v.mark, v.protocol = uint32(mark), 0; mark == 0 {
			v.problem = "0 is not a firewall mark"
		}
		return v
	}
	colon := strings.LastIndexByte(value, ':')
	if colon < strings.LastIndexByte(value, ']') || colon <= 0 || colon == len(value)-1 {
		v.problem = fmt.Sprintf("%q is not an address and a port, nor a firewall mark: %s", value, refused)
		return v
	}
	v.host, v.port = value[:colon], value[colon+1:]
	if strings.HasPrefix(v.host, "[") && !v.v6 {
		v.problem = "an IPv6 address wants virtual6 instead of virtual: " + refused
	}
	if v.port == "53" || v.port == "domain" {
		v.protocol = conntrack.UDP
	}
	return v
}

// note notes what became of a directive.
func (v *virtual) note(kind translation.Kind, d directive, why string) {
	v.notes = append(v.notes, translation.Note{Position: d.at, Kind: kind, What: d.String(), Why: why})
}

// directive reads a line of the service.
func (v *virtual) directive(d directive) {
	switch d.key {
	case "real", "real6":
		if (d.key == "real6") != v.v6 {
			v.note(translation.LeftOut, d, fmt.Sprintf("%s wants the same number in both keys: %s", v.d.key, refused))
			return
		}
		v.reals = append(v.reals, d)
	case "scheduler":
		v.schedule(d)
	case "schedflags":
		v.flags = append(v.flags, d)
	case "persistent":
		v.persistence(d)
	case "netmask":
		v.netmask = &d
	case "protocol":
		v.proto(d)
	case "ops":
		if v.ops = &d; d.value != "yes" && d.value != "no" {
			v.note(translation.LeftOut, d, "want yes or no: "+refused)
		}
	case "servicename":
		v.called(d)
	case "checktype":
		v.checks(d)
	case "":
		if d.value != "" {
			v.note(translation.LeftOut, directive{d.at, "", d.value}, "want key=value; "+refused)
		}
	default:
		kind, why := reasonOf(d, ofVirtual)
		v.note(kind, d, why)
	}
}

func (v *virtual) schedule(d directive) {
	v.scheduler = director.Scheduler(d.value)
	if !v.scheduler.Known() {
		v.note(translation.LeftOut, d, "unknown scheduler: ipvsadm refuses the service")
	}
}

func (v *virtual) persistence(d directive) {
	seconds, err := strconv.ParseUint(d.value, 10, 32)
	if err != nil || seconds < 1 {
		v.note(translation.Differs, d, "want a number of seconds: the service is not persistent")
		return
	}
	v.persistent = uint32(seconds)
}

func (v *virtual) proto(d directive) {
	switch {
	case v.mark != 0 && d.value == "fwm", v.mark == 0 && d.value == "tcp", v.mark == 0 && d.value == "udp":
	case v.mark != 0:
		v.note(translation.NotCarried, d, "a firewall mark's service has packets of any protocol, fwm: "+refused)
		return
	default:
		v.note(translation.Differs, d, fmt.Sprintf("want tcp or udp: %s; taken as %s", refused, v.protocol))
		return
	}
	switch d.value {
	case "tcp":
		v.protocol = conntrack.TCP
	case "udp":
		v.protocol = conntrack.UDP
	}
}

// checks reads checktype. Without checks, on is what Shunt does.
func (v *virtual) checks(d directive) {
	switch d.value {
	case "on":
		v.off = false
	case "off":
		v.off = true
		v.note(translation.Differs, d, "ldirectord gives no server to the service: here they have the weight 0")
	default:
		v.off = false
		v.note(translation.NotCarried, d, noCheck)
	}
}

func (v *virtual) called(d directive) {
	v.name = translation.Name(d.value)
	switch {
	case v.name == "":
		v.note(translation.NotCarried, d, "no service can have the name")
	case v.name != d.value:
		v.note(translation.Assumed, d, fmt.Sprintf("the name became %q", v.name))
	}
}
