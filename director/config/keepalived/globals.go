package keepalived

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/config/translation"
)

// globals is what counts for the checks and scripts of all services.
type globals struct {
	scriptUser       string
	nobody           bool // that no user is named for scripts was said
	fifo             string
	certificate, key string // files for TLS
}

// ssl reads the block of what checks by TLS have of their own.
func (t *translator) ssl(n *node) {
	var certificate, key, password *node
	for _, directive := range n.body {
		switch directive.word(0) {
		case "certificate":
			certificate = directive
		case "key":
			key = directive
		case "ca":
			t.note(translation.NotCarried, directive, "keepalived verifies no server by it")
		case "password":
			password = directive
		default:
			t.note(translation.NotCarried, directive, unknownWord)
		}
	}
	switch {
	case password != nil:
		t.build.Note(translation.Note{
			Position: password.at, Kind: translation.NotCarried, What: "password …",
			Why: "Shunt reads no keys with a password: checks by TLS have no certificate of their own; give them one in tls",
		})
	case certificate == nil && key == nil:
	case certificate == nil || key == nil || !path.IsAbs(certificate.word(1)) || !path.IsAbs(key.word(1)):
		t.note(translation.NotCarried, n, "want certificate and key, absolute paths both: checks by TLS have no certificate of their own")
	default:
		t.global.certificate, t.global.key = path.Clean(certificate.word(1)), path.Clean(key.word(1))
	}
}

// fifo reads the named pipe that is told of changes. That of services' alone counts.
func (t *translator) fifo(n *node) {
	switch name := n.word(1); {
	case !path.IsAbs(name) || translation.Unwritable(name) != "":
		t.note(translation.NotCarried, n, fmt.Sprintf("%q is not an absolute path", name))
	case n.word(0) == "notify_fifo" && t.global.fifo != "":
		t.note(translation.NotCarried, n, fmt.Sprintf("a service tells one pipe, %s", t.global.fifo))
	default:
		t.global.fifo = path.Clean(name)
	}
}

// globals translates a global_defs.
func (t *translator) globals(n *node) {
	for _, directive := range n.body {
		switch directive.word(0) {
		case "lvs_timeouts":
			t.timeouts(directive)
		case "lvs_sync_daemon":
			t.syncDaemon(directive)
		case "notify_fifo", "lvs_notify_fifo":
			t.fifo(directive)
		case "script_user":
			t.global.scriptUser = directive.word(1)
			t.note(translation.NotCarried, directive, "the scripts of checks name the user; what is told of changes runs as director.script-user: set it")
		default:
			t.note(reasonOf(directive, ofGlobals))
		}
	}
}

// timeouts translates lvs_timeouts; a value that is missing, or 0, leaves that
// timeout as it is.
func (t *translator) timeouts(n *node) {
	words := n.args()
	if len(words) < 2 {
		t.note(translation.NotCarried, n, "want tcp, tcpfin or udp with a number of seconds")
	}
	for ; len(words) > 1; words = words[2:] {
		var to *time.Duration
		switch words[0] {
		case "tcp":
			to = &t.build.Timeouts.TCP
		case "tcpfin":
			to = &t.build.Timeouts.TCPFin
		case "udp":
			to = &t.build.Timeouts.UDP
		default:
			t.note(translation.NotCarried, n, fmt.Sprintf("unknown timeout %q: want tcp, tcpfin or udp", words[0]))
			continue
		}
		seconds, ok := parseStrict(words[1], 0, maxTimeout)
		if !ok {
			t.note(translation.Differs, n, fmt.Sprintf("%q is not a number of seconds up to %d: keepalived ignores it", words[1], maxTimeout))
			continue
		}
		*to = time.Duration(seconds) * time.Second
	}
	if len(n.args()) > 2 && len(words) == 1 {
		t.note(translation.NotCarried, n, fmt.Sprintf("%s has no value", words[0]))
	}
	if given := t.build.Timeouts; given != (conntrack.Timeouts{}) && (given.TCP == 0 || given.TCPFin == 0 || given.UDP == 0) {
		t.build.Timeouts = conntrack.DefaultTimeouts().Merge(given)
		t.note(translation.Assumed, n, "keepalived leaves the others as they are, which is at the kernel's defaults")
	}
}

// syncDaemon translates lvs_sync_daemon. With a VRRP instance keepalived runs the
// daemon of that one's state; without, both.
func (t *translator) syncDaemon(n *node) {
	words := n.args()
	if len(words) == 0 {
		t.note(translation.NotCarried, n, "the interface is missing")
		return
	}
	daemon := director.SyncDaemon{Interface: words[0]}
	instance, idSet := "", false
	for i := 1; i < len(words); i++ {
		option, value := words[i], ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch option {
		case "inst":
			instance = value
		case "id":
			idSet = t.syncNumber(n, option, value, 0, 255, func(id uint64) { daemon.ID = uint8(id) })
		case "maxlen":
			t.syncNumber(n, option, value, 1, director.MaxSyncLength, func(length uint64) { daemon.MaxLength = uint16(length) })
		case "port":
			t.syncNumber(n, option, value, 1, 65535, func(port uint64) { daemon.Port = uint16(port) })
		case "ttl":
			t.syncNumber(n, option, value, 1, 255, func(ttl uint64) { daemon.TTL = uint8(ttl) })
		case "group":
			if group, _, ok := address(value); ok && group.IsMulticast() {
				daemon.Group = group
			} else {
				t.note(translation.Differs, n, fmt.Sprintf("group %q is not a multicast address: keepalived ignores it", value))
			}
		default: // the old form: the instance, and perhaps its id
			switch {
			case i == 1:
				instance = option
			case i == 2:
				idSet = t.syncNumber(n, "id", option, 0, 255, func(id uint64) { daemon.ID = uint8(id) })
			default:
				t.note(translation.NotCarried, n, fmt.Sprintf("unknown option %q", option))
			}
			continue
		}
		i++
	}
	t.sync(n, daemon, instance, idSet)
}

func (t *translator) syncNumber(n *node, option, value string, least, most uint64, set func(uint64)) bool {
	number, ok := parseStrict(value, least, most)
	if !ok {
		t.note(translation.Differs, n, fmt.Sprintf("%s %q is not a number from %d to %d: keepalived ignores it", option, value, least, most))
		return false
	}
	set(uint64(number))
	return true
}

// sync adds the daemons. The id is that of the VRRP instance unless it was given.
func (t *translator) sync(n *node, daemon director.SyncDaemon, instance string, idSet bool) {
	if name := daemon.Interface; name == "" || len(name) > 15 || strings.ContainsAny(name, "/: ") || !utf8.ValidString(name) {
		t.note(translation.Differs, n, fmt.Sprintf("%q is not an interface's name", name))
		return
	}
	id, found := t.vrids[instance]
	switch {
	case instance != "" && !found:
		t.note(translation.LeftOut, n, fmt.Sprintf("there is no vrrp_instance %s: keepalived runs no sync daemon then", instance))
		return
	case instance != "" && !idSet:
		daemon.ID = id
	}
	daemon = daemon.Normalize()
	master, backup := daemon, daemon
	master.Role, backup.Role = director.SyncMaster, director.SyncBackup
	if !t.build.Sync(translation.Source{At: n.at, What: n.String()}, master, backup) {
		t.note(translation.NotCarried, n, "the sync daemons are there already: keepalived ignores it")
		return
	}
	if instance != "" {
		t.note(translation.Differs, n, fmt.Sprintf("keepalived runs the daemon of the role that VRRP instance %s has at the moment; "+
			"Shunt runs both all the time, so that connections are known wherever the address goes", instance))
	}
}

// vrid keeps what a sync daemon may want to know of a VRRP instance, which may
// name the daemon's interface, too (keepalived: vrrp_parser.c,
// vrrp_lvs_syncd_handler).
func (t *translator) vrid(n *node) {
	t.vrids[n.word(1)] = 0
	for _, directive := range n.body {
		if directive.word(0) == "virtual_router_id" {
			if id, ok := parseStrict(directive.word(1), 1, 255); ok {
				t.vrids[n.word(1)] = uint8(id)
			}
		}
	}
}

// topLevel translates a block or directive that is of no service: what is
// to be carried of a VRRP instance is its sync daemon.
func (t *translator) topLevel(n *node) {
	t.note(reasonOf(n, ofTop))
	if n.word(0) != "vrrp_instance" {
		return
	}
	for _, directive := range n.body {
		if directive.word(0) == "lvs_sync_daemon_interface" {
			t.sync(directive, director.SyncDaemon{Interface: directive.word(1)}, n.word(1), false)
		}
	}
}
