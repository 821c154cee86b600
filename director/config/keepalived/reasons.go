package keepalived

import (
	"strings"

	"github.com/shunt-lb/shunt/director/config/translation"
)

// scope is where a directive stands.
type scope int

const (
	ofTop scope = iota
	ofGlobals
	ofVirtual
	ofServer
	ofChecker
)

// Why something is not carried.
const (
	noCheckers  = "it is about checks, and no server has one: servers are in service whether or not they answer"
	noWarmup    = "Shunt spreads the first checks over their interval"
	noScript    = "Shunt starts no scripts of its own, and none when it stops: follow the events (shunt events --follow)"
	noFileCheck = "what such a file says counts otherwise in Shunt: of a check of kind file the number is the weight, and -1 is down; keepalived adds it, times its weight, to the server's. It is not asked, and does not take the server out"
	noMail      = "Shunt sends no mail"
	noSuspend   = "Shunt asks the servers whoever has the address"
	noVRRP      = "Shunt has no VRRP: keepalived can go on with it, without the virtual_servers"
	noBFD       = "Shunt has no BFD"
	noSNMP      = "Shunt has no SNMP: its counters are metrics for Prometheus"
	noNamespace = "Shunt works in the network namespace that it is started in"
	noFlush     = "Shunt flushes nothing: services that it does not know are left alone"
	ownProcess  = "it is about keepalived's own processes"
	moreWords   = "there are more words than the directive takes: keepalived ignores them"
	misplaced   = "it stands within the block of another: keepalived does not know it there"
	unknownWord = "unknown directive"
)

// reason is why a directive is not carried, and how that is to be taken.
type reason struct {
	kind translation.Kind
	why  string
}

// reasonOf returns the arguments of a note on a directive that is not carried.
func reasonOf(n *node, where scope) (translation.Kind, *node, string) {
	name := n.word(0)
	r, known := reasons[where][name]
	if !known && (where == ofTop || where == ofGlobals) {
		r, known = byPrefix(name)
	}
	if !known {
		return translation.NotCarried, n, unknownWord
	}
	return r.kind, n, r.why
}

// Knows reports whether a word begins a directive of the top level.
func Knows(word string) bool {
	switch word {
	case "virtual_server", "virtual_server_group", "global_defs", "include", "includer", "includem", "includew", "includeb", "includea":
		return true
	}
	_, known := reasons[ofTop][word]
	if !known {
		_, known = byPrefix(word)
	}
	return known
}

// byPrefix knows the directives that begin like the others of their kind.
func byPrefix(name string) (reason, bool) {
	for _, p := range []struct{ prefix, why string }{
		{"vrrp_", noVRRP},
		{"static_", noVRRP},
		{"track_", noVRRP},
		{"nftables", noVRRP},
		{"vmac_", noVRRP},
		{"bfd_", noBFD},
		{"smtp_", noMail},
		{"notification_email", noMail},
		{"enable_snmp_", noSNMP},
		{"lvs_netlink_", ownProcess},
		{"process_", ownProcess},
		{"checker_", ownProcess},
		{"reload_", ownProcess},
	} {
		if strings.HasPrefix(name, p.prefix) {
			return reason{translation.NotCarried, p.why}, true
		}
	}
	return reason{}, false
}

// reasons are the directives of keepalived 2.2 that byPrefix does not know.
var reasons = map[scope]map[string]reason{
	ofTop: join(
		not(noVRRP, "garp_group", "interface_up_down_delays", "linkbeat_interfaces"),
		everywhere,
	),
	ofGlobals: join(
		not(noVRRP, "default_interface", "disable_local_igmp", "dynamic_interfaces", "fifo_write_vrrp_states_on_reload", "log_unknown_vrids"),
		not(noMail, "no_email_faults", "no_checker_emails"),
		not(noSNMP, "snmp_socket", "enable_traps"),
		not(noScript, "startup_script", "startup_script_timeout", "shutdown_script", "shutdown_script_timeout"),
		not("Shunt refuses scripts that others may write anyway", "enable_script_security"),
		not("Shunt starts no reader of a pipe: start it by itself", "notify_fifo_script", "lvs_notify_fifo_script"),
		not("Shunt tells of changes, and not of how servers begin", "rs_init_notifies"),
		not("shunt health shows the last results, failures among them", "checker_log_all_failures"),
		not(noFlush, "lvs_flush"),
		not("Shunt's services stay when its daemon stops: shunt detach removes them", "lvs_flush_on_stop", "lvs_flush_onstop"),
		differs("each address of a group is a service of its own, with a scheduler of its own, and not one firewall mark's", "nftables_ipvs"),
		not("Shunt sets no firewall marks", "nftables_ipvs_priority", "nftables_ipvs_start_fwmark"),
		not(ownProcess, "router_id", "config_save_dir", "data_use_instance", "dbus_service_name", "enable_dbus", "include_check", "lvs_process_name",
			"max_auto_priority", "min_auto_priority_delay", "random_seed", "tmp_config_directory", "umask"),
		everywhere,
	),
	ofVirtual: join(
		ofChecks,
		not("Shunt runs no scripts when it stops", "omega"),
		not(noSuspend, "ha_suspend"),
		not("it has no effect: the kernel sets the mark by itself", "hashed"),
		not("a sorry server is there only while it stands in for others", "sorry_server_inhibit"),
	),
	ofServer: join(
		ofChecks,
		not(noSNMP, "snmp_name"),
		not(noBFD+": it is not asked, and does not take the server out", "BFD_CHECK"),
		not(noFileCheck, "FILE_CHECK"),
	),
}

// everywhere are directives for the whole that stand at the top or in global_defs.
var everywhere = join(
	not(ownProcess, "child_wait_time", "instance", "linkbeat_use_polling", "use_pid_dir"),
	differs(noNamespace, "net_namespace", "net_namespace_ipvs"),
	not(noNamespace, "namespace_with_ipsets"),
)

// ofChecks are directives that virtual servers and real servers have.
var ofChecks = join(
	not(noWarmup, "warmup"),
	not(noMail, "smtp_alert"),
)

func not(why string, names ...string) map[string]reason {
	return all(reason{translation.NotCarried, why}, names)
}

func differs(why string, names ...string) map[string]reason {
	return all(reason{translation.Differs, why}, names)
}

func all(r reason, names []string) map[string]reason {
	m := make(map[string]reason, len(names))
	for _, name := range names {
		m[name] = r
	}
	return m
}

func join(parts ...map[string]reason) map[string]reason {
	m := make(map[string]reason)
	for _, part := range parts {
		for name, r := range part {
			m[name] = r
		}
	}
	return m
}
