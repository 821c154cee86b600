package decap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/bpf/bpftest"
	"github.com/shunt-lb/shunt/bpf/decap"
	"github.com/shunt-lb/shunt/director/directortest"
)

// wire is a server with the virtual addresses on lo and a link, on whose other end
// the test reads and writes frames: director and client.
type wire struct {
	*host

	director               *directortest.Namespace
	fd                     int
	serverMAC, directorMAC net.HardwareAddr
}

// patience is how long an answer may take on a busy machine.
const patience = time.Minute

func newWire(t *testing.T) *wire {
	t.Helper()
	h := &host{t: t, pins: directortest.Bpffs(t) + "/agent"}
	h.Namespace = h.namespace("server")
	director := h.namespace("director")
	h.ok(h.AddVeth("eth0", director, "eth0", 0))
	h.ok(h.SetOffload("eth0", directortest.TxChecksum, directortest.Off))
	w := &wire{host: h, director: director}
	link, err := director.Netlink().LinkByName("eth0")
	h.ok(err)
	w.directorMAC = link.Attrs().HardwareAddr
	own, err := h.Netlink().LinkByName("eth0")
	h.ok(err)
	w.serverMAC = own.Attrs().HardwareAddr
	for _, f := range families {
		bits := f.server.BitLen()
		h.ok(h.AddAddress("eth0", netip.PrefixFrom(f.server, bits-8)))
		h.ok(h.AddAddress("lo", netip.PrefixFrom(f.virtual.Addr(), bits)))
		h.ok(h.AddRoute(netip.PrefixFrom(f.client.Addr(), bits), f.director))
		h.ok(h.Netlink().NeighSet(&netlink.Neigh{
			LinkIndex: own.Attrs().Index, State: netlink.NUD_PERMANENT, IP: f.director.AsSlice(), HardwareAddr: w.directorMAC,
		}))
	}
	h.ok(director.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap16(unix.ETH_P_ALL)))
		if err == nil {
			err = unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
		}
		return err
	}))
	t.Cleanup(func() { h.ok(unix.Close(w.fd)) })
	return w
}

func swap16(n uint16) uint16 { return n<<8 | n>>8 }

// send writes a frame of the scene, with this wire's link addresses.
func (w *wire) send(frame []byte) {
	w.t.Helper()
	copy(frame, w.serverMAC)
	copy(frame[6:], w.directorMAC)
	_, err := unix.Write(w.fd, frame)
	w.ok(err)
}

// receive returns the next frame of the server to the client that is wanted, from its IP header on.
func (w *wire) receive(wanted func(packet []byte) bool) []byte {
	w.t.Helper()
	frame := make([]byte, 2048)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		left := unix.NsecToTimeval(time.Until(end).Nanoseconds())
		w.ok(unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left))
		n, err := unix.Read(w.fd, frame)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		w.ok(err)
		if n > 14 && bytes.Equal(frame[6:12], w.serverMAC) && wanted(frame[14:n]) {
			return frame[14:n]
		}
	}
	w.t.Fatal("the server did not answer")
	return nil
}

// transport splits a packet of the family's virtual address to its client; nil: it is another.
func transport(f family, packet []byte, protocol byte) []byte {
	from, to := f.virtual.Addr().AsSlice(), f.client.Addr().AsSlice()
	switch {
	case f == v4 && packet[0]>>4 == 4 && packet[9] == protocol && bytes.Equal(packet[12:16], from) && bytes.Equal(packet[16:20], to):
		return packet[20:]
	case f == v6 && packet[0]>>4 == 6 && packet[6] == protocol && bytes.Equal(packet[8:24], from) && bytes.Equal(packet[24:40], to):
		return packet[40:]
	}
	return nil
}

// echo answers datagrams of a virtual address by themselves, until the test ends.
func (w *wire) echo(f family) {
	w.t.Helper()
	conn, err := w.ListenPacket(context.Background(), f.virtual)
	w.ok(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
	w.t.Cleanup(func() { conn.Close(); <-done })
}

// ask sends a datagram by the tunnel and waits for its answer.
func (w *wire) ask(out, in family, by tunnel, text string) {
	w.t.Helper()
	w.send(wrapped(nil, out.outer(), by, request(in, func(p *bpftest.Packet) {
		p.Protocol, p.Payload = bpftest.UDP, []byte(text)
	})))
	w.receive(func(packet []byte) bool {
		udp := transport(in, packet, 17)
		return udp != nil && string(udp[8:]) == text
	})
}

// connect opens a TCP connection by the tunnel, sends a text on it, and returns what arrived.
func (w *wire) connect(out, in family, by tunnel, port uint16, text string) string {
	w.t.Helper()
	listener, err := w.Listen(context.Background(), in.virtual)
	w.ok(err)
	defer listener.Close()
	segment := func(flags string, seq, ack uint32, payload string) {
		w.send(wrapped(nil, out.outer(), by, request(in, func(p *bpftest.Packet) {
			p.From = netip.AddrPortFrom(in.client.Addr(), port)
			p.Flags, p.Seq, p.Ack, p.Payload = flags, seq, ack, []byte(payload)
		})))
	}
	segment("S", 1000, 0, "")
	var number uint32
	w.receive(func(packet []byte) bool {
		tcp := transport(in, packet, 6)
		if tcp == nil || binary.BigEndian.Uint16(tcp[2:]) != port || tcp[13] != 0x12 || binary.BigEndian.Uint32(tcp[8:]) != 1001 {
			return false
		}
		number = binary.BigEndian.Uint32(tcp[4:])
		return true
	})
	segment("A", 1001, number+1, "")
	segment("PA", 1001, number+1, text)
	w.ok(listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	conn, err := listener.Accept()
	w.ok(err)
	defer conn.Close()
	w.ok(conn.(*net.TCPConn).SetLinger(0))
	w.ok(conn.SetDeadline(time.Now().Add(patience)))
	if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Port(); got != port {
		w.t.Errorf("the server sees the client's port %d, want %d", got, port)
	}
	buffer := make([]byte, len(text)+1)
	n, err := conn.Read(buffer)
	w.ok(err)
	return string(buffer[:n])
}

// labConfig lets the director of the scene in, and no one else.
func labConfig() decap.Config {
	c := config()
	c.From = []netip.Prefix{netip.PrefixFrom(v4.director, 32), netip.PrefixFrom(v6.director, 128)}
	return c
}

// TestLab: by every tunnel and in every combination of families, packets reach real
// sockets of the virtual addresses, and their answers go to the client.
func TestLab(t *testing.T) {
	w := newWire(t)
	for _, f := range families {
		w.echo(f)
	}
	for _, mode := range []decap.Mode{decap.Native, decap.Generic} {
		eth0 := w.interfaces("eth0")[0]
		eth0.Mode = mode
		running, err := w.start(labConfig(), eth0)
		w.ok(err)
		if running[0].Mode != mode {
			t.Fatalf("attached in %s mode", running[0].Mode)
		}
		port := uint16(40000)
		for _, out := range families {
			for _, in := range families {
				for i, by := range tunnels {
					port++
					text := fmt.Sprintf("%s in %s by %v (%d), %s", in.name, out.name, by, i, mode)
					w.ask(out, in, by, text)
					if got := w.connect(out, in, by, port, text); got != text {
						t.Errorf("%s: %q arrived", text, got)
					}
				}
			}
		}
		if _, err := decap.Stop(w.pins); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStart_without_a_gap: while the configuration is changed again and again, no
// packet is lost.
func TestStart_without_a_gap(t *testing.T) {
	w := newWire(t)
	w.echo(v4)
	eth0 := w.interfaces("eth0")[0]
	_, err := w.start(labConfig(), eth0)
	w.ok(err)
	const changes = 20
	result := make(chan error)
	go func() {
		for i := range changes {
			c := labConfig()
			c.Ports = []uint16{uint16(1000 + i)}
			if _, err := w.start(c, eth0); err != nil {
				result <- err
				return
			}
		}
		result <- nil
	}()
	for i := 0; ; i++ {
		select {
		case err := <-result:
			w.ok(err)
			if taken := w.count("ipip"); taken != uint64(i) {
				t.Errorf("%d packets were counted, %d sent", taken, i)
			}
			return
		default:
			w.ask(v4, v4, tunnel{}, fmt.Sprintf("packet %d", i))
		}
	}
}

func (w *wire) count(name string) uint64 {
	w.t.Helper()
	for _, c := range w.read().Counts {
		if c.Name == name {
			return c.Packets
		}
	}
	w.t.Fatalf("no counter %s", name)
	return 0
}
