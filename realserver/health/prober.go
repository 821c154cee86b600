package health

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Target is one address that is asked.
type Target struct {
	Server, Virtual netip.AddrPort
	// Via names the way there where it is not the director's own: probes of different
	// ways are never shared. "": straight to Server.
	Via string
}

// Dial connects to a target for a probe, on the port given; network is tcp or udp. Nil
// in its place: a net.Dialer to the target's server.
type Dial func(ctx context.Context, network string, port uint16) (net.Conn, error)

// Prober asks one target one question. Its methods are called by one goroutine at a
// time.
type Prober interface {
	// Probe asks once and returns soon after ctx has ended.
	Probe(ctx context.Context) Result
	// Close gives back what is kept between probes; no Probe follows.
	Close()
}

// Result is the answer to one probe. It is not changed once given.
type Result struct {
	Err    error  // nil: passed
	Detail string // what was answered, for people
	At     time.Time
	Took   time.Duration
	// Weight, with Absolute, is the weight that a script or a file tells; without it, what
	// is added to the server's. Nil: nothing is said.
	Weight   *int64
	Absolute bool
	Warning  string // what will be a failure one day: a certificate that ends soon
	// CertificateEnd is when the server's certificate ends; zero: none was shown.
	CertificateEnd time.Time
}
