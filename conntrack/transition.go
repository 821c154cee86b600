package conntrack

import "fmt"

// Direction says which transition table a packet is looked up in.
type Direction uint8

// The directions.
const (
	Input     Direction = 0 // from the client, replies pass the director (IP_VS_DIR_INPUT)
	Output    Direction = 1 // from the server (IP_VS_DIR_OUTPUT)
	InputOnly Direction = 2 // from the client, replies are not seen (IP_VS_DIR_INPUT_ONLY)
)

// String returns the direction's name.
func (d Direction) String() string {
	switch d {
	case Input:
		return "input"
	case Output:
		return "output"
	case InputOnly:
		return "input-only"
	default:
		return fmt.Sprintf("direction-%d", uint8(d))
	}
}

// Event is what a TCP segment's flags mean to the state table.
type Event uint8

// The events.
const (
	Syn Event = 0
	Fin Event = 1
	Ack Event = 2
	Rst Event = 3
	// NoFlag is a segment with none of the four; it closes the connection.
	NoFlag Event = 4
)

// String returns the event's name.
func (e Event) String() string {
	switch e {
	case Syn:
		return "syn"
	case Fin:
		return "fin"
	case Ack:
		return "ack"
	case Rst:
		return "rst"
	case NoFlag:
		return "none"
	default:
		return fmt.Sprintf("event-%d", uint8(e))
	}
}

// The flag bits of a TCP header's 14th byte (RFC 9293 §3.1).
const (
	flagFin = 0x01
	flagSyn = 0x02
	flagRst = 0x04
	flagAck = 0x10
)

// EventOf returns the event of a segment with these flags (the TCP header's
// 14th byte): RST before SYN before FIN before ACK, as the kernel looks at them
// (kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_state_idx).
func EventOf(flags uint8) Event {
	switch {
	case flags&flagRst != 0:
		return Rst
	case flags&flagSyn != 0:
		return Syn
	case flags&flagFin != 0:
		return Fin
	case flags&flagAck != 0:
		return Ack
	default:
		return NoFlag
	}
}

// Next returns the state after an event of TCP. UDP's one state is never left. A
// direction, event or state that TCP does not have closes the connection.
func Next(direction Direction, event Event, state State) State {
	if state == UDPNormal {
		return UDPNormal
	}
	if int(direction) >= len(tcpTransitions) || event >= NoFlag || state >= tcpStates {
		return Close
	}
	return tcpTransitions[direction][event][state]
}

// TCPTransitions returns the TCP state tables, indexed by direction, event (Syn
// to Rst) and old state. The fast path's copy is compared with it.
func TCPTransitions() [3][4][11]State { return tcpTransitions }

// The kernel's abbreviations, which make the tables readable.
const (
	sNO = None
	sES = Established
	sSS = SynSent
	sSR = SynRecv
	sFW = FinWait
	sTW = TimeWait
	sCL = Close
	sCW = CloseWait
	sLA = LastAck
	sLI = Listen
	sSA = SynAck
)

// tcpTransitions are the tables without secure_tcp (kernel:
// net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_states). Odd but real: a client's
// RST leaves SYN_RECV as it is, and its SYN leaves ESTABLISHED.
var tcpTransitions = [3][4][tcpStates]State{
	Input: {
		//    NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		Syn: {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		Fin: {sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW},
		Ack: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		Rst: {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR},
	},
	Output: {
		//    NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		Syn: {sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR},
		Fin: {sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW},
		Ack: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES},
		Rst: {sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL},
	},
	InputOnly: {
		//    NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA
		Syn: {sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR},
		Fin: {sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW},
		Ack: {sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES},
		Rst: {sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL},
	},
}
