package labtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

// Clients of a service without a server learn at once that nobody is there.
func TestNoServer(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes {
		t.Run(string(shape), func(t *testing.T) {
			lab := startLab(t, shape)
			d := startDaemon(t, lab)
			for _, vip := range []netip.Addr{vip4, vip6} {
				to := netip.AddrPortFrom(vip, 80)
				d.do(t, fmt.Sprintf("service add tcp://%s\nservice add udp://%s", to, to))
				if _, err := open(t, lab.Client, netip.AddrPort{}, to); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("tcp %s: %v, want connection refused", to, err)
				}
				if _, err := lab.Client.QueryUDP(t.Context(), netip.AddrPort{}, to, 1, limit); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("udp %s: %v, want connection refused", to, err)
				}
			}
			// The client's kernel may drop the error for a SYN that it is still
			// sending (TcpExtLockDroppedIcmps): a veth answers that fast. Its
			// next SYN is refused then.
			client, err := lab.Client.Counters()
			if err != nil {
				t.Fatal(err)
			}
			got, told := d.events(t)["no-server"], client["IcmpInDestUnreachs"]+client["Icmp6InDestUnreachs"]
			if got != told || got < 4 {
				t.Errorf("%d packets counted as no-server and %d errors at the client, want as many and at least 4", got, told)
			}
			d.noFaults(t)
		})
	}
}

// A segment in the middle of a connection that nobody knows is dropped, or reset
// where that is set; a stack that would reset it never sees it.
func TestMidstream(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Shape: directortest.OneArmed, Servers: 1})
	d := startDaemon(t, lab)
	path := filepath.Join(t.TempDir(), "shunt.yaml")
	if err := os.WriteFile(path, []byte("director: {midstream: reset}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.do(t, "service add tcp://192.0.2.10:80 --name four\nservice add tcp://[2001:db8::10]:80 --name six")
	from := []netip.Addr{lab.ClientAddrs4[0], lab.ClientAddrs6[0]}
	to := []netip.Addr{vip4, vip6}
	for i := range to {
		sendACK(t, lab.Client, from[i], to[i])
		await(t, "the segment counted", func() bool { return d.events(t)["midstream"] == uint64(i+1) })
	}
	d.stop(t)
	d.args = append(d.args, "--config", path)
	d.start(t)
	for i := range to {
		reset := sendACK(t, lab.Client, from[i], to[i])
		if flags := reset(); flags&0x04 == 0 {
			t.Errorf("%s: answer with flags %#x, want a reset", to[i], flags)
		}
	}
	if events := d.events(t); events["reset"] != 2 || events["midstream"] != 2 {
		t.Errorf("counted %d resets and %d drops, want 2 and 2", events["reset"], events["midstream"])
	}
}

// sendACK sends a lone acknowledgement to port 80 from port 999, and returns
// what reads the flags of the answer.
func sendACK(t *testing.T, ns *directortest.Namespace, from, to netip.Addr) func() byte {
	t.Helper()
	var fd int
	family, destination := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.AsSlice()[:4])})
	if to.Is6() {
		family, destination = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment[0:], 999)
	binary.BigEndian.PutUint16(segment[2:], 80)
	binary.BigEndian.PutUint32(segment[4:], 1000) // sequence
	binary.BigEndian.PutUint32(segment[8:], 2000) // acknowledgement
	segment[12], segment[13] = 5<<4, 0x10
	binary.BigEndian.PutUint16(segment[14:], 1024)
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	if err := unix.Sendto(fd, segment, 0, destination); err != nil {
		t.Fatal(err)
	}
	return func() byte {
		wait := unix.NsecToTimeval(limit.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 1500)
		n, err := unix.Read(fd, packet)
		if err != nil {
			t.Fatalf("no answer from %s: %v", to, err)
		}
		if to.Is4() {
			return packet[:n][int(packet[0]&0xf)*4+13]
		}
		return packet[:n][13]
	}
}

func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// A packet whose time to live ends at the director is answered as by a router.
func TestTimeToLive(t *testing.T) {
	t.Parallel()
	lab := directortest.Start(t, directortest.Topology{Servers: 1})
	if _, err := lab.ServeUDP(53); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, lab)
	for i, vip := range []netip.Addr{vip4, vip6} {
		to := netip.AddrPortFrom(vip, 53)
		d.do(t, fmt.Sprintf("service add udp://%s\nserver add udp://%s %s --method nat", to, to, netip.AddrPortFrom(lab.Servers[0].Addr(vip), 53)))
		// ICMP and ICMPv6 time exceeded in transit (RFC 792, RFC 4443).
		want := [2][2]byte{{11, 0}, {3, 0}}[i]
		if got := errorOf(t, lab.Client, to, 1); got != want {
			t.Errorf("%s: ICMP type and code %v, want %v", to, got, want)
		}
		if got := d.events(t)["ttl-exceeded"]; got != uint64(i+1) {
			t.Errorf("%s: %d packets counted as ttl-exceeded, want %d", to, got, i+1)
		}
	}
	// One more hop and it arrives.
	if _, err := lab.Client.QueryUDP(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(vip4, 53), 1, limit); err != nil {
		t.Error(err)
	}
	d.noFaults(t)
}

// errorOf sends a datagram with a time to live and returns type and code of the
// ICMP error that comes back.
func errorOf(t *testing.T, ns *directortest.Namespace, to netip.AddrPort, ttl int) (got [2]byte) {
	t.Helper()
	family, level, recverr, hops := unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVERR, unix.IP_TTL
	destination := unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte(to.Addr().AsSlice()[:4])})
	if to.Addr().Is6() {
		family, level, recverr, hops = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.IPV6_UNICAST_HOPS
		destination = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	err := ns.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.SetsockoptInt(fd, level, recverr, 1), unix.SetsockoptInt(fd, level, hops, ttl),
			unix.Sendto(fd, []byte("hello"), 0, destination)); err != nil {
			return err
		}
		// An error on the socket is POLLERR, which is always asked for.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, int(limit/time.Millisecond)); n != 1 || err != nil {
			return fmt.Errorf("no error came back: %d, %w", n, err)
		}
		control := make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 512), control, unix.MSG_ERRQUEUE)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			if int(m.Header.Level) == level && int(m.Header.Type) == recverr && len(m.Data) >= 8 {
				got = [2]byte{m.Data[5], m.Data[6]} // struct sock_extended_err (kernel: include/uapi/linux/errqueue.h)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
