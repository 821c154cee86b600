package conntrack

// AckReach is how far a client's acknowledgement may be past the number that proves
// it: a window without scaling (RFC 9293 §3.1), as the first segments have it.
const AckReach = 1 << 16

// SpacedPackets is how many of a client's packets, each a second or more after the one
// before, prove it where nothing else does.
const SpacedPackets = 3

// Proof is how far a connection of the fast path has come in proving that its client
// is real, and has not lent its address to a flood: bpf/src/proof.h in Go. The zero
// value is that of a new connection.
type Proof struct {
	// Validated: the client had answered the service's guard before; Wide: by nat, of
	// a service of several addresses or ports. Both are fixed.
	Validated, Wide bool
	// Proven connections are never given up for others, but for those that a reply alone
	// has proven: ByReply. What was sent in a client's name gets a reply too.
	Proven, ByReply bool
	// Half: the handshake is complete, as far as it is seen without replies.
	Half bool
	// Awaited: the client has to acknowledge Number, or up to AckReach past it.
	Awaited bool
	Number  uint32
	// Spaced is how many packets came a second or more after the one before, of those
	// that count.
	Spaced int
}

// Segment is what a packet tells of its client besides its direction. Flags, Seq and
// Ack are TCP's.
type Segment struct {
	Flags    uint8 // the TCP header's 14th byte
	Seq, Ack uint32
	Spaced   bool // a second or more after the last packet of the connection
}

// After is the proof after a packet that has left the connection in the state.
func (p Proof) After(direction Direction, s Segment, state State) Proof {
	switch {
	case p.Proven && !p.ByReply:
		return p
	case state == UDPNormal:
		return p.afterDatagram(direction, s)
	case direction == Output:
		return p.awaiting(s)
	case direction == InputOnly:
		return p.unanswered(s, state)
	case p.Awaited && s.Flags&(flagSyn|flagRst|flagAck) == flagAck && s.Ack-p.Number < AckReach:
		return p.proven()
	case p.Wide && s.Flags&flagSyn != 0:
		// Its replies need the place that the number is in; the server will repeat it.
		p.Awaited = false
	}
	return p
}

func (p Proof) proven() Proof {
	return Proof{Validated: p.Validated, Wide: p.Wide, Proven: true}
}

// afterDatagram is after a packet of UDP: a reply and a spaced packet of the client's,
// whichever is first, or several of these.
func (p Proof) afterDatagram(direction Direction, s Segment) Proof {
	switch {
	case direction != Output && !p.ByReply:
		return p.later(s)
	case direction != Output && s.Spaced, direction == Output && p.Spaced > 0:
		return p.proven()
	case direction == Output:
		p.Proven, p.ByReply = true, true
	}
	return p
}

// later is after a client's packet where time is what proves.
func (p Proof) later(s Segment) Proof {
	if !s.Spaced {
		return p
	}
	if p.Spaced++; p.Spaced == SpacedPackets {
		return p.proven()
	}
	return p
}

// awaiting is after a server's segment: the latest handshake counts, or the first
// segment of a connection that began before it was known. A reset asks for nothing.
func (p Proof) awaiting(s Segment) Proof {
	switch {
	case s.Flags&(flagRst|flagAck) != flagAck:
	case s.Flags&flagSyn != 0:
		p.Awaited, p.Number = true, s.Seq+1
	case !p.Awaited:
		p.Awaited, p.Number = true, s.Seq
	}
	return p
}

// unanswered is after a client's segment where replies are not seen.
func (p Proof) unanswered(s Segment, state State) Proof {
	switch {
	case state != Established:
		return p
	case p.Half:
		return p.later(s)
	case p.Validated:
		return p.proven()
	}
	p.Half = true
	return p
}
