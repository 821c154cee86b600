package ldirectord

import (
	"fmt"
	"net/netip"
	"regexp"
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

	protocol  conntrack.Protocol // 0 with a mark
	scheduler director.Scheduler
	flags     *directive // schedflags: they mean what the scheduler at the end says
	// isPersistent is whether there is a timeout, in seconds; ipvsadm may refuse it.
	isPersistent bool
	persistent   uint32
	netmask      *directive
	ops          *directive
	name         string
	off          bool // checktype=off: no server gets clients
	reals        []directive

	settings
	checkType, service, command, request, receive, httpMethod, virtualHost string
	connects                                                               uint32 // checktype=N: between two requests
	checkPort                                                              uint16
	serviceAt, commandAt                                                   directive              // the service's first line if there is none
	said                                                                   map[string]bool        // notes that are made once
	index                                                                  map[netip.AddrPort]int // of the servers that the service has
}

// What ldirectord's patterns find in values: the first part that fits counts, and
// what is around it does not (ldirectord, read_config).
var (
	hostAndPort = regexp.MustCompile(`^([0-9A-Za-z._+-]+|\[[0-9A-Fa-f:]+\]):([0-9A-Za-z_-]+)`)
	leadingMark = regexp.MustCompile(`^[0-9]+`)
	digits      = regexp.MustCompile(`[0-9]+`)
	lowercase   = regexp.MustCompile(`[a-z]+`)
	oneWord     = regexp.MustCompile(`[0-9A-Za-z_]+`)
	dashedWord  = regexp.MustCompile(`[0-9A-Za-z_-]+`)
)

// newVirtual begins a service: address:port, name:port, [address]:port with
// virtual6, or a firewall mark, which whatever begins with a digit is.
func newVirtual(t *translator, d directive) *virtual {
	v := &virtual{
		t: t, d: d, v6: d.key == "virtual6", scheduler: director.WeightedRoundRobin, protocol: conntrack.TCP, said: make(map[string]bool),
		checkType: "negotiate", command: "/bin/true", request: "/", httpMethod: "GET", // ldirectord, read_config
		serviceAt: d, commandAt: d,
	}
	value, _, _ := strings.Cut(d.value, "#")
	value = strings.TrimSpace(value)
	parts := hostAndPort.FindStringSubmatch(d.value)
	if parts == nil {
		digits := leadingMark.FindString(d.value)
		mark, err := strconv.ParseUint(digits, 10, 32)
		switch {
		case digits == "":
			v.problem = fmt.Sprintf("%q is not an address and a port, nor a firewall mark: %s", d.value, refused)
		case err != nil || mark == 0:
			v.problem = digits + " is not a firewall mark: ipvsadm refuses the service"
		}
		v.mark, v.protocol, v.service = uint32(mark), 0, "none"
		v.taken(d, value, "firewall mark "+digits, digits)
		return v
	}
	v.host, v.port = parts[1], parts[2]
	v.taken(d, value, parts[0], parts[0])
	if strings.HasPrefix(v.host, "[") && !v.v6 {
		v.problem = "an IPv6 address wants virtual6 instead of virtual: " + refused
	}
	if v.port == "53" || v.port == "domain" {
		v.protocol = conntrack.UDP
	}
	return v
}

// taken notes that a value was taken for a part of itself.
func (v *virtual) taken(d directive, value, as, part string) {
	if v.problem == "" && value != part {
		v.note(translation.Assumed, d, "taken as "+as+", as ldirectord does")
	}
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
		v.flags = &d // the last one counts
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
	case "fallback", "fallback6":
		if (d.key == "fallback6") != v.v6 {
			v.note(translation.LeftOut, d, fmt.Sprintf("%s wants the same number in both keys: %s", v.d.key, refused))
			return
		}
		v.setting(d, v.note)
	default:
		if v.setting(d, v.note) || v.checkDirective(d) {
			return
		}
		kind, why := reasonOf(d, ofVirtual)
		v.note(kind, d, why)
	}
}

func (v *virtual) schedule(d directive) {
	name := lowercase.FindString(d.value)
	if name == "" {
		v.note(translation.Differs, d, fmt.Sprintf("want the scheduler's name: %s; the scheduler is %s", refused, v.scheduler))
		return
	}
	v.taken(d, d.value, name, name)
	if v.scheduler = director.Scheduler(name); !v.scheduler.Known() {
		v.note(translation.LeftOut, d, "unknown scheduler: ipvsadm refuses the service")
	}
}

func (v *virtual) persistence(d directive) {
	text := digits.FindString(d.value)
	if text == "" {
		v.note(translation.Differs, d, "want a number of seconds: "+refused+"; the service is not persistent")
		return
	}
	v.taken(d, d.value, text, text)
	// A number that is too large for 32 bits is too large for the service, too.
	seconds, _ := strconv.ParseUint(text, 10, 32)
	v.persistent, v.isPersistent = uint32(seconds), true
}

func (v *virtual) proto(d directive) {
	word := oneWord.FindString(d.value)
	switch {
	case v.mark != 0 && word == "fwm", v.mark == 0 && word == "tcp", v.mark == 0 && word == "udp":
	case v.mark != 0:
		v.note(translation.NotCarried, d, "a firewall mark's service has packets of any protocol, fwm: "+refused)
		return
	default:
		v.note(translation.Differs, d, fmt.Sprintf("want tcp or udp: %s; taken as %s", refused, v.protocol))
		return
	}
	v.taken(d, d.value, word, word)
	switch word {
	case "tcp":
		v.protocol = conntrack.TCP
	case "udp":
		v.protocol = conntrack.UDP
	}
}

// checks reads checktype. A number wherever it stands is how many connections are made
// between two requests.
func (v *virtual) checks(d directive) {
	if number := digits.FindString(d.value); number != "" {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > maxConnects {
			v.note(translation.Differs, d, fmt.Sprintf("taken as %d", maxConnects))
			n = maxConnects
		}
		v.checkType, v.connects, v.off = "combined", uint32(n), false
		return
	}
	switch word := dashedWord.FindString(d.value); word {
	case "on", "connect", "negotiate", "ping", "external", "external-perl":
		v.checkType, v.off = word, false
	case "off":
		v.checkType, v.off = word, true
		v.note(translation.Differs, d, "ldirectord gives no server to the service: here they have the weight 0")
	default:
		v.note(translation.Differs, d, fmt.Sprintf("want connect, negotiate, ping, on, off, external, external-perl or a number: %s; taken as %s", refused, v.checkType))
	}
}

// maxConnects bounds the connections between two requests: a check's interval ends
// at a day.
const maxConnects = 10000

func (v *virtual) called(d directive) {
	v.name = translation.Name(d.value)
	switch {
	case v.name == "":
		v.note(translation.NotCarried, d, "no service can have the name")
	case v.name != d.value:
		v.note(translation.Assumed, d, fmt.Sprintf("the name became %q", v.name))
	}
}
