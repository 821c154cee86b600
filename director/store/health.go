package store

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// healthJSON is a service's policy.
type healthJSON struct {
	Checks      []checkJSON          `json:"checks,omitempty"`
	Initial     director.Initial     `json:"initial,omitempty"`
	Down        director.DownAction  `json:"down,omitempty"`
	Established director.Established `json:"established,omitempty"`
	Quorum      uint32               `json:"quorum,omitempty"`
	Hysteresis  uint32               `json:"hysteresis,omitempty"`
	Sorry       []serverJSON         `json:"sorry,omitempty"`
	Panic       uint8                `json:"panicPercent,omitempty"`
	SlowStart   time.Duration        `json:"slowStartNanoseconds,omitempty"`
	Damping     dampingJSON          `json:"damping,omitzero"`
	Passive     passiveJSON          `json:"passive,omitzero"`
	Maintenance string               `json:"maintenance,omitempty"`
	Notify      notifyJSON           `json:"notify,omitzero"`
	Load        loadJSON             `json:"load,omitzero"`
	Pool        string               `json:"pool,omitempty"`
}

type dampingJSON struct {
	Changes uint16        `json:"changes,omitempty"`
	Within  time.Duration `json:"withinNanoseconds,omitempty"`
	Hold    time.Duration `json:"holdNanoseconds,omitempty"`
}

type passiveJSON struct {
	Unanswered  uint32        `json:"unanswered,omitempty"`
	Resets      uint32        `json:"resets,omitempty"`
	Unreachable uint32        `json:"unreachable,omitempty"`
	Within      time.Duration `json:"withinNanoseconds,omitempty"`
	Suspend     time.Duration `json:"suspendNanoseconds,omitempty"`
}

type notifyJSON struct {
	Up         []string `json:"up,omitempty"`
	Down       []string `json:"down,omitempty"`
	QuorumUp   []string `json:"quorumUp,omitempty"`
	QuorumDown []string `json:"quorumDown,omitempty"`
	FIFO       string   `json:"fifo,omitempty"`
}

type loadJSON struct {
	Kind    director.LoadKind `json:"kind,omitempty"`
	Minimum uint32            `json:"minimumPercent,omitempty"`
	Maximum uint32            `json:"maximumPercent,omitempty"`
	Silence time.Duration     `json:"silenceNanoseconds,omitempty"`
	SNMP    *snmpJSON         `json:"snmp,omitempty"`
}

type snmpJSON struct {
	Version       realserver.SNMPVersion `json:"version,omitempty"`
	CommunityFile string                 `json:"communityFile,omitempty"`
	User          string                 `json:"user,omitempty"`
	Auth          realserver.SNMPAuth    `json:"auth,omitempty"`
	AuthFile      string                 `json:"authFile,omitempty"`
	Priv          realserver.SNMPPriv    `json:"priv,omitempty"`
	PrivFile      string                 `json:"privFile,omitempty"`
	Port          uint16                 `json:"port,omitempty"`
	Interval      time.Duration          `json:"intervalNanoseconds,omitempty"`
	Timeout       time.Duration          `json:"timeoutNanoseconds,omitempty"`
	Measure       realserver.SNMPMeasure `json:"measure,omitempty"`
	Processors    uint16                 `json:"processors,omitempty"`
	OID           string                 `json:"oid,omitempty"`
	Scale         uint32                 `json:"scale,omitempty"`
}

// checkJSON is a check; the terms of a kind are there where the check has them, be
// they all zero.
type checkJSON struct {
	Kind     realserver.CheckKind `json:"kind"`
	Port     uint16               `json:"port,omitempty"`
	Via      realserver.CheckVia  `json:"via,omitempty"`
	Interval time.Duration        `json:"intervalNanoseconds,omitempty"`
	Timeout  time.Duration        `json:"timeoutNanoseconds,omitempty"`
	Retry    time.Duration        `json:"retryNanoseconds,omitempty"`
	Rise     uint16               `json:"rise,omitempty"`
	Fall     uint16               `json:"fall,omitempty"`
	TLS      *tlsJSON             `json:"tls,omitempty"`
	HTTP     *httpJSON            `json:"http,omitempty"`
	DNS      *dnsJSON             `json:"dns,omitempty"`
	Exchange *exchangeJSON        `json:"exchange,omitempty"`
	GRPC     *grpcJSON            `json:"grpc,omitempty"`
	SMTP     *smtpJSON            `json:"smtp,omitempty"`
	Script   *scriptJSON          `json:"script,omitempty"`
	File     *fileJSON            `json:"file,omitempty"`
}

type tlsJSON struct {
	ServerName        string        `json:"serverName,omitempty"`
	CA                string        `json:"ca,omitempty"`
	Certificate       string        `json:"certificate,omitempty"`
	Key               string        `json:"key,omitempty"`
	SkipVerify        bool          `json:"skipVerify,omitempty"`
	ExpiryWarning     time.Duration `json:"expiryWarningNanoseconds,omitempty"`
	RefuseWhenExpired bool          `json:"refuseWhenExpired,omitempty"`
}

type httpJSON struct {
	Version int          `json:"version,omitempty"`
	Method  string       `json:"method,omitempty"`
	Path    string       `json:"path,omitempty"`
	Host    string       `json:"host,omitempty"`
	Headers []headerJSON `json:"headers,omitempty"`
	Status  []statusJSON `json:"status,omitempty"`
	Match   string       `json:"match,omitempty"`
	Digest  string       `json:"digest,omitempty"`
}

type headerJSON struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type statusJSON struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

type dnsJSON struct {
	Name   string `json:"name"`
	Type   string `json:"type,omitempty"`
	Answer string `json:"answer,omitempty"`
	TCP    bool   `json:"tcp,omitempty"`
}

type exchangeJSON struct {
	Send   []byte `json:"send,omitempty"`
	Expect string `json:"expect,omitempty"`
}

type grpcJSON struct {
	Service string `json:"service,omitempty"`
}

type smtpJSON struct {
	Hello    string `json:"hello,omitempty"`
	STARTTLS bool   `json:"startTLS,omitempty"`
}

type scriptJSON struct {
	Command []string                 `json:"command"`
	User    string                   `json:"user,omitempty"`
	Status  realserver.StatusMeaning `json:"status,omitempty"`
}

type fileJSON struct {
	Path string `json:"path"`
}

// encodeHealth returns nil for no policy. What the policy points to is shared: it is
// not changed once made.
func encodeHealth(h director.Health) *healthJSON {
	if h.IsZero() {
		return nil
	}
	j := &healthJSON{
		Initial: h.Initial, Down: h.Down, Established: h.Established, Quorum: h.Quorum, Hysteresis: h.Hysteresis, Panic: h.Panic,
		SlowStart: h.SlowStart, Damping: dampingJSON(h.Damping), Passive: passiveJSON(h.Passive), Maintenance: h.Maintenance,
		Notify: notifyJSON(h.Notify), Load: encodeLoad(h.Load), Pool: h.Pool,
	}
	for _, check := range h.Checks {
		j.Checks = append(j.Checks, encodeCheck(check))
	}
	for _, server := range h.Sorry {
		j.Sorry = append(j.Sorry, encodeServer(server))
	}
	return j
}

func (j *healthJSON) decode() director.Health {
	if j == nil {
		return director.Health{}
	}
	h := director.Health{
		Initial: j.Initial, Down: j.Down, Established: j.Established, Quorum: j.Quorum, Hysteresis: j.Hysteresis, Panic: j.Panic,
		SlowStart: j.SlowStart, Damping: director.Damping(j.Damping), Passive: director.Passive(j.Passive), Maintenance: j.Maintenance,
		Notify: director.Notify(j.Notify), Load: j.Load.decode(), Pool: j.Pool,
	}
	for _, check := range j.Checks {
		h.Checks = append(h.Checks, check.decode())
	}
	for _, server := range j.Sorry {
		h.Sorry = append(h.Sorry, server.decode())
	}
	return h
}

func encodeLoad(l director.LoadPolicy) loadJSON {
	return loadJSON{Kind: l.Kind, Minimum: l.Minimum, Maximum: l.Maximum, Silence: l.Silence, SNMP: (*snmpJSON)(l.SNMP)}
}

func (j loadJSON) decode() director.LoadPolicy {
	return director.LoadPolicy{Kind: j.Kind, Minimum: j.Minimum, Maximum: j.Maximum, Silence: j.Silence, SNMP: (*realserver.SNMP)(j.SNMP)}
}

func encodeCheck(c realserver.Check) checkJSON {
	j := checkJSON{
		Kind: c.Kind, Port: c.Port, Via: c.Via, Interval: c.Interval, Timeout: c.Timeout, Retry: c.Retry, Rise: c.Rise, Fall: c.Fall,
		TLS: (*tlsJSON)(c.TLS), DNS: (*dnsJSON)(c.DNS), Exchange: (*exchangeJSON)(c.Exchange), GRPC: (*grpcJSON)(c.GRPC),
		SMTP: (*smtpJSON)(c.SMTP), Script: (*scriptJSON)(c.Script), File: (*fileJSON)(c.File),
	}
	if h := c.HTTP; h != nil {
		j.HTTP = &httpJSON{Version: h.Version, Method: h.Method, Path: h.Path, Host: h.Host, Match: h.Match, Digest: h.Digest}
		for _, header := range h.Headers {
			j.HTTP.Headers = append(j.HTTP.Headers, headerJSON(header))
		}
		for _, codes := range h.Status {
			j.HTTP.Status = append(j.HTTP.Status, statusJSON(codes))
		}
	}
	return j
}

func (j checkJSON) decode() realserver.Check {
	c := realserver.Check{
		Kind: j.Kind, Port: j.Port, Via: j.Via, Interval: j.Interval, Timeout: j.Timeout, Retry: j.Retry, Rise: j.Rise, Fall: j.Fall,
		TLS: (*realserver.TLSCheck)(j.TLS), DNS: (*realserver.DNSCheck)(j.DNS), Exchange: (*realserver.ExchangeCheck)(j.Exchange),
		GRPC: (*realserver.GRPCCheck)(j.GRPC), SMTP: (*realserver.SMTPCheck)(j.SMTP), Script: (*realserver.ScriptCheck)(j.Script),
		File: (*realserver.FileCheck)(j.File),
	}
	if h := j.HTTP; h != nil {
		c.HTTP = &realserver.HTTPCheck{Version: h.Version, Method: h.Method, Path: h.Path, Host: h.Host, Match: h.Match, Digest: h.Digest}
		for _, header := range h.Headers {
			c.HTTP.Headers = append(c.HTTP.Headers, realserver.Header(header))
		}
		for _, codes := range h.Status {
			c.HTTP.Status = append(c.HTTP.Status, realserver.StatusRange(codes))
		}
	}
	return c
}

type overrideJSON struct {
	Service keyJSON        `json:"service"`
	Server  netip.AddrPort `json:"server"`
	Up      bool           `json:"up,omitempty"`
	Since   time.Time      `json:"since"`
	Until   time.Time      `json:"until,omitzero"`
	Who     string         `json:"who,omitempty"`
	Why     string         `json:"why,omitempty"`
}

func encodeOverrides(overrides []director.Override) *[]overrideJSON {
	all := make([]overrideJSON, len(overrides))
	for i, o := range overrides {
		all[i] = overrideJSON{Service: keyJSON(o.Service), Server: o.Server, Up: o.Up, Since: o.Since, Until: o.Until, Who: o.Who, Why: o.Why}
	}
	return &all
}

func decodeOverrides(all []overrideJSON) []director.Override {
	var overrides []director.Override
	for _, j := range all {
		overrides = append(overrides, director.Override{
			Service: director.ServiceKey(j.Service), Server: j.Server, Up: j.Up, Since: j.Since, Until: j.Until, Who: j.Who, Why: j.Why,
		})
	}
	return overrides
}

// sameOverrides compares orders; the same moment is the same time.
func sameOverrides(a, b []director.Override) bool {
	return slices.EqualFunc(a, b, func(a, b director.Override) bool {
		same := a.Since.Equal(b.Since) && a.Until.Equal(b.Until)
		a.Since, a.Until = b.Since, b.Until
		return same && a == b
	})
}
