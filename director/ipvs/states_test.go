package ipvs

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Connections are selected by state as ipvsadm shows them: of TCP, UDP and SCTP, and
// templates.
func TestGuestConnectionsByState(t *testing.T) {
	l := startTraffic(t)
	vip := netip.MustParseAddr("192.0.2.10")
	if err := l.ns.AddAddress("lo", netip.PrefixFrom(vip, 32)); err != nil {
		t.Fatal(err)
	}
	web, shut := l.nat("web", "tcp://192.0.2.10:80"), l.nat("shut", "tcp://192.0.2.10:81")
	web.Persistence = director.Persistence{Timeout: 10 * time.Minute, Prefix: 32}
	web.VIP, shut.VIP = director.VIPExternal, director.VIPExternal
	for i := range shut.Servers { // where nobody listens
		shut.Servers[i].Address = netip.AddrPortFrom(shut.Servers[i].Address.Addr(), 9)
	}
	server := l.lab.Servers[0].Addr4.String()
	l.apply(t, adding(web, shut,
		service("udp://192.0.2.10:53", realserver.DR, server), service("sctp://192.0.2.10:2905", realserver.DR, server))...)

	kept, ended := l.client(), l.client()
	l.get(kept, web.Key.Address)
	l.get(ended, web.Key.Address)
	ended.CloseIdleConnections()
	if _, err := l.client().Get("http://" + shut.Key.Address.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("error %v, want a refusal", err)
	}
	// The director's own packets are scheduled, too (kernel: ip_vs_core.c, LOCAL_OUT).
	err := l.ns.Do(func() error {
		udp, err := net.Dial("udp", "192.0.2.10:53")
		if err != nil {
			return err
		}
		defer udp.Close()
		if _, err := udp.Write([]byte("?")); err != nil {
			return err
		}
		sctp, err := net.Dial("ip4:132", vip.String())
		if err != nil {
			return err
		}
		defer sctp.Close()
		for port, chunks := range map[uint16][]byte{40001: {1}, 40002: {1, 10}} { // INIT, COOKIE ECHO
			for _, chunk := range chunks {
				if _, err := sctp.Write(sctpPacket(port, 2905, chunk)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// Connections move from state to state, so both are asked until they agree.
	var want, got map[string]int
	for range 50 {
		want, got = map[string]int{}, map[string]int{}
		for _, line := range strings.Split(l.ipvsadm(t, "-L", "-n", "-c"), "\n") {
			if words := strings.Fields(line); len(words) == 6 && words[0] != "pro" {
				want[words[2]]++
			}
		}
		for _, state := range conntrack.AllStates() {
			n := 0
			for c, err := range l.Connections(t.Context(), director.ConnectionFilter{State: state.String()}) {
				if err != nil {
					t.Fatal(err)
				}
				if c.State.String() != state.String() {
					t.Fatalf("%s selects %+v", state, c)
				}
				n++
			}
			if n > 0 {
				got[state.String()] = n
			}
		}
		if cmp.Equal(want, got) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("connections by state (-ipvsadm +found):\n%s", diff)
	}
	for state, least := range map[string]int{"ESTABLISHED": 2, "CLOSE": 1, "UDP": 1, "INIT1": 1, "ASSURED": 1} {
		if want[state] < least {
			t.Errorf("%d connections in %s, want %d: %v", want[state], state, least, want)
		}
	}
}

// sctpPacket returns one with a chunk of the header alone (RFC 9260 §3).
func sctpPacket(from, to uint16, chunk byte) []byte {
	packet := make([]byte, 16)
	binary.BigEndian.PutUint16(packet, from)
	binary.BigEndian.PutUint16(packet[2:], to)
	packet[12], packet[15] = chunk, 4
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
	return packet
}
