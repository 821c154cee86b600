package keepalived

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/shunt-lb/shunt/director/config/translation"
	"github.com/shunt-lb/shunt/realserver"
)

// real is a real_server or a sorry_server as it is read.
type real struct {
	n            *node
	addr         netip.Addr
	port         uint16 // 0: the service's
	method       method
	weight       uint32
	weightSet    bool
	upper, lower uint32

	settings         settings
	checkers         []*checker
	up, down         []string // commands that are told
	upNode, downNode *node
}

// server reads an address and a port; problem says why keepalived skips it.
func (v *virtual) server(n *node) (r *real, problem string) {
	addr, takenAddr, ok := address(n.word(1))
	if !ok {
		return nil, fmt.Sprintf("%q is not an address: names are not looked up", n.word(1))
	}
	port, takenPort, problem := parsePort(n.word(2))
	if problem == "" {
		v.headNotes(n, takenAddr, takenPort)
	}
	return &real{n: n, addr: addr, port: port, method: v.method}, problem
}

// realServer reads a real_server. One of another family than the service's goes
// if it is not reached by a tunnel; where the service has none yet, it gets the
// server's (keepalived: check_parser.c, rs_end_handler).
func (v *virtual) realServer(n *node) {
	r, problem := v.server(n)
	if problem != "" {
		v.note(translation.LeftOut, n, problem)
		return
	}
	from := len(v.notes)
	v.noteBlock(n)
	for _, directive := range n.body {
		v.serverDirective(r, directive)
	}
	for i := range v.notes[from:] {
		v.notes[from+i].Server = netip.AddrPortFrom(r.addr, r.port)
	}
	if !r.method.set || r.method.method != realserver.Tunnel {
		switch f := familyOf(r.addr); v.family {
		case unknown:
			v.family = f
		case f:
		default:
			v.note(translation.LeftOut, n, "the service is of the other address family, and the method is no tunnel: keepalived skips the server")
			return
		}
	}
	v.servers = append(v.servers, r)
}

// serverDirective reads a line of a real_server.
func (v *virtual) serverDirective(r *real, n *node) {
	set := func(to *uint32, most uint64) {
		if number, ok := v.number(n, 0, most); ok {
			*to = number
		}
	}
	switch n.word(0) {
	case "weight":
		if weight, ok := v.number(n, 0, realserver.MaxWeight); ok {
			r.weight, r.weightSet = weight, true
		}
	case "lvs_method":
		if problem := r.method.parse(n.args()); problem != "" {
			v.note(translation.Differs, n, problem)
		}
		return
	case "uthreshold":
		set(&r.upper, math.MaxUint32)
	case "lthreshold":
		set(&r.lower, math.MaxUint32)
	case "notify_up":
		if v.notify(&r.up, n) {
			r.upNode = n
		}
		return
	case "notify_down":
		if v.notify(&r.down, n) {
			r.downNode = n
		}
		return
	case "real_server", "virtual_server", "virtual_server_group":
		v.note(translation.LeftOut, n, misplaced)
		return
	default:
		if v.checker(r, n) {
			return
		}
		if !v.setting(&r.settings, n, ofServer) {
			v.note(reasonOf(n, ofServer))
			return
		}
	}
	if len(n.words) > 2 {
		v.note(translation.NotCarried, n, moreWords)
	}
}

// noteBlock notes that a block is not as it should be.
func (v *virtual) noteBlock(n *node) {
	switch {
	case n.unopened:
		v.note(translation.Differs, n, "the block has no {: as keepalived does, what follows up to the next } is taken for the block; check what was meant")
	case !n.block:
		v.note(translation.Differs, n, "the block is missing: keepalived takes the } that follows for its end, and what comes after that for the virtual_server's; "+
			"here the } is the virtual_server's")
	}
}

// has reports whether the directive's block has one of the name.
func (n *node) has(name string) bool {
	for _, directive := range n.body {
		if directive.word(0) == name {
			return true
		}
	}
	return false
}

// sorryServer reads a sorry_server, which counts for the service's family, too.
func (v *virtual) sorryServer(n *node) {
	r, problem := v.server(n)
	if problem != "" {
		v.note(translation.NotCarried, n, problem)
		return
	}
	v.sorry = r
}

func (v *virtual) sorryMethod(n *node) {
	if v.sorry == nil {
		v.note(translation.NotCarried, n, "there is no sorry_server up to here: keepalived ignores it")
	} else if problem := v.sorry.method.parse(n.args()); problem != "" {
		v.note(translation.Differs, n, problem)
	}
}
