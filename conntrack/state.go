package conntrack

import (
	"fmt"
	"strings"
)

// State is the protocol state of a connection. The numbers are the kernel's for
// TCP (kernel: include/net/ip_vs.h, enum ip_vs_tcp_states); UDP has one state,
// numbered after them so that one table holds both. The fast path stores the
// same numbers.
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

// tcpStates is the number of TCP states, None included.
const tcpStates = 11

// stateNames are those of /proc/net/ip_vs_conn and of ipvsadm -Lc.
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
}

// States returns all states in the order of their numbers.
func States() []State {
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

// ParseState reads a name as String prints it, in any case.
func ParseState(name string) (State, error) {
	for i, known := range stateNames {
		if strings.EqualFold(name, known) {
			return State(i), nil
		}
	}
	return None, fmt.Errorf("unknown connection state %q: want one of %s",
		name, strings.Join(stateNames[:], ", "))
}

// Active reports whether IPVS counts a connection in this state as active for
// its server; in all others, UDP's included, it counts as inactive (kernel:
// net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_active_table).
func (s State) Active() bool {
	switch s {
	case Established, SynSent, SynRecv, SynAck:
		return true
	default:
		return false
	}
}
