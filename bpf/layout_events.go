package bpf

// layoutEvents are the names of the events of earlier versions whose counters lay
// otherwise, in their order: frozen. A version that inserts events adds here what the
// one before it had.
var layoutEvents = map[uint32][]string{
	4: {
		"", "not-ours", "no-service", "malformed", "icmp", "fragment", "protocol", "local", "migrating",
		"migration-held", "midstream", "server-removed", "service-removed", "unreachable",
		"reply-collision", "table-full", "ftp-data", "martian", "access-denied", "no-route", "vlan",
		"rate-limited", "not-quotable", "busy", "too-big", "no-server", "ttl-exceeded", "frag-needed",
		"reset", "evicted", "insert-race", "collision-avoided", "hop-changed", "hops-full", "by-route",
		"expired-hit", "stale-read", "cursor-contended", "destinations-full", "template-healed",
		"fault-map", "fault-server",
	},
	5: {
		"", "not-ours", "no-service", "malformed", "icmp", "fragment", "protocol", "local", "migrating", "migration-held", "midstream", "server-removed", "service-removed", "unreachable", "reply-collision", "table-full", "ftp-data", "martian", "access-denied", "service-rate", "service-connections", "source-rate", "source-connections", "guard-answered", "no-route", "vlan", "rate-limited", "not-quotable", "busy", "too-big", "no-server", "ttl-exceeded", "frag-needed", "reset", "guard", "killed", "evicted", "insert-race", "collision-avoided", "hop-changed", "hops-full", "by-route", "expired-hit", "stale-read", "cursor-contended", "destinations-full", "template-healed", "stateless", "guard-on", "guard-off", "killed-forwarded", "carried", "carry-lost", "news-lost", "fault-map", "fault-server",
	},
}
