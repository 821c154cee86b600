package metrics

import "github.com/prometheus/client_golang/prometheus"

// The names. The unit is the suffix; totals end in _total.
const (
	nameBuildInfo      = "shunt_build_info"
	nameStartTime      = "shunt_start_time_seconds"
	nameDataplaneUp    = "shunt_dataplane_up"
	nameScrapeErrors   = "shunt_scrape_errors_total"
	nameRevision       = "shunt_revision_number"
	nameRevisionTime   = "shunt_revision_timestamp_seconds"
	nameServices       = "shunt_services"
	nameServers        = "shunt_servers"
	nameDriftFound     = "shunt_drift_found_total"
	nameDriftRepaired  = "shunt_drift_repaired_total"
	nameDriftFailed    = "shunt_drift_failed_total"
	nameDriftPending   = "shunt_drift_pending"
	nameForeign        = "shunt_foreign_services"
	nameLastReconcile  = "shunt_last_reconcile_timestamp_seconds"
	nameEvents         = "shunt_events_total"
	nameServiceInfo    = "shunt_service_info"
	nameServiceServers = "shunt_service_servers"
	nameServiceReady   = "shunt_service_available_servers"
	nameServiceConns   = "shunt_service_connections_total"
	nameServicePackets = "shunt_service_packets_total"
	nameServiceBytes   = "shunt_service_bytes_total"
	nameServiceActive  = "shunt_service_active_connections"
	nameServiceIdle    = "shunt_service_inactive_connections"
	nameServiceRefused = "shunt_service_refused_total"
	nameGuardOn        = "shunt_service_guard_on"
	nameGuardAsked     = "shunt_service_guard_challenged_total"
	nameGuardValid     = "shunt_service_guard_validated_total"
	nameServerConns    = "shunt_server_connections_total"
	nameServerPackets  = "shunt_server_packets_total"
	nameServerBytes    = "shunt_server_bytes_total"
	nameServerActive   = "shunt_server_active_connections"
	nameServerIdle     = "shunt_server_inactive_connections"
	nameServerUDP      = "shunt_server_udp_connections"
	nameServerTemplate = "shunt_server_templates"
	nameServerWeight   = "shunt_server_weight"
	nameServerReach    = "shunt_server_reachable"
	nameServerOverload = "shunt_server_overloaded"
	nameServerDraining = "shunt_server_draining"
	nameServiceQuorum  = "shunt_service_quorum"
	nameServicePanic   = "shunt_service_panic"
	nameServerUp       = "shunt_server_up"
	nameServerOverride = "shunt_server_overridden"
	nameServerSuspend  = "shunt_server_suspended"
	nameServiceSorry   = "shunt_service_sorry"
	nameServiceWeight  = "shunt_service_up_weight"
	nameServiceNeeds   = "shunt_service_needed_weight"
	nameServerChanges  = "shunt_server_changes_total"
	nameEvidence       = "shunt_server_evidence_total"
	nameSuspensions    = "shunt_server_suspensions_total"
	nameLoad           = "shunt_server_load_ratio"
	nameLoadWeight     = "shunt_server_load_weight_ratio"
	nameOverrides      = "shunt_overrides"
	nameMaintenance    = "shunt_maintenance_files"
	nameSNMPPolls      = "shunt_snmp_polls_total"
	nameNotified       = "shunt_notifications_total"
	nameCheckResults   = "shunt_check_results_total"
	nameCheckDuration  = "shunt_check_last_duration_seconds"
	nameCertificateEnd = "shunt_check_certificate_expiry_timestamp_seconds"
	nameCheckTimes     = "shunt_check_duration_seconds"
	nameChecks         = "shunt_checks"
	nameChecksRunning  = "shunt_checks_running"
	nameChecksOverdue  = "shunt_checks_overdue"
	nameChecksWaiting  = "shunt_checks_waiting"
	nameCheckLag       = "shunt_check_lag_seconds"
	nameCheckOverruns  = "shunt_check_overruns_total"
	nameCheckUnasked   = "shunt_check_unasked_total"
	nameProbePorts     = "shunt_probe_ports"
	nameProbeRefused   = "shunt_probe_refused_total"
	namePoolMembers    = "shunt_pool_members"
	nameLeaseChanges   = "shunt_lease_changes_total"
	nameLeaseRefused   = "shunt_lease_refused_total"
	nameLeaseReports   = "shunt_lease_unreachable_reports_total"
	nameDataplaneInfo  = "shunt_dataplane_info"
	nameDataplaneTable = "shunt_dataplane_table_size"
	namePacketEvents   = "shunt_packet_events_total"
	nameDrops          = "shunt_drops_total"
	nameTableKeys      = "shunt_table_keys"
	nameTableSlots     = "shunt_table_slots"
	nameTableLimit     = "shunt_table_limit_connections"
	nameTableBytes     = "shunt_table_size_bytes"
	nameTableExpired   = "shunt_table_expired_total"
	nameTableCorrected = "shunt_table_corrected_total"
	nameTablePressure  = "shunt_table_pressure_ratio"
	nameTableFullIn    = "shunt_table_full_in_seconds"
	nameTableRefused   = "shunt_table_refused_total"
	nameSweepPeriod    = "shunt_sweep_period_seconds"
	nameSweepShare     = "shunt_sweep_cpu_ratio"
	nameInterface      = "shunt_interface_attached"
)

// Type says what may be done with a metric's values.
type Type string

// The types.
const (
	Counter Type = "counter" // only rises, but for restarts: take its rate
	Gauge   Type = "gauge"
	// Histogram has three names: of its sum, its count and, with the label le, its buckets.
	Histogram Type = "histogram"
)

func (t Type) valueType() prometheus.ValueType {
	if t == Counter {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

// Info describes a metric.
type Info struct {
	Name   string
	Type   Type
	Labels []string // in the order in which the collector gives their values
	Help   string
}

// Names returns every metric of the collector, in the order of the
// documentation. The handler adds those of the Go runtime, of the process and of
// itself.
func Names() []Info {
	service, server := []string{"service"}, []string{"service", "server"}
	family := []string{"family"}
	return []Info{
		{nameBuildInfo, Gauge, []string{"version", "goversion", "dataplane"}, "Always 1; the labels say what runs."},
		{nameStartTime, Gauge, nil, "When the daemon started, in seconds since 1970. Traffic and connections are older: a restart interrupts neither."},
		{nameDataplaneUp, Gauge, nil, "Whether this scrape could read the data plane's counters: 1, or 0 and everything they would tell is missing."},
		{nameScrapeErrors, Counter, nil, "Scrapes that could not read the data plane's counters."},

		{nameRevision, Gauge, nil, "Number of the newest revision, 0 before the first."},
		{nameRevisionTime, Gauge, nil, "When the newest revision was made, in seconds since 1970; 0 before the first."},
		{nameServices, Gauge, nil, "Services desired by the newest revision."},
		{nameServers, Gauge, nil, "Servers desired by the newest revision, of all services."},
		{nameDriftFound, Counter, nil, "Differences between the kernel and what is desired that somebody else made."},
		{nameDriftRepaired, Counter, nil, "Steps done to repair differences."},
		{nameDriftFailed, Counter, nil, "Attempts to repair a difference that failed."},
		{nameDriftPending, Gauge, nil, "Steps that could not be done at the last reconciliation."},
		{nameForeign, Gauge, nil, "Services in the kernel that Shunt does not manage."},
		{nameLastReconcile, Gauge, nil, "When the kernel was last compared with what is desired, in seconds since 1970; 0 if never."},
		{nameEvents, Counter, []string{"name"}, "Events published since the daemon started, by name."},

		{nameServiceInfo, Gauge, []string{"service", "name", "scheduler"}, "Always 1; the labels say what a desired service is called and how it schedules. Join it by the label service."},
		{nameServiceServers, Gauge, service, "Servers the service has in the data plane."},
		{nameServiceReady, Gauge, service, "Servers that can get new connections: reachable, with a weight above 0, neither overloaded nor draining."},
		{nameServiceConns, Counter, service, "Connections made, those of servers removed since included."},
		{nameServicePackets, Counter, []string{"service", "direction"}, "Packets forwarded: in, to a server; out, back to a client (only where replies pass the director)."},
		{nameServiceBytes, Counter, []string{"service", "direction"}, "Bytes of the IP packets forwarded, in and out."},
		{nameServiceActive, Gauge, service, "Connections in an active state, as IPVS counts them: TCP established or on the way to it."},
		{nameServiceIdle, Gauge, service, "Connections in another state, UDP's included."},
		{nameServiceRefused, Counter, []string{"service", "limit"}, "New connections that were refused for a limit; table-full: refused, or served without state, for want of room. Left out where there are no limits (ipvs)."},
		{nameGuardOn, Gauge, service, "Whether the service's guard is on: 1 and clients have to show first that they are real, or 0. Left out where there are no guards (ipvs)."},
		{nameGuardAsked, Counter, service, "First segments that the service's guard answered. Left out where there are no guards (ipvs)."},
		{nameGuardValid, Counter, service, "Clients that showed the service's guard that they are real. Left out where there are no guards (ipvs)."},
		{nameServerConns, Counter, server, "Connections made with the server."},
		{nameServerPackets, Counter, []string{"service", "server", "direction"}, "Packets forwarded: in, to the server; out, back to a client (only where replies pass the director)."},
		{nameServerBytes, Counter, []string{"service", "server", "direction"}, "Bytes of the IP packets forwarded, in and out."},
		{nameServerActive, Gauge, server, "Connections in an active state, as IPVS counts them: TCP established or on the way to it."},
		{nameServerIdle, Gauge, server, "Connections in another state, UDP's included."},
		{nameServerUDP, Gauge, server, "How many of the inactive connections are UDP's, as of a few seconds ago."},
		{nameServerTemplate, Gauge, server, "Templates of persistence that lead to the server."},
		{nameServerWeight, Gauge, server, "The server's weight; at 0 it keeps its connections and gets no new ones."},
		{nameServerReach, Gauge, server, "Whether the data plane has a next hop for the server: 1, or 0 and it gets no new connections."},
		{nameServerOverload, Gauge, server, "Whether the server has reached its upper threshold, and not come below the lower one since: 1 and it gets no new connections, or 0."},
		{nameServerDraining, Gauge, server, "Whether the server is being drained: 1 and it gets no new connections, or 0."},
		{nameServiceQuorum, Gauge, service, "Whether the sum of weights of servers that are up is enough for the service: 1, or 0 and sorry servers stand in if there are some."},
		{nameServicePanic, Gauge, service, "Whether so many of the service's servers look dead that the checks are doubted, and all are offered: 1 or 0."},
		{nameServerUp, Gauge, server, "Whether orders, checks and packets let the server have new connections: 1 or 0."},
		{nameServerOverride, Gauge, server, "Whether an operator's order has the server up or down whatever its checks say: 1 or 0."},
		{nameServerSuspend, Gauge, server, "Whether packets spoke against the server, and it is out until its checks absolve it: 1 or 0."},
		{nameServiceSorry, Gauge, service, "Whether sorry servers stand in for the service's own: 1 or 0."},
		{nameServiceWeight, Gauge, service, "The sum of weights of servers that are up."},
		{nameServiceNeeds, Gauge, service, "The sum of weights that the service needs to have its quorum; more, by the hysteresis, while it has lost it."},
		{nameServerChanges, Counter, server, "How often the server went up or down since the daemon knows it."},
		{nameEvidence, Counter, []string{"service", "server", "kind"}, "What packets told against the server since it was added. Kinds: unanswered (first segments sent again), reset (answers to them), unreachable (ICMP errors). Left out where the service counts nothing."},
		{nameSuspensions, Counter, server, "How often packets had the server out since the daemon knows it. Left out where the service counts nothing."},
		{nameLoad, Gauge, server, "The load that was reported of the server, smoothed: 0 is idle, 1 busy; of the policy reported the share of its weight that it asks for. Left out where no policy follows loads, and while it is silent."},
		{nameLoadWeight, Gauge, server, "The share of its weight that the server has by its load. Left out as the load."},
		{nameCheckResults, Counter, []string{"service", "server", "check", "result"}, "Results of the server's checks of a kind since they are asked."},
		{nameCheckDuration, Gauge, []string{"service", "server", "check"}, "How long the last probe of the server by a check of the kind took; of several checks the slowest. Left out before the first."},
		{nameCertificateEnd, Gauge, []string{"service", "server", "check"}, "When the certificate ends that the server showed a check of the kind last, in seconds since 1970; of several checks the earliest. Left out where none was shown."},
		{nameCheckTimes, Histogram, []string{"check", "result"}, "How long probes took, of all servers together, by the kind of check and what came of them."},
		{nameChecks, Gauge, nil, "Checks that are asked: the same one of a server counts once, however many services want it."},
		{nameChecksRunning, Gauge, nil, "Probes that run, within their time."},
		{nameChecksOverdue, Gauge, nil, "Probes that have not ended with their time, and still run: their checks count as failed."},
		{nameChecksWaiting, Gauge, nil, "Probes that are due and wait for others to end."},
		{nameCheckLag, Gauge, nil, "How late the probe is that is due the longest: seconds say that the checks do not keep up."},
		{nameCheckOverruns, Counter, nil, "Probes that did not end with their time."},
		{nameCheckUnasked, Counter, nil, "Probes that failed for want of files, memory or the like of the director's own: the servers' states stay."},
		{nameProbePorts, Gauge, nil, "Ports in use by checks that go the way of clients' packets. Left out where nothing goes that way (ipvs)."},
		{nameProbeRefused, Counter, nil, "Probes by the way of clients' packets that found no port. Left out where nothing goes that way (ipvs)."},

		{nameOverrides, Gauge, []string{"order"}, "Operators' orders in force that have servers up or down whatever their checks say."},
		{nameMaintenance, Gauge, []string{"folder"}, "Files in a maintenance folder, each of which has a server out."},
		{nameSNMPPolls, Counter, []string{"result"}, "Questions to servers' hosts for their load by SNMP: answered, timeout (nobody answered) or failed (the answer was of no use, or the question could not be asked)."},
		{nameNotified, Counter, []string{"way", "result"}, "Changes told to commands and to named pipes, by what came of it; skipped: too many of the service's commands were waiting."},
		{namePoolMembers, Gauge, []string{"pool", "state"}, "Servers that have a lease of the pool. States: active, draining."},
		{nameLeaseChanges, Counter, []string{"change"}, "What became of leases since the daemon started: registered, renewed, left (their agents took them back), expired (they fell silent)."},
		{nameLeaseRefused, Counter, []string{"reason"}, "Messages of agents that were refused since the daemon started, by reason."},
		{nameLeaseReports, Counter, nil, "Reports since the daemon started that a server of a pool cannot be reached."},

		{nameDataplaneInfo, Gauge, []string{"ipvs"}, "Always 1; the label says which version of IPVS it is, or reproduces."},
		{nameDataplaneTable, Gauge, nil, "Size of the connection table: on ipvs its buckets, which limit nothing, on xdp the connections that the tables are sized for."},
		{namePacketEvents, Counter, []string{"name", "kind"}, "Packets by what became of them. Kinds: pass (left to the host), drop, answer (by ICMP or reset), note, fault (cannot happen)."},
		{nameDrops, Counter, []string{"reason", "kind", "service", "interface"}, "Packets that were dropped or answered, by reason, service (empty: none that is known) and the interface they came by. Left out where there are no such counts (ipvs)."},
		{nameTableKeys, Gauge, family, "Keys in the connection table: on xdp at its last sweep, two for a connection by nat and one for others; on ipvs its connections and templates."},
		{nameTableSlots, Gauge, family, "Keys the connection table has room for; left out where it has no limit (ipvs)."},
		{nameTableLimit, Gauge, family, "Connections the connection table is sized for, at two keys each; left out where it has no limit (ipvs)."},
		{nameTableBytes, Gauge, family, "Memory of the connection table; left out where it has no limit (ipvs)."},
		{nameTableExpired, Counter, family, "Connections removed because they timed out, since the daemon started."},
		{nameTableCorrected, Counter, family, "Counts of active or inactive connections that were put right by a recount."},
		{nameTablePressure, Gauge, family, "Keys of those that the connection table is sized for, at the last sweep: beyond 1 it works on until groups are full. Left out where it has no limit (ipvs)."},
		{nameTableFullIn, Gauge, family, "When the pressure comes to 1 at the present rate, in seconds from now; left out where it does not within a day."},
		{nameTableRefused, Counter, family, "New connections that found no room in the connection table: refused, or served without state. Left out where it has no limit (ipvs)."},
		{nameSweepPeriod, Gauge, nil, "Time from the begin of the last sweep of the connection tables to that of the next; left out before the first (and on ipvs)."},
		{nameSweepShare, Gauge, nil, "Part of one CPU that the last sweep of the connection tables used; left out before the first (and on ipvs)."},
		{nameInterface, Gauge, []string{"interface", "mode"}, "Whether the fast path runs on the interface: 1, or 0 with mode gone."},
	}
}
