package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that is a Go duration string in JSON: "15m0s".
type Duration time.Duration

// String returns the Go duration string.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a duration string; a bare number has no unit and is
// refused.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s is not a duration: want a string with a unit such as \"15m\"", text)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: want a number with a unit such as \"15m\"", s)
	}
	*d = Duration(v)
	return nil
}

// ServiceConfig is a service as configured: the body of POST /v1/services and
// its answer.
type ServiceConfig struct {
	Listen    string         `json:"listen"` // tcp://192.0.2.1:80
	Name      string         `json:"name,omitempty"`
	Scheduler string         `json:"scheduler"`     // rr, wrr, sh or mh
	Flags     []string       `json:"flags"`         // ipvsadm's words: sh-port, sh-fallback, mh-port, mh-fallback
	VIP       string         `json:"vip,omitempty"` // managed (the default) or external
	Servers   []ServerConfig `json:"servers"`
}

// ServiceEdit is the body of PATCH /v1/services/{ref}: only what is present
// changes.
type ServiceEdit struct {
	Name      *string   `json:"name,omitempty"`
	Scheduler *string   `json:"scheduler,omitempty"`
	Flags     *[]string `json:"flags,omitempty"` // replaces all flags
	VIP       *string   `json:"vip,omitempty"`
}

// ServerConfig is a server as configured: the body of POST
// /v1/services/{ref}/servers and its answer.
type ServerConfig struct {
	Address string  `json:"address"` // 10.0.0.1:80; without a port: the service's
	Method  string  `json:"method"`  // nat, dr, tunnel or local; has no default
	Weight  *uint32 `json:"weight,omitempty"`
}

// ServerEdit is the body of PATCH /v1/services/{ref}/servers/{address}: only
// what is present changes.
type ServerEdit struct {
	Method *string `json:"method,omitempty"`
	Weight *uint32 `json:"weight,omitempty"`
}

// ServiceList is the answer to GET /v1/services, sorted by protocol and address.
type ServiceList struct {
	Services []Service `json:"services"`
}

// Service is a service with what is observed of it.
type Service struct {
	Listen    string   `json:"listen"`
	Name      string   `json:"name,omitempty"`
	Scheduler string   `json:"scheduler"`
	Flags     []string `json:"flags"`
	VIP       string   `json:"vip"`
	Servers   []Server `json:"servers"` // in the order they were added
}

// Server is a real server with what is observed of it.
type Server struct {
	Address   string `json:"address"`
	Method    string `json:"method"`
	Weight    uint32 `json:"weight"`
	Active    uint64 `json:"active"` // connections, as IPVS counts them
	Inactive  uint64 `json:"inactive"`
	Reachable bool   `json:"reachable"`        // an unreachable server is not scheduled
	Reason    string `json:"reason,omitempty"` // why it is not reachable
}

// Status is the answer to GET /v1/status.
type Status struct {
	Version     string      `json:"version"`
	PID         int         `json:"pid"`
	Started     time.Time   `json:"started"`
	Dataplane   string      `json:"dataplane"` // xdp
	Interfaces  []Interface `json:"interfaces"`
	Tables      []Table     `json:"tables"`
	Timeouts    Timeouts    `json:"timeouts"`
	Services    int         `json:"services"`
	Servers     int         `json:"servers"`
	Unreachable int         `json:"unreachable"` // servers without a next hop
	Faults      uint64      `json:"faults"`      // packet events that cannot happen; not 0 is a bug
}

// Interface is an interface the data plane is attached to.
type Interface struct {
	Name string `json:"name"`
	Mode string `json:"mode"` // native or generic
}

// Table is a connection table.
type Table struct {
	Family    string `json:"family"`    // ipv4 or ipv6
	Limit     uint64 `json:"limit"`     // connections it is sized for
	Keys      uint64 `json:"keys"`      // in use at the last complete sweep; a nat connection has two
	Slots     uint64 `json:"slots"`     // keys it has room for
	Bytes     uint64 `json:"bytes"`     // memory
	Expired   uint64 `json:"expired"`   // removed by the sweep since the daemon started
	Corrected uint64 `json:"corrected"` // active and inactive counts healed
}

// Stats is the answer to GET /v1/stats.
type Stats struct {
	Services   []ServiceStats `json:"services"`
	Events     []Event        `json:"events"`
	Tables     []Table        `json:"tables"`
	Interfaces []Interface    `json:"interfaces"`
}

// ServiceStats are the counters of a service, those of removed servers
// included, and of its servers.
type ServiceStats struct {
	Listen   string        `json:"listen"`
	Name     string        `json:"name,omitempty"`
	Counters Counters      `json:"counters"`
	Servers  []ServerStats `json:"servers"`
}

// ServerStats are the counters of a server.
type ServerStats struct {
	Address  string   `json:"address"`
	Counters Counters `json:"counters"`
}

// Counters are totals since the service or server was added.
type Counters struct {
	Connections uint64  `json:"connections"`
	In          Traffic `json:"in"`  // client to server
	Out         Traffic `json:"out"` // server to client; nat only
}

// Traffic counts one direction. Bytes are those of the IP packets.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Event is a named count of packets.
type Event struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // pass, drop, answer, note or fault
	Count uint64 `json:"count"`
	Help  string `json:"help"`
}

// Connection is one line of the answer to GET /v1/connections.
type Connection struct {
	Protocol string   `json:"protocol"`
	Client   string   `json:"client"`
	Virtual  string   `json:"virtual"`
	Server   string   `json:"server"`
	Method   string   `json:"method"`
	State    string   `json:"state"`
	Proven   bool     `json:"proven"`
	Expires  Duration `json:"expires"`
}

// connectionLine is a line as it is sent: a connection, or, last, the problem
// that ended the walk after the answer's status had gone out.
type connectionLine struct {
	*Connection
	Problem *Problem `json:"problem,omitempty"`
}

// ConnectionCount is the answer to GET /v1/connections/count.
type ConnectionCount struct {
	Count uint64 `json:"count"`
}

// Timeouts are the connection timeouts: the answer to GET /v1/timeouts and the
// body of PUT, which needs all three.
type Timeouts struct {
	TCP    Duration `json:"tcp"`     // established
	TCPFin Duration `json:"tcp-fin"` // FIN_WAIT
	UDP    Duration `json:"udp"`
}

// TimeoutsEdit is the body of PATCH /v1/timeouts: only what is present changes.
type TimeoutsEdit struct {
	TCP    *Duration `json:"tcp,omitempty"`
	TCPFin *Duration `json:"tcp-fin,omitempty"`
	UDP    *Duration `json:"udp,omitempty"`
}

// Problem is an error as RFC 9457 describes it, with a hint. It is an error:
// the client returns it as it came.
type Problem struct {
	Type   string `json:"type"` // urn:shunt:problem:not-found and so on
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // what the operator can do
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }
