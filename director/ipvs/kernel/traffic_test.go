package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// dropNetAdmin takes the right away from the calling thread.
func dropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&header, &data[0])
}

// send sends a datagram from within the namespace, with a firewall mark or 0, and
// returns its client.
func (f *fixture) send(to string, mark int, payload string) (client netip.AddrPort) {
	f.t.Helper()
	f.must(f.namespace.Do(func() error {
		dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark)
			}), err)
		}}
		conn, err := dialer.Dial("udp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		client = conn.LocalAddr().(*net.UDPAddr).AddrPort()
		_, err = conn.Write([]byte(payload))
		return err
	}))
	return client
}

// listen takes the datagrams to a server that is this namespace itself, so that
// nobody answers that the port is closed.
func (f *fixture) listen(address string) {
	f.t.Helper()
	f.must(f.namespace.Do(func() error {
		s, err := net.ListenPacket("udp", address)
		if err == nil {
			f.t.Cleanup(func() { s.Close() })
		}
		return err
	}))
}

// sendINIT sends the first chunk of an SCTP association.
func (f *fixture) sendINIT(to netip.AddrPort, port uint16) {
	f.t.Helper()
	f.must(f.namespace.Do(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		packet := bytes.Join([][]byte{
			{byte(port >> 8), byte(port), byte(to.Port() >> 8), byte(to.Port())}, make([]byte, 8), // tag, checksum: nobody looks
			{1, 0, 0, 20}, make([]byte, 16), // INIT (RFC 9260 §3.3.2)
		}, nil)
		return unix.Sendto(s, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	}))
}

// connections returns all, sorted, without the rest of their time.
func (f *fixture) connections() []string {
	f.t.Helper()
	var all []string
	for c, err := range f.Connections(f.ctx) {
		f.must(err)
		kind := "connection"
		if c.Template {
			kind = "template"
		}
		if c.Mark != 0 {
			kind = fmt.Sprintf("template of mark %d", c.Mark)
		}
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s > %s > %s %s %s %s", c.Protocol, kind, c.Client, c.Virtual, c.Server, c.State, c.Engine, c.EngineData)))
	}
	slices.Sort(all)
	return all
}

func TestGuestConnectionsAreWhatIpvsadmLists(t *testing.T) {
	forEach(t, func(f *fixture) {
		persistent := func(id kernel.ServiceID, prefix uint8) kernel.Service {
			return with(plain(id, "rr"), func(s *kernel.Service) {
				s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, 300*time.Second, prefix
			})
		}
		sip := address(kernel.UDP, "192.0.2.1:5060")
		mark4, mark6 := kernel.MarkID(9, kernel.IPv4), kernel.MarkID(1<<31+5, kernel.IPv6)
		dns6, sctp := address(kernel.UDP, "[2001:db8::1]:53"), address(kernel.SCTP, "192.0.2.1:2905")
		for _, c := range []struct {
			kernel.Service
			server string
		}{
			{plain(dns, "rr"), "192.0.2.53:5353"},
			{plain(dns6, "rr"), "[2001:db8::53]:5353"},
			{with(persistent(sip, 32), func(s *kernel.Service) { s.Engine = "sip" }), "192.0.2.60:5060"},
			{persistent(mark4, 24), "192.0.2.9:0"},
			{persistent(mark6, 64), "[2001:db8::9]:0"},
			{plain(sctp, "rr"), "192.0.2.29:2905"},
		} {
			f.must(f.NewService(f.ctx, c.Service))
			f.must(f.NewServer(f.ctx, c.ServiceID, kernel.Server{Address: at(c.server), Weight: 1}))
		}
		f.equal("before", []string{}, f.connections())
		a := f.send("192.0.2.1:53", 0, "?")
		b := f.send("[2001:db8::1]:53", 0, "?")
		c := f.send("192.0.2.1:5060", 0, "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nCall-ID: 12345@host\r\nContent-Length: 0\r\n\r\n")
		d := f.send("192.0.2.200:99", 9, "?")
		e := f.send("[2001:db8::aaaa]:99", 1<<31+5, "?")
		f.sendINIT(sctp.Address, 1234)
		want := []string{
			"ip template of mark 2147483653 [::]:0 > [::]:0 > [2001:db8::9]:0 NONE",
			"ip template of mark 9 192.0.2.0:0 > 0.0.0.0:0 > 192.0.2.9:0 NONE",
			"sctp connection 192.0.2.1:1234 > 192.0.2.1:2905 > 192.0.2.29:2905 INIT1",
			fmt.Sprintf("udp connection %s > 192.0.2.1:5060 > 192.0.2.60:5060 UDP", c),
			fmt.Sprintf("udp connection %s > 192.0.2.1:53 > 192.0.2.53:5353 UDP", a),
			fmt.Sprintf("udp connection %s > 192.0.2.200:99 > 192.0.2.9:99 UDP", d),
			fmt.Sprintf("udp connection %s > [2001:db8::1]:53 > [2001:db8::53]:5353 UDP", b),
			fmt.Sprintf("udp connection %s > [2001:db8::aaaa]:99 > [2001:db8::9]:99 UDP", e),
			"udp template " + c.Addr().String() + ":0 > 192.0.2.1:5060 > 192.0.2.60:5060 NONE sip 12345@host",
		}
		slices.Sort(want)
		f.equal("connections", want, f.connections())

		// The judge counts the same, and the counts of the servers agree.
		lines := strings.Split(strings.TrimSpace(f.run("ipvsadm", "-Lnc")), "\n")
		f.equal("lines of ipvsadm -Lnc", 9+2, len(lines))
		for _, id := range []kernel.ServiceID{dns, dns6, sip, mark4, mark6, sctp} {
			s := f.service(id).Servers[0]
			persistent := uint32(0)
			if id == sip || id == mark4 || id == mark6 {
				persistent = 1
			}
			f.equal("counts of "+id.String(), []uint32{0, 1, persistent}, []uint32{s.Active, s.Inactive, s.Persistent})
		}
	})
}

// TestGuestCounters: what the kernel counted is what ipvsadm shows, and Zero resets one
// service or all.
func TestGuestCounters(t *testing.T) {
	forEach(t, func(f *fixture) {
		f.listen("192.0.2.53:5353")
		other := address(kernel.UDP, "192.0.2.1:54")
		for _, id := range []kernel.ServiceID{dns, other} {
			f.must(f.NewService(f.ctx, plain(id, "rr")))
			f.must(f.NewServer(f.ctx, id, kernel.Server{Address: at("192.0.2.53:5353"), Weight: 1}))
			for range 3 {
				f.send(id.Address.String(), 0, strings.Repeat("x", 972)) // 1000 octets with the headers
			}
		}
		// Where counters are brought up to date every two seconds, they come with delay.
		for range 100 {
			if f.service(other).Servers[0].Stats.Counters.InPackets == 3 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		want := kernel.Counters{Connections: 3, InPackets: 3, InBytes: 3000}
		for _, s := range f.services() {
			f.equal("counters of "+s.ServiceID.String(), want, s.Stats.Counters)
			f.equal("counters of its server", want, s.Servers[0].Stats.Counters)
		}
		line := "3 3 0 3000 0"
		f.equal("ipvsadm --stats", []string{
			"UDP 192.0.2.1:53 " + line, "-> 192.0.2.53:5353 " + line,
			"UDP 192.0.2.1:54 " + line, "-> 192.0.2.53:5353 " + line,
		}, f.judge("--stats", "--exact"))

		f.must(f.Zero(f.ctx, dns))
		f.equal("ipvsadm --stats", []string{
			"UDP 192.0.2.1:53 0 0 0 0 0", "-> 192.0.2.53:5353 0 0 0 0 0",
			"UDP 192.0.2.1:54 " + line, "-> 192.0.2.53:5353 " + line,
		}, f.judge("--stats", "--exact"))
		s := f.service(dns)
		f.equal("counters", kernel.Stats{}, s.Stats)
		f.equal("of the server", kernel.Stats{}, s.Servers[0].Stats)
		f.must(f.Zero(f.ctx, kernel.ServiceID{}))
		f.equal("counters of the other service", kernel.Stats{}, f.service(other).Stats)
	})
}

// TestGuestRates: per second, as ipvsadm --rate shows them.
func TestGuestRates(t *testing.T) {
	forEach(t, func(f *fixture) {
		f.listen("192.0.2.53:5353")
		f.must(f.NewService(f.ctx, plain(dns, "rr")))
		f.must(f.NewServer(f.ctx, dns, kernel.Server{Address: at("192.0.2.53:5353"), Weight: 1}))
		var got kernel.Counters
		for range 200 { // until two listings with ipvsadm's between them agree: none fell into a new estimate
			f.send("192.0.2.1:53", 0, strings.Repeat("x", 972))
			got = f.service(dns).Stats.Rates
			line := f.judge("--rate", "--exact")[0]
			if got.InBytes > 0 && got == f.service(dns).Stats.Rates {
				f.equal("ipvsadm --rate", fmt.Sprintf("UDP 192.0.2.1:53 %d %d %d %d %d", got.Connections, got.InPackets, got.OutPackets, got.InBytes, got.OutBytes), line)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		f.t.Errorf("no rate in all the time: %+v", got)
	})
}

// TestGuestManyServers: a list of many parts is whole, and in the kernel's order.
func TestGuestManyServers(t *testing.T) {
	const n = 2000
	forEach(t, func(f *fixture) {
		f.must(f.NewService(f.ctx, plain(web, "rr")))
		want := make([]kernel.ServerEntry, n)
		for i := range n {
			s := kernel.Server{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80), Weight: uint32(i)}
			f.must(f.NewServer(f.ctx, web, s))
			want[n-1-i] = kernel.ServerEntry{Server: s}
		}
		whole := []kernel.ServiceEntry{{Service: plain(web, "rr"), Servers: want}}
		f.equal("listed", whole, f.services())
		// A list that was given up leaves nothing behind for the next.
		for i := range 20 {
			ctx, cancel := context.WithTimeout(f.ctx, time.Duration(i)*500*time.Microsecond)
			if _, err := f.Services(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with little time: %v", err)
			}
			cancel()
		}
		f.equal("listed", whole, f.services())
		f.equal("lines of ipvsadm", n+1, len(f.judge()))
	})
}

// TestGuestConcurrentUse: callers do not get each other's answers, and lists read while
// services come and go have only what somebody made, once.
func TestGuestConcurrentUse(t *testing.T) {
	const workers, rounds = 8, 20
	forEach(t, func(f *fixture) {
		f.must(f.NewService(f.ctx, plain(dns, "rr")))
		var group sync.WaitGroup
		failures := make(chan error, 2*workers) // room for one each: senders end after it
		for w := range workers {
			id := address(kernel.TCP, fmt.Sprintf("192.0.2.1:%d", 1000+w))
			server := kernel.Server{Address: at(fmt.Sprintf("10.0.0.%d:80", w)), Weight: uint32(w)}
			group.Go(func() {
				for range rounds {
					err := errors.Join(
						f.NewService(f.ctx, plain(id, "rr")),
						f.NewServer(f.ctx, id, server),
					)
					got, getErr := f.Service(f.ctx, id)
					if err = errors.Join(err, getErr); err == nil && (len(got.Servers) != 1 || got.Servers[0].Server != server) {
						err = fmt.Errorf("%s has %+v", id, got.Servers)
					}
					if err = errors.Join(err, f.DeleteServer(f.ctx, id, server.Address), f.DeleteService(f.ctx, id)); err != nil {
						failures <- err
						return
					}
				}
			})
			group.Go(func() {
				for range rounds {
					all, err := f.Services(f.ctx)
					seen := map[kernel.ServiceID]bool{}
					for _, s := range all {
						if seen[s.ServiceID] || len(s.Servers) > 1 {
							err = fmt.Errorf("listed twice: %+v", s)
						}
						seen[s.ServiceID] = true
					}
					if err == nil && !seen[dns] {
						err = fmt.Errorf("%s is not among %d services", dns, len(all))
					}
					if err != nil {
						failures <- err
						return
					}
				}
			})
		}
		group.Wait()
		close(failures)
		for err := range failures {
			t.Error(err)
		}
		f.equal("what is left", []string{"UDP 192.0.2.1:53 rr"}, f.judge())
	})
}
