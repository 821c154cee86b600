package realserver

import (
	"encoding/json"
	"time"
)

// CheckKind is what a check asks of a server.
type CheckKind string

// The kinds of checks.
const (
	CheckTCP    CheckKind = "tcp"    // a connection; with Exchange, what is sent and expected over it
	CheckHTTP   CheckKind = "http"   // HTTP/1.1 or HTTP/2; over TLS with TLS
	CheckDNS    CheckKind = "dns"    // a query over UDP, or TCP with DNS.TCP
	CheckUDP    CheckKind = "udp"    // a datagram; without Exchange.Expect, silence will do, a refusal will not
	CheckICMP   CheckKind = "icmp"   // an echo request
	CheckGRPC   CheckKind = "grpc"   // grpc.health.v1.Health/Check
	CheckSMTP   CheckKind = "smtp"   // the greeting and EHLO, or HELO; with SMTP.STARTTLS, TLS and EHLO again
	CheckScript CheckKind = "script" // a command on the director; its status is the answer
	CheckFile   CheckKind = "file"   // a file on the director; a number in it is the weight
)

// CheckVia says which way a check goes to the server.
type CheckVia string

// The ways of checks.
const (
	// ViaAuto is ViaVirtual for servers that packets reach unchanged, by DR or tunnel,
	// where the data plane can send probes, ViaServer for others.
	ViaAuto CheckVia = ""
	// ViaServer asks the server at its own address.
	ViaServer CheckVia = "server"
	// ViaVirtual asks it at the virtual address by the way a client's packet goes.
	ViaVirtual CheckVia = "virtual"
)

// Check is one question asked of each server of a service from time to time. The
// value, and what it points to, is not changed once made; SameChecks compares.
type Check struct {
	Kind CheckKind
	// Port is asked in place of the server's, or virtual, one; 0: that one.
	Port uint16
	Via  CheckVia
	// Interval is from one probe's beginning to the next; Timeout is how long a probe may
	// take. Retry is the interval after a result that contradicts the state, until the
	// state changes or a result confirms it. Zero values have defaults (WithDefaults).
	Interval, Timeout, Retry time.Duration
	// Rise and Fall are how many results in a row make a server up, and down.
	Rise, Fall uint16

	// Those of the kind; nil where a kind needs none.
	TLS      *TLSCheck      // http, tcp, smtp, grpc: over TLS
	HTTP     *HTTPCheck     // http
	DNS      *DNSCheck      // dns
	Exchange *ExchangeCheck // tcp, udp
	GRPC     *GRPCCheck     // grpc
	SMTP     *SMTPCheck     // smtp
	Script   *ScriptCheck   // script
	File     *FileCheck     // file
}

// TLSCheck are the terms of TLS. Files are PEM, absolute paths, read anew when they
// have changed.
type TLSCheck struct {
	ServerName        string        // SNI, and whose certificate it must be; "": the HTTP host, else the address
	CA                string        // file of trusted certificates; "": the system's
	Certificate, Key  string        // files of ours, for mutual TLS; both or none
	SkipVerify        bool          // any certificate will do
	ExpiryWarning     time.Duration // warn when it ends sooner; 0: 14 days
	RefuseWhenExpired bool          // with SkipVerify: an ended certificate is a failure all the same
}

// HTTPCheck is a request and what answers will do.
type HTTPCheck struct {
	Version int           // 1, 2, or 0: 1 in the clear, by ALPN over TLS
	Method  string        // "": GET
	Path    string        // with its query; "": /
	Host    string        // "": the address asked
	Headers []Header      // sent besides
	Status  []StatusRange // that will do; none: 200 to 399
	// Match is a regular expression (RE2) found in the body's first MiB; Digest the
	// body's SHA-256, or MD5 as keepalived's, in hexadecimal. "": not looked at.
	Match, Digest string
}

// Header is one header field.
type Header struct{ Name, Value string }

// StatusRange are the HTTP status codes First to Last.
type StatusRange struct{ First, Last uint16 }

// DNSCheck is a query.
type DNSCheck struct {
	Name string
	Type string // "": A; A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT
	// Answer is a text that one of the records must have as its value; "": a response
	// without error that has an answer.
	Answer string
	TCP    bool
}

// ExchangeCheck is what is sent and expected.
type ExchangeCheck struct {
	Send   []byte
	Expect string // a regular expression (RE2) of the answer's first 64 KiB; "": nothing
}

// GRPCCheck is the service asked for; "": the server as a whole.
type GRPCCheck struct{ Service string }

// SMTPCheck is a greeting.
type SMTPCheck struct {
	Hello string // how the director names itself; "": its host name
	// STARTTLS has the connection go on over TLS after the greeting (RFC 3207), by the
	// check's TLS, or as its zero value has it. Without, TLS comes first.
	STARTTLS bool
}

// ScriptCheck is a command. It has its own process group, ended as a whole after
// Timeout; its status is 0 for up and 1 for down, and 2 to 255 as Status says.
type ScriptCheck struct {
	Command []string // program, an absolute path, and arguments; %h, %p, %v and %q are the server's and the virtual address and port
	User    string   // "": the director's script user
	Status  StatusMeaning
}

// StatusMeaning says what a script's status means.
type StatusMeaning string

// The meanings.
const (
	StatusPlain  StatusMeaning = ""       // all but 0 is a failure
	StatusNagios StatusMeaning = "nagios" // 0 and 1 (warning) are up, 2 and 3 down
	StatusWeight StatusMeaning = "weight" // keepalived's (misc_dynamic): 2 to 255 is up, and the weight is the status - 2
)

// FileCheck is a file whose first line is a number: the weight, from -1, down.
type FileCheck struct{ Path string }

// Defaults of checks.
const (
	DefaultCheckInterval = 5 * time.Second
	DefaultCheckTimeout  = 2 * time.Second
	DefaultCheckRise     = 2
	DefaultCheckFall     = 3
)

// WithDefaults returns the check with its zero times and counts filled in: a timeout is
// at most the interval, a retry comes after a fifth of the interval, half of the timeout
// or MinCheckInterval, whichever is longest, and no later than the interval. What
// Validate takes it takes with its defaults too.
func (c Check) WithDefaults() Check {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&c.Interval, DefaultCheckInterval)
	set(&c.Timeout, min(DefaultCheckTimeout, c.Interval))
	set(&c.Retry, min(max(c.Interval/5, c.Timeout/2, MinCheckInterval), c.Interval))
	if c.Rise == 0 {
		c.Rise = DefaultCheckRise
	}
	if c.Fall == 0 {
		c.Fall = DefaultCheckFall
	}
	return c
}

// Key returns a text that two checks have in common if they ask the same, at the same
// pace: asked of one address, one probe answers for both.
func (c Check) Key() string {
	// Fields are of types that encode without error, in a fixed order.
	text, err := json.Marshal(c)
	if err != nil {
		panic("realserver: a check that cannot be encoded: " + err.Error())
	}
	return string(text)
}

// Protocol returns what connections of the check are by, tcp or udp; empty for kinds that
// make none of their own.
func (c Check) Protocol() string {
	switch {
	case c.Kind == CheckUDP, c.Kind == CheckDNS && (c.DNS == nil || !c.DNS.TCP):
		return "udp"
	case c.Kind == CheckICMP, c.Kind == CheckScript, c.Kind == CheckFile:
		return ""
	}
	return "tcp"
}

// SameChecks reports whether the checks are the same in the same order.
func SameChecks(a, b []Check) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true // most often, and without a text
	}
	for i := range a {
		if a[i].Key() != b[i].Key() {
			return false
		}
	}
	return true
}
