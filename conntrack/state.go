package conntrack

import (
	"fmt"
	"slices"
	"strings"
)

// State is the protocol state of a connection. The numbers are the kernel's for
// TCP (kernel: include/net/ip_vs.h, enum ip_vs_tcp_states); UDP has one state,
// numbered after them so that one table holds both. The fast path stores the
// same numbers. Behind them are those that the kernel's IPVS alone has: SCTP's
// and a template's.
type State uint8

// The states. None is a connection that no packet has moved yet.
const (
	None        State = 0  // IP_VS_TCP_S_NONE
	Established State = 1  // IP_VS_TCP_S_ESTABLISHED
	SynSent     State = 2  // IP_VS_TCP_S_SYN_SENT
	SynRecv     State = 3  // IP_VS_TCP_S_SYN_RECV
	FinWait     State = 4  // IP_VS_TCP_S_FIN_WAIT
	TimeWait    State = 5  // IP_VS_TCP_S_TIME_WAIT
	Close       State = 6  // IP_VS_TCP_S_CLOSE
	CloseWait   State = 7  // IP_VS_TCP_S_CLOSE_WAIT
	LastAck     State = 8  // IP_VS_TCP_S_LAST_ACK
	Listen      State = 9  // IP_VS_TCP_S_LISTEN
	SynAck      State = 10 // IP_VS_TCP_S_SYNACK
	UDPNormal   State = 11 // IP_VS_UDP_S_NORMAL
)

// The states of SCTP but None, the kernel's order (kernel: include/net/ip_vs.h,
// enum ip_vs_sctp_states).
const (
	SCTPInit1            State = 12 // IP_VS_SCTP_S_INIT1
	SCTPInit             State = 13 // IP_VS_SCTP_S_INIT
	SCTPCookieSent       State = 14 // IP_VS_SCTP_S_COOKIE_SENT
	SCTPCookieReplied    State = 15 // IP_VS_SCTP_S_COOKIE_REPLIED
	SCTPCookieWait       State = 16 // IP_VS_SCTP_S_COOKIE_WAIT
	SCTPCookie           State = 17 // IP_VS_SCTP_S_COOKIE
	SCTPCookieEchoed     State = 18 // IP_VS_SCTP_S_COOKIE_ECHOED
	SCTPEstablished      State = 19 // IP_VS_SCTP_S_ESTABLISHED
	SCTPShutdownSent     State = 20 // IP_VS_SCTP_S_SHUTDOWN_SENT
	SCTPShutdownReceived State = 21 // IP_VS_SCTP_S_SHUTDOWN_RECEIVED
	SCTPShutdownAckSent  State = 22 // IP_VS_SCTP_S_SHUTDOWN_ACK_SENT
	SCTPRejected         State = 23 // IP_VS_SCTP_S_REJECTED
	SCTPClosed           State = 24 // IP_VS_SCTP_S_CLOSED
)

// Assured is the state of a template that had a proven connection, which the
// kernel does not drop when memory is scarce.
const Assured State = 25 // IP_VS_CTPL_S_ASSURED

// fastStates is the number of states that the fast path has, None included.
const fastStates = 12

// tcpStates is the number of TCP states, None included.
const tcpStates = 11

// stateNames are those of /proc/net/ip_vs_conn and of ipvsadm -Lc (kernel:
// net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_name_table; ip_vs_proto_sctp.c,
// sctp_state_name_table; ip_vs_proto.c, ip_vs_state_name). NONE is every
// protocol's; SCTP's ESTABLISHED is named as TCP's.
var stateNames = [...]string{
	None:        "NONE",
	Established: "ESTABLISHED",
	SynSent:     "SYN_SENT",
	SynRecv:     "SYN_RECV",
	FinWait:     "FIN_WAIT",
	TimeWait:    "TIME_WAIT",
	Close:       "CLOSE",
	CloseWait:   "CLOSE_WAIT",
	LastAck:     "LAST_ACK",
	Listen:      "LISTEN",
	SynAck:      "SYNACK",
	UDPNormal:   "UDP",

	SCTPInit1:            "INIT1",
	SCTPInit:             "INIT",
	SCTPCookieSent:       "C-SENT",
	SCTPCookieReplied:    "C-REPLIED",
	SCTPCookieWait:       "C-WAIT",
	SCTPCookie:           "COOKIE",
	SCTPCookieEchoed:     "C-ECHOED",
	SCTPEstablished:      "ESTABLISHED",
	SCTPShutdownSent:     "S-SENT",
	SCTPShutdownReceived: "S-RECEIVED",
	SCTPShutdownAckSent:  "S-ACK-SENT",
	SCTPRejected:         "REJECTED",
	SCTPClosed:           "CLOSED",

	Assured: "ASSURED",
}

// States returns the states that the fast path has, TCP's and UDP's, in the order
// of their numbers.
func States() []State { return AllStates()[:fastStates] }

// AllStates returns all states in the order of their numbers.
func AllStates() []State {
	states := make([]State, len(stateNames))
	for i := range states {
		states[i] = State(i)
	}
	return states
}

// String returns the kernel's name of the state, as in /proc/net/ip_vs_conn, or
// its number if there is no such state.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE-%d", uint8(s))
}

// ParseState reads a name as String prints it, in any case. ESTABLISHED is TCP's:
// ParseStateOf knows the protocol.
func ParseState(name string) (State, error) {
	for i, known := range stateNames {
		if strings.EqualFold(name, known) {
			return State(i), nil
		}
	}
	names := slices.DeleteFunc(slices.Clone(stateNames[:]), func(s string) bool { return s == stateNames[SCTPEstablished] })
	return None, fmt.Errorf("unknown connection state %q: want one of %s",
		name, strings.Join(slices.Insert(names, int(Established), stateNames[Established]), ", "))
}

// ParseStateOf reads a name as String prints it for a connection of the protocol,
// in any case.
func ParseStateOf(protocol Protocol, name string) (State, error) {
	if protocol == SCTP && strings.EqualFold(name, stateNames[SCTPEstablished]) {
		return SCTPEstablished, nil
	}
	return ParseState(name)
}

// Active reports whether IPVS counts a connection in this state as active for
// its server; in all others, UDP's included, it counts as inactive (kernel:
// net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_active_table; ip_vs_proto_sctp.c,
// set_sctp_state).
func (s State) Active() bool {
	switch s {
	case Established, SynSent, SynRecv, SynAck, SCTPEstablished:
		return true
	default:
		return false
	}
}
