package labtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

const large8K = 8192 // octets of a datagram: six fragments on links of 1500

// TestFragments has datagrams of 8 KiB go to servers and come back from them, by every
// method: in fragments, both ways.
func TestFragments(t *testing.T) {
	t.Parallel()
	r := startRouted(t, routing{clients: 1 + 2*8*len(ways)})
	for _, o := range r.targets {
		at := o.at
		if o.method == dr || o.isTunnel() {
			at = o.vip
		}
		responder, err := o.server.StartResponder(at)
		if err != nil {
			t.Fatal(err)
		}
		defer responder.Close()
	}
	for i, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			conn := r.dialUDP(t, o, 0, uint16(30_000+i))
			events := r.between(t, func() {
				for id := range 4 {
					r.ask(t, conn, o, uint16(id), large8K)
				}
				r.ask(t, conn, o, 4, 100) // in one packet, of the same connection
			})
			if events["fragments"] < 4*5 {
				t.Errorf("too few later fragments: %v", nonzero(events))
			}
			if total, _ := r.d.counters(t, "udp-"+o.name); total.Connections != 1 || total.In.Bytes < 4*large8K {
				t.Errorf("the director counted %+v for one connection", total)
			}
		})
	}
	t.Run("last_first", func(t *testing.T) { r.lastFirst(t) })
	noChecksumErrors(t, r.lab)
	// The first fragment's sender is told that a tunnel takes less; the others are just dropped.
	r.d.noFaults(t, "fragment-unknown", "too-big")
}

// dialUDP connects the i-th client from a port.
func (r *routed) dialUDP(t *testing.T, o target, i int, port uint16) net.Conn {
	t.Helper()
	conn, err := r.lab.Client.Dial(t.Context(), "udp", netip.AddrPortFrom(r.client(o, i), port), o.vip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// question is what a responder answers, of that many octets; answered is that.
func question(id uint16, size int) []byte {
	q := binary.BigEndian.AppendUint16(nil, id)
	q = append(q, make([]byte, 10)...)
	body := make([]byte, size-len(q))
	_, _ = io.ReadFull(directortest.Pattern(), body) // endless
	return append(q, body...)
}

func answered(question []byte, name string) []byte {
	a := append(slices.Clone(question), name...)
	a[2] |= 0x80 // QR (RFC 1035 §4.1.1)
	return a
}

// ask sends a query until the server's answer comes, whole: the first one may be what
// tells the client of a tunnel's MTU.
func (r *routed) ask(t *testing.T, conn net.Conn, o target, id uint16, size int) {
	t.Helper()
	q := question(id, size)
	for deadline := time.Now().Add(limit); ; {
		if _, err := conn.Write(q); err != nil && !errors.Is(err, unix.EMSGSIZE) {
			t.Fatal(err)
		}
		if got, err := receive(conn, 500*time.Millisecond); err == nil {
			if !bytes.Equal(got, answered(q, o.server.Name)) {
				t.Fatalf("%d octets came, not the answer of %s to %d", len(got), o.server.Name, len(q))
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d octets were not answered\n%s", size, r.d.shunt(t, "drops"))
		}
	}
}

// receive reads a datagram that comes in time.
func receive(conn net.Conn, patience time.Duration) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	return buffer[:n], err
}

// lastFirst sends fragments in the wrong order. Between two addresses that had one
// connection only, they are its; else those before the first are dropped, and counted.
func (r *routed) lastFirst(t *testing.T) {
	for i, o := range r.targets {
		t.Run(o.name, func(t *testing.T) {
			const port = 31_000
			of := [2]int{1 + 2*i, 2 + 2*i} // clients without a history
			known, unknown := r.dialUDP(t, o, of[0], port), r.dialUDP(t, o, of[1], port)
			r.ask(t, known, o, 1, large8K)
			// What fits a tunnel too.
			q := question(2, 4000)
			r.sendReversed(t, o, r.client(o, of[0]), port, q)
			if got, err := receive(known, limit); err != nil || !bytes.Equal(got, answered(q, o.server.Name)) {
				t.Errorf("of a known connection: %d octets, %v, want the answer to %d\n%s", len(got), err, len(q), r.d.shunt(t, "drops"))
			}
			before := r.d.events(t)["fragment-unknown"]
			r.sendReversed(t, o, r.client(o, of[1]), port, q)
			await(t, "those before the first are counted", func() bool { return r.d.events(t)["fragment-unknown"] >= before+2 })
			if _, err := receive(unknown, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("half a datagram was answered: %v", err)
			}
		})
	}
}

// sendReversed sends a datagram from the client in fragments of 1208 octets, the last one
// first.
func (r *routed) sendReversed(t *testing.T, o target, from netip.Addr, port uint16, payload []byte) {
	t.Helper()
	const piece, id = 1208, 1000 // the piece is a multiple of 8
	datagram := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(datagram[0:], port)
	binary.BigEndian.PutUint16(datagram[2:], o.vip.Port())
	binary.BigEndian.PutUint16(datagram[4:], uint16(8+len(payload)))
	datagram = append(datagram, payload...)
	pseudo := append(append(from.AsSlice(), o.vip.Addr().AsSlice()...), 0, unix.IPPROTO_UDP, datagram[4], datagram[5])
	binary.BigEndian.PutUint16(datagram[6:], checksum(append(pseudo, datagram...)))

	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(o.vip.Addr().AsSlice()[:4])})
	header := func(offset, length int, more bool) []byte {
		return fragment4(from, o.vip.Addr(), id, offset, length, more)
	}
	if from.Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: o.vip.Addr().As16()}
		header = func(offset, length int, more bool) []byte {
			return fragment6(from, o.vip.Addr(), id, offset, length, more)
		}
	}
	err := r.lab.Client.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // with our header
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for offset := (len(datagram) - 1) / piece * piece; offset >= 0; offset -= piece {
			part := datagram[offset:min(offset+piece, len(datagram))]
			packet := append(header(offset, len(part), offset+len(part) < len(datagram)), part...)
			if err := unix.Sendto(fd, packet, 0, to); err != nil {
				return fmt.Errorf("send the fragment at %d: %w", offset, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fragment4 is the IPv4 header of a fragment (RFC 791 §3.1); the kernel adds its checksum.
func fragment4(from, to netip.Addr, id uint32, offset, length int, more bool) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+length))
	binary.BigEndian.PutUint16(h[4:], uint16(id))
	flags := uint16(offset / 8)
	if more {
		flags |= 1 << 13
	}
	binary.BigEndian.PutUint16(h[6:], flags)
	return append(append(h, from.AsSlice()...), to.AsSlice()...)
}

// fragment6 is the IPv6 header of a fragment and the extension that says so (RFC 8200 §4.5).
func fragment6(from, to netip.Addr, id uint32, offset, length int, more bool) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_FRAGMENT, 64}
	binary.BigEndian.PutUint16(h[4:], uint16(8+length))
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	flags := uint16(offset)
	if more {
		flags |= 1
	}
	h = append(h, unix.IPPROTO_UDP, 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(h, flags), id)
}
