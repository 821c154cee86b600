package conntrack

import (
	"errors"
	"fmt"
	"time"
)

// Timeouts are the idle times that can be set: those of ipvsadm --set. A
// connection's timeout starts anew, from its new state, with every packet.
// Comparable.
type Timeouts struct {
	TCP    time.Duration // ESTABLISHED; default 15 minutes
	TCPFin time.Duration // FIN_WAIT; default 2 minutes
	UDP    time.Duration // UDP; default 5 minutes
}

// The range of a settable timeout, ipvsadm's; whole seconds, because that is
// all the kernel's interface carries.
const (
	MinTimeout = time.Second
	MaxTimeout = 31 * 24 * time.Hour
)

// DefaultTimeouts returns the kernel's defaults.
func DefaultTimeouts() Timeouts {
	return Timeouts{TCP: 15 * time.Minute, TCPFin: 2 * time.Minute, UDP: 5 * time.Minute}
}

// Merge returns t with the fields of o that are not zero, as ipvsadm --set
// leaves a value given as 0 as it is.
func (t Timeouts) Merge(o Timeouts) Timeouts {
	if o.TCP != 0 {
		t.TCP = o.TCP
	}
	if o.TCPFin != 0 {
		t.TCPFin = o.TCPFin
	}
	if o.UDP != 0 {
		t.UDP = o.UDP
	}
	return t
}

// Within returns t with each value that is not zero moved into the range, to whole
// seconds: tools other than ipvsadm can give the kernel more.
func (t Timeouts) Within() Timeouts {
	within := func(d time.Duration) time.Duration {
		if d == 0 {
			return 0
		}
		return max(MinTimeout, min(d, MaxTimeout)).Truncate(time.Second)
	}
	return Timeouts{TCP: within(t.TCP), TCPFin: within(t.TCPFin), UDP: within(t.UDP)}
}

// Of returns the idle time after which a connection in the state dies. A state
// that does not exist has none: zero; nor has a template's, whose time is the
// service's.
func (t Timeouts) Of(state State) time.Duration {
	switch state {
	case Established:
		return t.TCP
	case FinWait:
		return t.TCPFin
	case UDPNormal:
		return t.UDP
	case None:
		return 2 * time.Second
	case SynSent, TimeWait, Listen, SynAck:
		return 120 * time.Second
	case SynRecv, CloseWait:
		return 60 * time.Second
	case SCTPEstablished:
		return 15 * time.Minute // --set does not reach SCTP's (kernel: ip_vs_proto_sctp.c, sctp_timeouts)
	case SCTPInit1, SCTPRejected:
		return 4 * time.Second
	case SCTPInit, SCTPCookieSent, SCTPCookieReplied, SCTPCookieWait, SCTPCookie, SCTPCookieEchoed,
		SCTPShutdownSent, SCTPShutdownReceived, SCTPShutdownAckSent, SCTPClosed:
		return 61 * time.Second // IP_VS_SCTP_MAX_RTO
	case LastAck:
		return 30 * time.Second
	case Close:
		return 10 * time.Second
	default:
		return 0
	}
}

// Validate returns an error that names every timeout out of range.
func (t Timeouts) Validate() error {
	return errors.Join(
		validateTimeout("tcp", t.TCP),
		validateTimeout("tcp-fin", t.TCPFin),
		validateTimeout("udp", t.UDP),
	)
}

// String returns the three values with their names.
func (t Timeouts) String() string {
	return fmt.Sprintf("tcp %s, tcp-fin %s, udp %s", t.TCP, t.TCPFin, t.UDP)
}

func validateTimeout(name string, d time.Duration) error {
	switch {
	case d < MinTimeout || d > MaxTimeout:
		return fmt.Errorf("%s timeout %s is out of range: want 1s to %dh (31 days)", name, d, MaxTimeout/time.Hour)
	case d%time.Second != 0:
		return fmt.Errorf("%s timeout %s: want whole seconds", name, d)
	default:
		return nil
	}
}
