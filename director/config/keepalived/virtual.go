package keepalived

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// virtual is a virtual_server as it is read.
type virtual struct {
	n     *node
	notes []translation.Note // their services are known at the end

	addr  netip.Addr // not valid with a group or a mark
	port  uint16
	mark  uint32
	group *group

	family      family
	scheduler   director.Scheduler
	flags       director.SchedulerFlags
	onePacket   bool
	method      method
	timeout     uint32 // seconds of persistence; 0: none
	granularity granularity
	// madePersistent is the persistence_granularity that the timeout is of, if no
	// persistence_timeout has one.
	madePersistent *node
	engine         string
	protocol       conntrack.Protocol
	weight         uint32 // of servers that have none of their own
	name           string
	servers        []*real
	sorry          *real

	policy
	globals *globals
}

// granularity is the length of a client network's prefix, if one was set.
type granularity struct {
	family family
	bits   uint8
}

// defaultTimeout is persistence_timeout's without a value, in seconds
// (keepalived: libipvs.h, IPVS_SVC_PERSISTENT_TIMEOUT).
const defaultTimeout = 360

// maxTimeout is the largest persistence_timeout (keepalived: global_data.h,
// LVS_MAX_TIMEOUT).
const maxTimeout = 31 * 24 * 3600

// virtualServer translates a virtual_server: one service, or those of its group.
func (t *translator) virtualServer(n *node) error {
	v := &virtual{n: n, weight: realserver.DefaultWeight, globals: &t.global}
	if problem := v.head(t.groups); problem != "" {
		t.note(translation.LeftOut, n, problem)
		return nil
	}
	if n.unopened {
		v.noteBlock(n)
	}
	for _, directive := range n.body {
		v.directive(directive)
	}
	v.settle()
	if problem := v.ignored(); problem != "" {
		t.note(translation.LeftOut, n, problem)
		for _, note := range v.notes {
			t.build.Note(note)
		}
		return nil
	}
	if t.servers += len(v.servers) * v.size(); t.servers > translation.MaxServers {
		return translation.Errorf(n.at, "there are more than %d servers in all services up to %s", translation.MaxServers, n)
	}
	for _, s := range v.services(t.users[n.word(2)]) {
		t.add(s)
	}
	return nil
}

// ignored says why keepalived ignores the virtual server as a whole.
func (v *virtual) ignored() string {
	switch {
	case v.group != nil && v.group.mismatch(v.family) != "":
		return v.group.mismatch(v.family)
	case len(v.servers) == 0:
		return "there is no real_server: keepalived ignores it"
	}
	return ""
}

// add adds a service. Of several with one address the kernel takes the first, and
// keepalived adds the servers of the others to that one: it does not look whose
// service it is (seen with 2.2.7).
func (t *translator) add(s translation.Service) {
	i, found := t.byKey[s.Key]
	if !found {
		t.byKey[s.Key] = len(t.services)
		t.services = append(t.services, s)
		return
	}
	first := &t.services[i]
	first.Notes = append(first.Notes, translation.Note{
		Position: s.At, Kind: translation.Assumed, What: s.What,
		Why: fmt.Sprintf("%s is the service of %s already: keepalived adds the servers to that, whose settings count", s.Key, first.At),
	})
	first.Notes = append(first.Notes, s.Notes...)
	first.Shared = append(first.Shared, s.Shared...)
	for i, server := range s.Servers {
		first.AddServer(server, s.Sources[i])
	}
}

// head reads IP PORT, fwmark N or group NAME; problem says why keepalived skips
// the block.
func (v *virtual) head(groups map[string]*group) (problem string) {
	var taken [2]string
	switch first, second := v.n.word(1), v.n.word(2); first {
	case "group":
		if v.group = groups[second]; v.group == nil {
			return fmt.Sprintf("there is no virtual_server_group %q", second)
		}
	case "fwmark":
		v.mark, taken[1], problem = parseMark(second)
	default:
		var ok bool
		if v.addr, taken[0], ok = address(first); !ok {
			return fmt.Sprintf("%q is not an address: names are not looked up", first)
		}
		v.family = familyOf(v.addr)
		v.port, taken[1], problem = parsePort(second)
	}
	if problem == "" {
		v.headNotes(v.n, taken[:]...)
	}
	return problem
}

// headNotes notes how the words in front of a block were taken, and that there are
// too many.
func (v *virtual) headNotes(n *node, taken ...string) {
	for _, why := range taken {
		if why != "" {
			v.note(translation.Assumed, n, why)
		}
	}
	if len(n.words) > 3 {
		v.note(translation.NotCarried, n, moreWords)
	}
}

// note notes what became of a directive.
func (v *virtual) note(kind translation.Kind, n *node, why string) {
	v.notes = append(v.notes, translation.Note{Position: n.at, Kind: kind, What: n.String(), Why: why})
}

// noteOf notes what became of a server's directive.
func (v *virtual) noteOf(r *real, kind translation.Kind, n *node, why string) {
	v.note(kind, n, why)
	if r != nil {
		v.notes[len(v.notes)-1].Server = netip.AddrPortFrom(r.addr, r.port)
	}
}

// assume notes what a thing was taken for that is not in the text.
func (v *virtual) assume(what, why string) {
	v.notes = append(v.notes, translation.Note{Position: v.n.at, Kind: translation.Assumed, What: what, Why: why})
}

// directive reads a line of the block.
func (v *virtual) directive(n *node) {
	switch n.word(0) {
	case "real_server":
		v.realServer(n)
		return
	case "sorry_server":
		v.sorryServer(n)
		return
	case "sorry_server_lvs_method":
		v.sorryMethod(n)
		return
	case "ip_family":
		v.ipFamily(n)
	case "lb_algo", "lvs_sched":
		v.schedule(n)
	case "ops":
		v.onePacket = true
	case "flag-1", "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback":
		v.flag(n)
	case "lb_kind", "lvs_method":
		if problem := v.method.parse(n.args()); problem != "" {
			v.note(translation.Differs, n, problem)
		}
		return
	case "persistence_timeout":
		v.persistence(n)
	case "persistence_granularity":
		v.granular(n)
	case "persistence_engine":
		v.engine = n.word(1)
	case "protocol":
		v.proto(n)
	case "weight":
		if weight, ok := v.number(n, 1, realserver.MaxWeight); ok {
			v.weight = weight
		}
	case "snmp_name":
		v.called(n)
		return
	case "virtual_server", "virtual_server_group":
		v.note(translation.LeftOut, n, misplaced)
		return
	case "quorum_up", "quorum_down":
		v.policyDirective(n)
		return
	default:
		if !v.policyDirective(n) {
			v.note(reasonOf(n, ofVirtual))
			return
		}
	}
	if len(n.words) > 2 {
		v.note(translation.NotCarried, n, moreWords)
	}
}

// number reads the word behind the directive, leniently; ok is false if keepalived
// ignores the directive.
func (v *virtual) number(n *node, least, most uint64) (uint32, bool) {
	text := n.word(1)
	if len(n.words) == 1 {
		v.note(translation.Differs, n, "the value is missing: keepalived does not start with it; here the directive is ignored")
		return 0, false
	}
	number, odd, ok := parseLenient(text, least, most)
	if !ok {
		v.note(translation.Differs, n, notNumber(text, least, most))
		return 0, false
	}
	if odd {
		v.note(translation.Assumed, n, asKeepalived(text, number))
	}
	return number, true
}

// notNumber is the reason of a note on a number that keepalived does not take.
func notNumber(text string, least, most uint64) string {
	return fmt.Sprintf("%q is not a number from %d to %d: keepalived ignores the directive", text, least, most)
}

func (v *virtual) ipFamily(n *node) {
	switch f, ok := parseFamily(n.word(1)); {
	case !ok:
		v.note(translation.NotCarried, n, fmt.Sprintf("unknown family %q: want inet or inet6", n.word(1)))
	case v.family != unknown && v.family != f:
		v.note(translation.NotCarried, n, "the service has the other family already: keepalived ignores the directive")
	default:
		v.family = f
	}
}

func (v *virtual) schedule(n *node) {
	if s := director.Scheduler(n.word(1)); s.Known() {
		v.scheduler = s
	} else {
		v.note(translation.Differs, n, "unknown scheduler: keepalived ignores the directive")
	}
}

// flag sets a scheduler's flag. keepalived knows those of sh and mh by the
// scheduler as it was set up to here (keepalived: check_parser.c, lbflags_handler).
func (v *virtual) flag(n *node) {
	name := n.word(0)
	if prefix, _, _ := strings.Cut(name, "-"); prefix != "flag" && prefix != string(v.scheduler) {
		v.note(translation.NotCarried, n, fmt.Sprintf("keepalived ignores the flag, since the scheduler is not %s up to here", prefix))
		return
	}
	if err := v.flags.Set(v.scheduler, name); err != nil {
		v.note(translation.NotCarried, n, err.Error())
	}
}

func (v *virtual) persistence(n *node) {
	if len(n.words) == 1 {
		v.timeout, v.madePersistent = defaultTimeout, nil
	} else if timeout, ok := parseStrict(n.word(1), 1, maxTimeout); ok {
		v.timeout, v.madePersistent = timeout, nil
	} else {
		v.note(translation.Differs, n, notNumber(n.word(1), 1, maxTimeout))
	}
}

// granular reads persistence_granularity: a netmask, or a prefix length for IPv6.
// It makes the service persistent (keepalived: check_parser.c, pgr_handler).
func (v *virtual) granular(n *node) {
	text := n.word(1)
	f := v.family
	if f == unknown {
		f = inet6
		if strings.Contains(text, ".") {
			f = inet
		}
	}
	g := granularity{family: f}
	number, isNumber := parseStrict(text, 0, 128)
	mask, err := netip.ParseAddr(text)
	switch {
	case f == inet6 && (!isNumber || number < 1):
		v.note(translation.Differs, n, fmt.Sprintf("%q is not a prefix length from 1 to 128: keepalived ignores the directive", text))
		return
	case f == inet6:
		g.bits = uint8(number)
	case isNumber && number <= 32:
		g.bits = uint8(number)
		v.note(translation.Differs, n, fmt.Sprintf("taken as a prefix length, while keepalived takes it as the netmask 0.0.0.%d", number))
	case err != nil || !mask.Is4():
		v.note(translation.Differs, n, fmt.Sprintf("%q is not a netmask: keepalived ignores the directive", text))
		return
	default:
		var isPrefix bool
		if g.bits, isPrefix = translation.MaskBits(mask); !isPrefix {
			g.bits = 32
			v.note(translation.Differs, n, "the netmask has holes, and Shunt's networks of clients are prefixes: every client is one by itself")
		}
	}
	v.granularity, v.family = g, f
	if v.timeout == 0 {
		v.timeout, v.madePersistent = defaultTimeout, n
	}
	if v.group != nil {
		v.note(translation.Differs, n, "keepalived forgets it for services of groups (ipvswrapper.c, ipvs_group_range_cmd); Shunt keeps to it")
	}
}

func (v *virtual) proto(n *node) {
	switch p, err := conntrack.ParseProtocol(strings.ToLower(n.word(1))); {
	case err != nil:
		v.note(translation.Differs, n, fmt.Sprintf("unknown protocol %q: keepalived ignores the directive", n.word(1)))
	default:
		v.protocol = p
	}
}

// called takes the name for SNMP as the service's.
func (v *virtual) called(n *node) {
	v.name = translation.Name(n.word(1))
	switch {
	case v.name == "":
		v.note(translation.NotCarried, n, "no service can have the name")
	case v.name != n.word(1):
		v.note(translation.Assumed, n, fmt.Sprintf("the name became %q", v.name))
	}
}
