package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/shunt-lb/shunt/director/api"
)

// rows returns the view's rows of the snapshot, neither filtered nor sorted.
func (v *topView) rows(s topSnapshot) []topRow {
	switch v.kind {
	case viewServices:
		rows := make([]topRow, 0, len(s.services))
		for _, service := range s.services {
			rows = append(rows, topServiceRow(service, s))
		}
		return rows
	case viewServers:
		var rows []topRow
		if service, ok := s.service(v.service); ok {
			for _, server := range serversOf(service) {
				rows = append(rows, topServerRow(service, server, s))
			}
		}
		return rows
	case viewConnections:
		var rows []topRow
		if s.list.isOf(v) {
			for _, c := range s.list.connections {
				rows = append(rows, topConnectionRow(c))
			}
		}
		return rows
	case viewDrops:
		var rows []topRow
		for _, e := range s.stats.PacketEvents {
			if e.Count > 0 {
				rows = append(rows, topEventRow(e, s))
			}
		}
		return rows
	default:
		return helpRows(v.help)
	}
}

// isOf reports whether the list is what the view shows. It may be of another
// client: the filter sees to that, and the next list will be the right one.
func (l *topList) isOf(v *topView) bool {
	return l != nil && v.kind == viewConnections && l.query.Service == v.service && l.query.Server == v.server
}

// service finds a service by its URL.
func (s topSnapshot) service(listen string) (api.Service, bool) {
	for _, service := range s.services {
		if service.Listen == listen {
			return service, true
		}
	}
	return api.Service{}, false
}

func topServiceRow(service api.Service, s topSnapshot) topRow {
	name := service.Name
	if name == "" {
		name = service.Listen
	}
	if service.Foreign {
		name += " foreign"
	}
	row := topRow{key: service.Listen, match: service.Listen + " " + service.Name + " " + service.Scheduler}
	var active, inactive uint64
	taking, down, drained, full := 0, 0, 0, 0
	for _, server := range serversOf(service) {
		active += server.Active
		inactive += server.Inactive
		row.match += " " + server.Address
		switch topServerState(server) {
		case "up":
			taking++
		case "drain":
			drained++
		case "full":
			full++
		default:
			down++
		}
	}
	switch {
	case service.Foreign:
		row.mark = markFaint
	case taking == 0:
		row.mark = markBad
	case down > 0 || full > 0:
		row.mark = markWarn
	}
	row.detail = serviceDetail(service, down, drained, full)
	row.cells = append([]topCell{
		textCell(name), textCell(service.Listen), textCell(service.Scheduler),
		{fmt.Sprintf("%d/%d", taking, len(serversOf(service))), float64(taking)},
	}, rateCells(active, inactive, s.of(topKey{service: service.Listen}))...)
	return row
}

// serviceDetail is a service in a line.
func serviceDetail(service api.Service, down, drained, full int) string {
	parts := []string{
		service.Name, service.Listen, strings.Join(append([]string{service.Scheduler}, service.Flags...), " "),
		count(len(serversOf(service)), "server"),
	}
	if down > 0 {
		parts = append(parts, fmt.Sprintf("%d unreachable", down))
	}
	if drained > 0 {
		parts = append(parts, fmt.Sprintf("%d drained", drained))
	}
	if full > 0 {
		parts = append(parts, fmt.Sprintf("%d overloaded", full))
	}
	if service.Persistence != nil {
		parts = append(parts, "persistent "+persistenceText(service.Persistence))
	}
	if service.Foreign {
		parts = append(parts, "in the kernel, but not Shunt's")
	}
	return join(parts)
}

// topServerState is the state of a server in a word.
func topServerState(server api.Server) string {
	switch {
	case !server.Reachable:
		return "down"
	case server.Weight == 0 || server.Draining:
		return "drain"
	case server.Overloaded:
		return "full"
	default:
		return "up"
	}
}

func topServerRow(service api.Service, server api.Server, s topSnapshot) topRow {
	state := topServerState(server)
	row := topRow{key: server.Address, match: join([]string{server.Address, server.Method, tunnelText(server), state, server.Reason})}
	parts := []string{server.Address}
	switch state {
	case "down":
		row.mark = markBad
		parts = append(parts, "unreachable: "+server.Reason)
	case "drain":
		row.mark = markWarn
		why := "weight 0"
		if server.Draining {
			why = "draining"
		}
		parts = append(parts, "takes no new connections: "+why)
	case "full":
		row.mark = markWarn
		parts = append(parts, fmt.Sprintf("takes no new connections: it reached its upper threshold of %d", server.Upper))
	}
	if tunnel := tunnelText(server); tunnel != "" {
		parts = append(parts, "by "+tunnel)
	}
	if server.Templates > 0 {
		parts = append(parts, count(server.Templates, "template"))
	}
	row.detail = join(parts)
	row.cells = append([]topCell{
		textCell(server.Address),
		{fmt.Sprint(server.Weight), float64(server.Weight)},
		textCell(server.Method), textCell(state),
	}, rateCells(server.Active, server.Inactive, s.of(topKey{service.Listen, server.Address}))...)
	return row
}

func rateCells(active, inactive uint64, r topRates) []topCell {
	return []topCell{
		numberCell(float64(active)), numberCell(float64(inactive)), numberCell(r.connections),
		numberCell(r.packetsIn), numberCell(r.bitsIn), numberCell(r.packetsOut), numberCell(r.bitsOut),
	}
}

func topConnectionRow(c api.Connection) topRow {
	cells := connectionCells(c) // protocol, expires, state, client, virtual, server, method, engine
	row := topRow{
		key:    c.Protocol + " " + c.Client + " " + cells[4] + c.EngineData,
		match:  strings.Join(cells, " "),
		detail: cells[0] + " " + cells[3] + " > " + c.Server + " by " + cells[4],
		cells: []topCell{
			textCell(cells[3]), textCell(c.Server), textCell(cells[2]),
			{cells[1], time.Duration(c.Expires).Seconds()},
			textCell(c.Method), textCell(cells[4]),
		},
	}
	if client, err := netip.ParseAddrPort(c.Client); err == nil {
		bits := client.Addr().BitLen()
		if c.Prefix != nil {
			bits = int(*c.Prefix)
		}
		row.client = netip.PrefixFrom(client.Addr(), bits)
	}
	if !c.Proven {
		row.mark = markFaint
	}
	return row
}

func topEventRow(e api.PacketEvent, s topSnapshot) topRow {
	rate := s.event(e.Name)
	row := topRow{
		key: e.Name, match: e.Name + " " + e.Kind + " " + e.Help, detail: fmt.Sprintf("%s %d: %s", e.Name, e.Count, e.Help),
		cells: []topCell{
			textCell(e.Name), textCell(e.Kind), numberCell(float64(e.Count)), numberCell(rate), textCell(e.Help),
		},
	}
	switch {
	case e.Kind == "fault":
		row.mark = markBad
	case e.Kind == "drop" && rate > 0:
		row.mark = markWarn
	}
	return row
}

// join puts those parts together that are not empty.
func join(parts []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return p == "" }), "  ")
}
