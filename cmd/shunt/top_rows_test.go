package main

import (
	"strings"
	"testing"

	"github.com/shunt-lb/shunt/director/api"
)

// TestTopServerRow: whatever keeps new connections from a server is its state, the
// worst of it, and in words in the line below the table.
func TestTopServerRow(t *testing.T) {
	for _, test := range []struct {
		name   string
		server api.Server
		state  string
		mark   topMark
		detail string
	}{
		{"up", api.Server{Weight: 1, Reachable: true}, "up", markNone, ""},
		{"with_templates", api.Server{Weight: 1, Reachable: true, Templates: 2}, "up", markNone, "2 templates"},
		{"at_rest", api.Server{Reachable: true}, "drain", markWarn, "takes no new connections: weight 0"},
		{"draining", api.Server{Weight: 1, Reachable: true, Draining: true, Overloaded: true}, "drain", markWarn, "takes no new connections: draining"},
		{"overloaded", api.Server{Weight: 1, Reachable: true, Overloaded: true, Upper: 7}, "full", markWarn, "it reached its upper threshold of 7"},
		{"unreachable", api.Server{Weight: 1, Reason: "no route", Draining: true, Overloaded: true}, "down", markBad, "unreachable: no route"},
	} {
		t.Run(test.name, func(t *testing.T) {
			row := topServerRow(api.Service{}, test.server, topSnapshot{})
			if row.cells[3].text != test.state || row.mark != test.mark || !strings.Contains(row.detail, test.detail) {
				t.Errorf("state %q, mark %d, detail %q: want %q, %d, %q", row.cells[3].text, row.mark, row.detail, test.state, test.mark, test.detail)
			}
		})
	}
}

// TestTopServiceRow: servers that are overloaded take no new connections, but are
// not unreachable.
func TestTopServiceRow(t *testing.T) {
	prefix := uint8(24)
	service := api.Service{
		Listen: "tcp://192.0.2.10:80", Scheduler: "wlc", Persistence: &api.Persistence{Timeout: api.Duration(60e9), Prefix: &prefix},
		Servers: []api.Server{{Weight: 1, Reachable: true}, {Weight: 1, Reachable: true, Overloaded: true}},
	}
	row := topServiceRow(service, topSnapshot{})
	if row.cells[3].text != "1/2" || row.mark != markWarn || !strings.Contains(row.detail, "2 servers  1 overloaded  persistent 1m0s for each /24") {
		t.Errorf("servers %q, mark %d, detail %q", row.cells[3].text, row.mark, row.detail)
	}
	service.Servers = service.Servers[1:]
	if row := topServiceRow(service, topSnapshot{}); row.mark != markBad {
		t.Errorf("mark %d where no server takes connections", row.mark)
	}
}

// TestTopTemplateRow: a template is shown by its network and its connections.
func TestTopTemplateRow(t *testing.T) {
	prefix, controlled := uint8(24), uint32(3)
	row := topConnectionRow(api.Connection{
		Protocol: "tcp", Client: "198.51.100.0:0", Virtual: "192.0.2.10:80", Server: "10.0.0.11:80", Method: "nat",
		State: "NONE", Proven: true, Template: true, Prefix: &prefix, Controlled: &controlled,
	})
	if row.cells[0].text != "198.51.100.0/24" || row.cells[2].text != "TEMPLATE of 3" || !row.contains("198.51.100.7") || row.contains("198.51.101.7") {
		t.Errorf("%+v", row)
	}
}
