package ipvs_test

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/realserver"
)

// The chunk types of SCTP (RFC 9260 §3.2).
const (
	chunkInit             = 1
	chunkInitAck          = 2
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
)

// sctpFrame returns a packet of SCTP with one chunk, of the header alone: it is made
// of one of UDP, whose ports stand in the same place.
func sctpFrame(from, to netip.AddrPort, chunk byte) []byte {
	const ip, transport = 14, 14 + 20
	frame := bpftest.Packet{
		Source: bpftest.ClientMAC, Destination: bpftest.DirectorOutside, From: from, To: to, Protocol: bpftest.UDP,
		Payload: []byte{0, 0, 0, 0, chunk, 0, 0, 4}, // where the checksum is, and the chunk
	}.Bytes()
	frame[ip+9] = uint8(conntrack.SCTP)
	binary.BigEndian.PutUint16(frame[ip+10:], 0)
	sum := uint32(0)
	for i := ip; i < transport; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(frame[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(frame[ip+10:], ^uint16(sum&0xffff+sum>>16))
	binary.BigEndian.PutUint32(frame[transport+4:], 1) // the verification tag
	crc := crc32.Checksum(frame[transport:], crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(frame[transport+8:], crc) // RFC 9260 appendix A
	return frame
}

// TestSCTP compares names, idle times and what counts as active of each state of
// SCTP with the kernel's, by ways that lead to all of them.
func TestSCTP(t *testing.T) {
	ipvs.Guest(t)
	type move struct {
		fromServer bool
		chunk      byte
		want       conntrack.State
	}
	const client, server = false, true
	seen := map[conntrack.State]bool{conntrack.None: true}
	for name, way := range map[string][]move{
		"client_begins_and_ends": {
			{client, chunkInit, conntrack.SCTPInit1},
			{client, chunkInit, conntrack.SCTPInit},
			{server, chunkInitAck, conntrack.SCTPCookieSent},
			{client, chunkCookieEcho, conntrack.SCTPCookieReplied},
			{server, chunkCookieAck, conntrack.SCTPEstablished},
			{client, chunkShutdown, conntrack.SCTPShutdownReceived},
			{server, chunkShutdownAck, conntrack.SCTPShutdownAckSent},
			{client, chunkShutdownComplete, conntrack.SCTPClosed},
		},
		"server_begins_and_ends": {
			{client, chunkInit, conntrack.SCTPInit1},
			{server, chunkInit, conntrack.SCTPCookieWait},
			{client, chunkInitAck, conntrack.SCTPCookie},
			{server, chunkCookieEcho, conntrack.SCTPCookieEchoed},
			{client, chunkCookieAck, conntrack.SCTPEstablished},
			{server, chunkShutdown, conntrack.SCTPShutdownSent},
			{client, chunkShutdownAck, conntrack.SCTPClosed},
		},
		"refused": {
			{client, chunkInit, conntrack.SCTPInit1},
			{server, chunkAbort, conntrack.SCTPRejected},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, conntrack.SCTP, realserver.NAT)
			peer := s.client()
			for i, m := range way {
				from, to := peer, s.service.Address
				if m.fromServer {
					from, to = s.server.Address, peer
				}
				sent := time.Now()
				s.SendBytes(sctpFrame(from, to, m.chunk))
				want := observed{State: m.want.String(), Timeout: conntrack.DefaultTimeouts().Of(m.want), Active: m.want.Active()}
				got := s.observe(peer, want.Timeout, sent)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("chunk %d (-conntrack +kernel):\n%s", i+1, diff)
				}
				if state, err := conntrack.ParseStateOf(conntrack.SCTP, got.State); err != nil || state != m.want {
					t.Errorf("chunk %d: %s is read as %d, %v, want %d", i+1, got.State, state, err, m.want)
				}
				seen[m.want] = true
			}
		})
	}
	for state := conntrack.SCTPInit1; state <= conntrack.SCTPClosed; state++ {
		if !seen[state] {
			t.Errorf("%s is not compared", state)
		}
	}
}
