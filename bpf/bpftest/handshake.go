package bpftest

// Handshake returns the segments of a TCP handshake as they arrive: the client's
// first, the server's answer, and the client's acknowledgement of that.
func Handshake(request, reply Packet) [3]Packet {
	request.Flags, request.Ack, request.Payload = "S", 0, nil
	reply.Flags, reply.Ack, reply.Payload = "SA", request.Seq+1, nil
	ack := request
	ack.Flags, ack.Seq, ack.Ack = "A", request.Seq+1, reply.Seq+1
	return [3]Packet{request, reply, ack}
}
