package health

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/directortest"
	"golang.org/x/net/icmp"
	"golang.org/x/sys/unix"
)

// quote is the beginning of an echo request as routers quote it (RFC 792, RFC 4443 §3.1).
func quote(to netip.Addr, id, sequence uint16) []byte {
	echo := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, id)
	echo = binary.BigEndian.AppendUint16(echo, sequence)
	if to.Is4() {
		header := make([]byte, 24) // with an option
		header[0] = 0x46
		copy(header[16:], to.AsSlice())
		return append(header, echo...)
	}
	header := make([]byte, 40)
	header[0] = 0x60
	copy(header[24:], to.AsSlice())
	return append(header, echo...)
}

// TestEchoTake gives messages to one who waits.
func TestEchoTake(t *testing.T) {
	for _, addr := range []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")} {
		family := familyOf(addr)
		other, router := addr.Next(), addr.Prev()
		const sequence = 7
		e := newEchoes()
		echo := func(kind icmp.Type, id, sequence int, data []byte) icmp.Message {
			return icmp.Message{Type: kind, Body: &icmp.Echo{ID: id, Seq: sequence, Data: data}}
		}
		unreachable := func(quoted []byte) icmp.Message {
			return icmp.Message{Type: family.unreachable, Code: 1, Body: &icmp.DstUnreach{Data: quoted}}
		}
		id, cookie := int(e.id), e.cookie[:]
		for _, test := range []struct {
			name    string
			ping    bool
			from    netip.Addr
			message icmp.Message
			want    string // "": it is passed over, "answer": there is one, else the error's text
		}{
			{"the answer", false, addr, echo(family.reply, id, sequence, cookie), "answer"},
			{"with an id of the kernel's", true, addr, echo(family.reply, id+1, sequence, cookie), "answer"},
			{"another's id", false, addr, echo(family.reply, id+1, sequence, cookie), ""},
			{"another's sequence", false, addr, echo(family.reply, id, sequence+1, cookie), ""},
			{"another's address", false, other, echo(family.reply, id, sequence, cookie), ""},
			{"another's data", false, addr, echo(family.reply, id, sequence, make([]byte, 16)), ""},
			{"our request", false, addr, echo(family.request, id, sequence, cookie), ""},
			{"unreachable", false, router, unreachable(quote(addr, e.id, sequence)), map[bool]string{true: "host unreachable (ICMP, from ", false: "administratively prohibited (ICMPv6, from "}[addr.Is4()] + router.String() + ")"},
			{"time exceeded", false, router, icmp.Message{Type: family.exhausted, Body: &icmp.TimeExceeded{Data: quote(addr, e.id, sequence)}}, "time exceeded on the way (ICMP, from " + router.String() + ")"},
			{"another unreachable", false, router, unreachable(quote(other, e.id, sequence)), ""},
			{"another's request unreachable", false, router, unreachable(quote(addr, e.id+1, sequence)), ""},
		} {
			waiting := make(chan error, 1)
			e.waiting[echoKey{addr, sequence}] = waiting
			packet, err := test.message.Marshal(nil)
			if err != nil {
				t.Fatal(err)
			}
			socket := &echoSocket{family: family, ping: test.ping}
			for cut := range 24 { // No message is whole with less.
				e.take(socket, test.from, packet[:cut])
			}
			e.take(socket, test.from, packet)
			e.take(socket, test.from, packet) // A second one does no harm.
			got := ""
			select {
			case err := <-waiting:
				if got = "answer"; err != nil {
					got = err.Error()
				}
			default:
			}
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("%s, %s: got %q, want %q", addr, test.name, got, test.want)
			}
		}
	}
}

// TestEchoSockets opens sockets with and without the right to raw ones, and in a
// namespace where the group may ping.
func TestEchoSockets(t *testing.T) {
	directortest.Privileged(t)
	failed := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends with what was changed in it.
		runtime.LockOSThread()
		failed <- pingAlone()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

func pingAlone() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := errors.Join(loopbackUp(), withoutRaw()); err != nil {
		return err
	}
	ask := func(addr string) error {
		e := newEchoes()
		defer e.close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return e.ask(ctx, netip.MustParseAddr(addr))
	}
	const want = "open a raw ICMP socket (needs CAP_NET_RAW): operation not permitted\nopen a ping socket (needs net.ipv4.ping_group_range): permission denied"
	if err := ask("127.0.0.1"); err == nil || err.Error() != want {
		return errors.New("without any right: " + text(err))
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return err
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		if err := ask(addr); err != nil {
			return errors.New(addr + " by a ping socket: " + text(err))
		}
	}
	if err := ask("192.0.2.1"); err == nil || !strings.Contains(err.Error(), "send an echo request to 192.0.2.1: network is unreachable") {
		return errors.New("without a route: " + text(err))
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// loopbackUp sets the thread's loopback interface up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// withoutRaw takes CAP_NET_RAW from the thread.
func withoutRaw() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	data[0].Permitted &^= 1 << unix.CAP_NET_RAW
	return unix.Capset(&header, &data[0])
}

// FuzzEcho gives any bytes to the reader of raw sockets.
func FuzzEcho(f *testing.F) {
	f.Add(false, []byte{0, 0, 0, 0})
	f.Add(false, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, quote(netip.MustParseAddr("192.0.2.7"), 1, 2)...))
	f.Add(true, append([]byte{1, 1, 0, 0, 0, 0, 0, 0}, quote(netip.MustParseAddr("2001:db8::7"), 1, 2)...))
	f.Add(false, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, 0x4f, 0, 0))
	f.Fuzz(func(t *testing.T, six bool, packet []byte) {
		addr := netip.MustParseAddr("192.0.2.7")
		if six {
			addr = netip.MustParseAddr("2001:db8::7")
		}
		e := newEchoes()
		waiting := make(chan error, 1)
		e.waiting[echoKey{addr, 2}] = waiting
		e.take(&echoSocket{family: familyOf(addr)}, addr, packet)
		select {
		case err := <-waiting:
			if err == nil {
				t.Error("an answer without our cookie is taken") // Which no one can guess.
			}
		default:
		}
	})
}
