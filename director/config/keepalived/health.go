package keepalived

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// policy is what a virtual server says of servers that fail.
type policy struct {
	settings             settings
	quorum, hysteresis   uint32
	quorumUp, quorumDown []string
	initial              director.Initial
	down                 director.DownAction
	checked              bool // a server has a checker
}

// policyDirective reads a line of it; false if it is none.
func (v *virtual) policyDirective(n *node) bool {
	switch n.word(0) {
	case "quorum":
		v.quorum = 1 // keepalived: check_parser.c, quorum_handler
		if quorum, ok := v.number(n, 1, maxNumber); ok {
			v.quorum = quorum
		}
	case "hysteresis":
		if hysteresis, ok := v.number(n, 0, maxNumber); ok {
			v.hysteresis = hysteresis
		}
	case "quorum_up":
		v.notify(&v.quorumUp, n)
	case "quorum_down":
		v.notify(&v.quorumDown, n)
	default:
		return v.setting(&v.settings, n, ofVirtual)
	}
	return true
}

// notify reads a command that is told of changes, and reports whether it is one.
func (v *virtual) notify(to *[]string, n *node) bool {
	command, rest, problem := commandOf(n)
	switch {
	case problem != "":
		v.note(translation.NotCarried, n, "the command is not run: "+problem)
	case *to != nil:
		v.note(translation.NotCarried, n, "there is such a command already: keepalived ignores this one")
	default:
		*to = command
		if len(rest) > 0 {
			v.note(translation.Differs, n, fmt.Sprintf("commands that are told of changes run as director.script-user, not as %s", rest[0]))
		}
		return true
	}
	return false
}

// settlePolicy finishes the checkers, and what follows from them, which is one for
// all servers of a service in Shunt.
func (v *virtual) settlePolicy() {
	alpha, inhibit, checked := 0, 0, 0
	for _, r := range v.servers {
		if len(r.checkers) == 0 {
			v.unchecked(&r.settings, r)
			continue
		}
		checked++
		isAlpha := false
		for _, c := range r.checkers {
			v.finish(c, r)
			isAlpha = isAlpha || first(false, c.settings.alpha, r.settings.alpha, v.settings.alpha)
		}
		if isAlpha {
			alpha++
		}
		if first(false, r.settings.inhibit, v.settings.inhibit) {
			inhibit++
		}
	}
	if v.checked = checked > 0; !v.checked {
		v.unchecked(&v.settings, nil)
		return
	}
	v.initial = director.InitialUp
	if alpha > 0 {
		v.initial = director.InitialDown
		if alpha < checked {
			v.assumeDiffers("alpha", "some of the servers have it: here none of them takes clients before it has answered the service's checks")
		}
	}
	v.down = director.DownRemove
	if inhibit > 0 {
		v.down = director.DownInhibit
		if inhibit < checked {
			v.assumeDiffers("inhibit_on_failure", "some of the servers have it: here all of them get the weight 0 when they fail")
		}
	}
}

// unchecked notes settings that nothing has.
func (v *virtual) unchecked(s *settings, r *real) {
	for _, n := range s.nodes {
		v.noteOf(r, translation.NotCarried, n, noCheckers)
	}
}

// assumeDiffers notes what differs of something that is said in several places.
func (v *virtual) assumeDiffers(what, why string) {
	v.notes = append(v.notes, translation.Note{Position: v.n.at, Kind: translation.Differs, What: what, Why: why})
}

// settleQuorum limits the quorum as keepalived does (check_data.c,
// validate_check_config). Its hysteresis goes both ways: the quorum is lost below the
// one less the other, and there again from their sum on (ipwrapper.c,
// update_quorum_state). Shunt's is lost below the quorum itself.
func (v *virtual) settleQuorum() {
	if v.quorum == 0 {
		v.quorum = 1
	}
	var sum uint64
	for _, r := range v.servers {
		sum += uint64(r.weight)
	}
	if uint64(v.quorum) > sum && sum > 0 {
		v.assume(fmt.Sprintf("quorum %d", sum), fmt.Sprintf("%d is more than the servers' weights come to: keepalived lowers it", v.quorum))
		v.quorum = uint32(sum)
	}
	if v.hysteresis >= v.quorum {
		v.assume(fmt.Sprintf("hysteresis %d", v.quorum-1), fmt.Sprintf("%d is not less than the quorum: keepalived lowers it", v.hysteresis))
		v.hysteresis = v.quorum - 1
	}
	if v.hysteresis > 0 {
		v.assume(fmt.Sprintf("quorum %d, hysteresis %d", v.quorum-v.hysteresis, 2*uint64(v.hysteresis)),
			fmt.Sprintf("what they are in Shunt: keepalived loses the quorum below %d - %[2]d, and has it again from %[1]d + %[2]d on", v.quorum, v.hysteresis))
	}
}

// healthOf returns the policy of one of the services, and adds its notes to it.
func (v *virtual) healthOf(s *translation.Service) director.Health {
	h := director.Health{
		Initial: v.initial, Down: v.down, Sorry: v.sorryOf(s),
		Notify: director.Notify{QuorumUp: v.quorumUp, QuorumDown: v.quorumDown, FIFO: v.globals.fifo},
	}
	if quorum := v.quorum - v.hysteresis; quorum > 1 || v.hysteresis > 0 {
		h.Quorum, h.Hysteresis = quorum, uint32(min(2*uint64(v.hysteresis), maxNumber-uint64(quorum)))
	}
	h.Notify.Up = v.told(s, "notify_up", func(r *real) (*node, []string) { return r.upNode, r.up })
	h.Notify.Down = v.told(s, "notify_down", func(r *real) (*node, []string) { return r.downNode, r.down })
	return h
}

// told returns the command that is told of all servers: theirs are the same, or differ
// in the address and port alone.
func (v *virtual) told(s *translation.Service, what string, of func(*real) (*node, []string)) []string {
	var same, named []string
	with, differ, differNamed := 0, false, false
	for _, r := range v.servers {
		_, command := of(r)
		if command == nil {
			continue
		}
		port := netip.AddrPortFrom(r.addr, r.port)
		its := translation.Named(command, s.Key.ServerAddress(port))
		if with++; with == 1 {
			same, named = command, its
		}
		differ, differNamed = differ || !slices.Equal(same, command), differNamed || !slices.Equal(named, its)
	}
	note := func(kind translation.Kind, why string) {
		for _, r := range v.servers {
			if n, command := of(r); command != nil {
				s.Notes = append(s.Notes, translation.Note{
					Position: n.at, Kind: kind, What: n.String(), Why: why, Server: netip.AddrPortFrom(r.addr, r.port),
				})
			}
		}
	}
	switch {
	case with == 0:
		return nil
	case with < len(v.servers):
		note(translation.NotCarried, fmt.Sprintf("%d of %d servers have a %s, and Shunt tells one command of all servers of a service: none is told", with, len(v.servers), what))
		return nil
	case differNamed:
		note(translation.NotCarried, "the servers' commands differ, and Shunt tells one command of all servers of a service: none is told; %h and %p can stand for a server's address and port")
		return nil
	case differ:
		note(translation.Assumed, "the servers' commands differ in their address and port alone: %h and %p stand for them")
		return named
	}
	return same
}

// sorryOf returns the sorry server as the service has it. One of the service's own
// servers cannot be that, too.
func (v *virtual) sorryOf(s *translation.Service) []realserver.Server {
	if v.sorry == nil {
		return nil
	}
	server, notes := realServerOf(v.sorry, s.Key)
	s.Notes = append(s.Notes, notes...)
	server.Weight = realserver.DefaultWeight
	for _, own := range s.Servers {
		if s.Key.ServerAddress(own.Address) == s.Key.ServerAddress(server.Address) {
			s.Notes = append(s.Notes, translation.Note{
				Position: v.sorry.n.at, Kind: translation.NotCarried, What: v.sorry.n.String(),
				Why: "it is one of the service's own servers, which its checks decide on", Server: server.Address,
			})
			return nil
		}
	}
	return []realserver.Server{server}
}

// askedOf returns what a server is asked.
func (v *virtual) askedOf(s *translation.Service, r *real, server realserver.Server) []translation.Asked {
	var all []translation.Asked
	for _, c := range r.checkers {
		all = append(all, c.asked...)
	}
	return s.AskedAt(server, all, netip.AddrPortFrom(r.addr, r.port))
}
