package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/shunt-lb/shunt/director/directortest"
	"github.com/shunt-lb/shunt/director/directortest/ipvs"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// The contract: what every driver must do, with ipvsadm as the judge. It runs in
// the guest:
//
//	CGO_ENABLED=0 SHUNT_GUEST=uml go test -exec "$PWD/scripts/guest/uml.sh" ./director/ipvs/kernel

// drivers are those of this architecture.
func drivers() []string {
	if runtime.GOARCH == "amd64" {
		return []string{kernel.DriverGenetlink, kernel.DriverLibipvs}
	}
	return []string{kernel.DriverGenetlink}
}

// forEach runs a part of the contract on every driver, each in a namespace of its
// own. A driver that was given up on the way has failed.
func forEach(t *testing.T, test func(*fixture)) {
	ipvs.Guest(t)
	for _, name := range drivers() {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, name)
			test(f)
			if f.Name() != name {
				t.Errorf("the driver is %s at the end", f.Name())
			}
		})
	}
}

// fixture is a driver in a namespace where sync0 is an interface, and 192.0.2.0/24
// and 2001:db8::/64 are local.
type fixture struct {
	kernel.Driver
	t         *testing.T
	ctx       context.Context
	namespace *directortest.Namespace
}

func newFixture(t *testing.T, driver string) *fixture {
	t.Helper()
	n, err := directortest.NewNamespace(strings.ReplaceAll(t.Name(), "/", "-"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	f := &fixture{t: t, ctx: t.Context(), namespace: n}
	f.run("ip", "link", "add", "sync0", "type", "dummy")
	f.run("ip", "link", "set", "sync0", "up")
	f.run("ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo")
	f.run("ip", "-6", "route", "add", "local", "2001:db8::/64", "dev", "lo")
	err = n.Do(func() error {
		f.Driver, err = kernel.Open(t.Context(), kernel.Options{Driver: driver, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) run(name string, args ...string) string {
	f.t.Helper()
	out, err := f.namespace.Command(f.ctx, name, args...).Output()
	if err != nil {
		f.t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// judge returns ipvsadm's lines below the titles, their columns apart by one
// space.
func (f *fixture) judge(args ...string) []string {
	f.t.Helper()
	lines := strings.Split(strings.TrimSuffix(f.run("/usr/sbin/ipvsadm", append([]string{"-Ln"}, args...)...), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return lines[3:]
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) service(id kernel.ServiceID) kernel.ServiceEntry {
	f.t.Helper()
	s, err := f.Service(f.ctx, id)
	f.must(err)
	return s
}

func (f *fixture) services() []kernel.ServiceEntry {
	f.t.Helper()
	s, err := f.Services(f.ctx)
	f.must(err)
	return s
}

var compareAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

func (f *fixture) equal(what string, want, got any) {
	f.t.Helper()
	if diff := cmp.Diff(want, got, compareAddresses, cmpopts.EquateEmpty()); diff != "" {
		f.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func address(protocol kernel.Protocol, s string) kernel.ServiceID {
	return kernel.ServiceID{Protocol: protocol, Address: netip.MustParseAddrPort(s)}
}

// plain is a service whose netmask is whole.
func plain(id kernel.ServiceID, scheduler string) kernel.Service {
	s := kernel.Service{ServiceID: id, Scheduler: scheduler, Prefix: 32}
	if id.Family() == kernel.IPv6 {
		s.Prefix = 128
	}
	return s
}

func with(s kernel.Service, change func(*kernel.Service)) kernel.Service {
	change(&s)
	return s
}

var (
	web  = address(kernel.TCP, "192.0.2.1:80")
	web6 = address(kernel.TCP, "[2001:db8::1]:80")
	dns  = address(kernel.UDP, "192.0.2.1:53")
)

func TestGuestServicesAreWhatIpvsadmLists(t *testing.T) {
	type c struct {
		service kernel.Service
		want    string
	}
	cases := []c{
		{plain(web6, "wlc"), "TCP [2001:db8::1]:80 wlc"},
		{plain(dns, "rr"), "UDP 192.0.2.1:53 rr"},
		{plain(address(kernel.UDP, "[2001:db8::1]:53"), "rr"), "UDP [2001:db8::1]:53 rr"},
		{plain(address(kernel.SCTP, "192.0.2.1:2905"), "rr"), "SCTP 192.0.2.1:2905 rr"},
		{plain(address(kernel.SCTP, "[2001:db8::1]:2905"), "rr"), "SCTP [2001:db8::1]:2905 rr"},
		{plain(kernel.MarkID(7, kernel.IPv4), "rr"), "FWM 7 rr"},
		{plain(kernel.MarkID(7, kernel.IPv6), "rr"), "FWM 7 IPv6 rr"},
		{plain(kernel.MarkID(4294967295, kernel.IPv4), "rr"), "FWM -1 rr"}, // ipvsadm's
		{with(plain(web, "sh"), func(s *kernel.Service) { s.Flags = kernel.FlagScheduler1 | kernel.FlagScheduler2 }), "TCP 192.0.2.1:80 sh (sh-fallback,sh-port)"},
		{with(plain(web, "mh"), func(s *kernel.Service) { s.Flags = kernel.FlagScheduler2 }), "TCP 192.0.2.1:80 mh (mh-port)"},
		{with(plain(web, "rr"), func(s *kernel.Service) {
			s.Flags = kernel.FlagScheduler1 | kernel.FlagScheduler2 | kernel.FlagScheduler3
		}), "TCP 192.0.2.1:80 rr (flag-1,flag-2,flag-3)"},
		{with(plain(dns, "rr"), func(s *kernel.Service) { s.Flags = kernel.FlagOnePacket }), "UDP 192.0.2.1:53 rr ops"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout = kernel.FlagPersistent, 300*time.Second
		}), "TCP 192.0.2.1:80 wlc persistent 300"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, 31*24*time.Hour, 20
		}), "TCP 192.0.2.1:80 wlc persistent 2678400 mask 255.255.240.0"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, time.Second, 0
		}), "TCP 192.0.2.1:80 wlc persistent 1 mask 0.0.0.0"},
		{with(plain(web, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix, s.OddMask = kernel.FlagPersistent, time.Second, 8, netip.MustParseAddr("255.0.255.0")
		}), "TCP 192.0.2.1:80 wlc persistent 1 mask 255.0.255.0"},
		{with(plain(web6, "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, time.Second, 64
		}), "TCP [2001:db8::1]:80 wlc persistent 1 mask 64"},
		{with(plain(kernel.MarkID(9, kernel.IPv6), "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix = kernel.FlagPersistent, time.Second, 1
		}), "FWM 9 IPv6 wlc persistent 1 mask 1"},
		{with(plain(address(kernel.TCP, "192.0.2.1:0"), "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout = kernel.FlagPersistent, 5*time.Second
		}), "TCP 192.0.2.1:0 wlc persistent 5"},
		{with(plain(address(kernel.UDP, "[2001:db8::1]:0"), "wlc"), func(s *kernel.Service) {
			s.Flags, s.Timeout = kernel.FlagPersistent, 5*time.Second
		}), "UDP [2001:db8::1]:0 wlc persistent 5"},
		{with(plain(address(kernel.UDP, "192.0.2.1:5060"), "rr"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Engine = kernel.FlagPersistent|kernel.FlagOnePacket, 60*time.Second, "sip"
		}), "UDP 192.0.2.1:5060 rr persistent 60 pe sip ops"},
	}
	for _, scheduler := range []string{"rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "dh", "mh", "lblc", "lblcr", "none"} {
		cases = append(cases, c{plain(web, scheduler), "TCP 192.0.2.1:80 " + scheduler})
	}
	forEach(t, func(f *fixture) {
		for _, c := range cases {
			f.must(f.NewService(f.ctx, c.service))
			f.equal("ipvsadm -Ln", []string{c.want}, f.judge())
			want := []kernel.ServiceEntry{{Service: c.service}}
			f.equal("listed", want, f.services())
			f.equal("got", want[0], f.service(c.service.ServiceID))
			f.must(f.DeleteService(f.ctx, c.service.ServiceID))
			f.equal("after DeleteService", []string{}, f.judge())
		}
		// All that may stand beside each other.
		for _, c := range cases[:8] {
			f.must(f.NewService(f.ctx, c.service))
		}
		if got := len(f.services()); got != 8 {
			t.Errorf("%d services are listed, want 8", got)
		}
		f.must(f.Flush(f.ctx))
		f.equal("after Flush", []string{}, f.judge())
		f.equal("after Flush", []kernel.ServiceEntry{}, f.services())
	})
}

// serverCases are servers of IPv4's web, unless six says otherwise.
var serverCases = []struct {
	six    bool
	server kernel.Server
	want   string // of --tun-info
}{
	{server: kernel.Server{Address: at("10.0.0.1:8080"), Weight: 1}, want: "-> 10.0.0.1:8080 Masq n/a 1 0 0"},
	{server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.DR, Weight: 0}, want: "-> 10.0.0.1:80 Route n/a 0 0 0"},
	{server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.DR, Weight: 2147483647}, want: "-> 10.0.0.1:80 Route n/a 2147483647 0 0"},
	{server: kernel.Server{Address: at("127.0.0.1:80"), Method: kernel.Local, Weight: 1}, want: "-> 127.0.0.1:80 Local n/a 1 0 0"},
	{server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1}, want: "-> 10.0.0.1:80 Tunnel ipip 1 0 0"},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 5555}},
		want:   "-> 10.0.0.1:80 Tunnel gue:5555:-c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 6080, Flags: kernel.Checksum}},
		want:   "-> 10.0.0.1:80 Tunnel gue:6080:+c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 6080, Flags: kernel.RemoteChecksum}},
		want:   "-> 10.0.0.1:80 Tunnel gue:6080:r+c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GRE}},
		want:   "-> 10.0.0.1:80 Tunnel gre:-c 1 0 0",
	},
	{
		server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 1, Tunnel: kernel.Tunnel{Type: kernel.GRE, Flags: kernel.Checksum}},
		want:   "-> 10.0.0.1:80 Tunnel gre:+c 1 0 0",
	},
	{server: kernel.Server{Address: at("[2001:db8:1::1]:80"), Method: kernel.Tunnelling, Weight: 1}, want: "-> [2001:db8:1::1]:80 Tunnel ipip 1 0 0"},
	{six: true, server: kernel.Server{Address: at("[2001:db8:1::1]:8080"), Weight: 9}, want: "-> [2001:db8:1::1]:8080 Masq n/a 9 0 0"},
	{six: true, server: kernel.Server{Address: at("[2001:db8:1::1]:80"), Method: kernel.DR, Weight: 9}, want: "-> [2001:db8:1::1]:80 Route n/a 9 0 0"},
	{six: true, server: kernel.Server{Address: at("10.0.0.1:80"), Method: kernel.Tunnelling, Weight: 9}, want: "-> 10.0.0.1:80 Tunnel ipip 9 0 0"},
	{
		six:    true,
		server: kernel.Server{Address: at("[2001:db8:1::1]:80"), Method: kernel.Tunnelling, Weight: 9, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 1}},
		want:   "-> [2001:db8:1::1]:80 Tunnel gue:1:-c 9 0 0",
	},
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestGuestServersAreWhatIpvsadmLists(t *testing.T) {
	forEach(t, func(f *fixture) {
		f.must(f.NewService(f.ctx, plain(web, "wlc")))
		f.must(f.NewService(f.ctx, plain(web6, "wlc")))
		for _, c := range serverCases {
			id, service, i := web, "TCP 192.0.2.1:80 wlc", 1
			if c.six {
				id, service, i = web6, "TCP [2001:db8::1]:80 wlc", 2
			}
			c.server.Upper, c.server.Lower = 100, 20
			f.must(f.NewServer(f.ctx, id, c.server))
			f.equal("ipvsadm -Ln --tun-info", []string{service, c.want}, f.judge("--tun-info")[i-1:i+1])
			f.equal("ipvsadm -Ln --thresholds", fmt.Sprintf("-> %s 100 20 0 0", c.server.Address), f.judge("--thresholds")[i])
			want := []kernel.ServerEntry{{Server: c.server}}
			f.equal("listed", want, f.service(id).Servers)

			// A change of the weight changes nothing else: libipvs alone would lose tunnels.
			c.server.Weight, c.server.Upper, c.server.Lower = 77, 0, 0
			f.must(f.SetServer(f.ctx, id, c.server))
			f.equal("after SetServer", []kernel.ServerEntry{{Server: c.server}}, f.service(id).Servers)
			f.equal("ipvsadm -Ln --thresholds", fmt.Sprintf("-> %s 0 0 0 0", c.server.Address), f.judge("--thresholds")[i])

			f.must(f.DeleteServer(f.ctx, id, c.server.Address))
			f.equal("after DeleteServer", []kernel.ServerEntry{}, f.service(id).Servers)
		}
	})
}

func TestGuestServersOfEveryKindOfService(t *testing.T) {
	forEach(t, func(f *fixture) {
		for _, s := range []kernel.Service{
			plain(kernel.MarkID(7, kernel.IPv4), "wlc"),
			with(plain(address(kernel.TCP, "192.0.2.1:0"), "wlc"), func(s *kernel.Service) { s.Flags, s.Timeout = kernel.FlagPersistent, time.Minute }),
			plain(address(kernel.SCTP, "192.0.2.1:2905"), "wlc"),
		} {
			f.must(f.NewService(f.ctx, s))
			first, second := kernel.Server{Address: at("10.0.0.1:0"), Weight: 1}, kernel.Server{Address: at("10.0.0.2:0"), Weight: 2}
			f.must(f.NewServer(f.ctx, s.ServiceID, first))
			f.must(f.NewServer(f.ctx, s.ServiceID, second))
			// The last one added comes first.
			f.equal("listed", []kernel.ServerEntry{{Server: second}, {Server: first}}, f.service(s.ServiceID).Servers)
			f.equal("ipvsadm", []string{"-> 10.0.0.1:0 Masq 1 0 0", "-> 10.0.0.2:0 Masq 2 0 0"}, f.judge()[1:])
			f.must(f.DeleteServer(f.ctx, s.ServiceID, first.Address))
			f.equal("after DeleteServer", []kernel.ServerEntry{{Server: second}}, f.service(s.ServiceID).Servers)
			f.must(f.DeleteService(f.ctx, s.ServiceID))
		}
	})
}

// TestGuestSetService: everything but the identity is replaced, servers stay, and what
// is written again stays as it was.
func TestGuestSetService(t *testing.T) {
	forEach(t, func(f *fixture) {
		sip := with(plain(address(kernel.UDP, "192.0.2.1:5060"), "rr"), func(s *kernel.Service) {
			s.Flags, s.Timeout, s.Prefix, s.Engine = kernel.FlagPersistent, time.Minute, 24, "sip"
		})
		server := kernel.Server{Address: at("10.0.0.1:5060"), Weight: 1, Method: kernel.Tunnelling, Tunnel: kernel.Tunnel{Type: kernel.GUE, Port: 5555, Flags: kernel.Checksum}}
		f.must(f.NewService(f.ctx, sip))
		f.must(f.NewServer(f.ctx, sip.ServiceID, server))
		for _, step := range []struct {
			change func(*kernel.Service)
			want   string
		}{
			{func(s *kernel.Service) { s.Scheduler = "wlc" }, "UDP 192.0.2.1:5060 wlc persistent 60 mask 255.255.255.0 pe sip"},
			{func(s *kernel.Service) { s.Flags |= kernel.FlagOnePacket }, "UDP 192.0.2.1:5060 wlc persistent 60 mask 255.255.255.0 pe sip ops"},
			{func(s *kernel.Service) { s.Engine = "" }, "UDP 192.0.2.1:5060 wlc persistent 60 mask 255.255.255.0 ops"},
			{func(s *kernel.Service) { s.Flags, s.Timeout, s.Prefix = 0, 0, 32 }, "UDP 192.0.2.1:5060 wlc"},
			{func(s *kernel.Service) { s.Scheduler, s.Flags = "mh", kernel.FlagScheduler1 }, "UDP 192.0.2.1:5060 mh (mh-fallback)"},
		} {
			step.change(&sip)
			f.must(f.SetService(f.ctx, sip))
			f.equal("ipvsadm -Ln --tun-info", []string{step.want, "-> 10.0.0.1:5060 Tunnel gue:5555:+c 1 0 0"}, f.judge("--tun-info"))
			f.equal("listed", []kernel.ServiceEntry{{Service: sip, Servers: []kernel.ServerEntry{{Server: server}}}}, f.services())
		}
	})
}

func TestGuestTimeouts(t *testing.T) {
	forEach(t, func(f *fixture) {
		for _, step := range []struct {
			set, want kernel.Timeouts
			line      string
		}{
			{kernel.Timeouts{}, kernel.Timeouts{TCP: 900 * time.Second, TCPFin: 120 * time.Second, UDP: 300 * time.Second}, "900 120 300"},
			{kernel.Timeouts{TCP: 100 * time.Second, UDP: 30 * time.Second}, kernel.Timeouts{TCP: 100 * time.Second, TCPFin: 120 * time.Second, UDP: 30 * time.Second}, "100 120 30"},
			{kernel.Timeouts{TCPFin: time.Second}, kernel.Timeouts{TCP: 100 * time.Second, TCPFin: time.Second, UDP: 30 * time.Second}, "100 1 30"},
		} {
			f.must(f.SetTimeouts(f.ctx, step.set))
			got, err := f.Timeouts(f.ctx)
			f.must(err)
			f.equal("timeouts", step.want, got)
			f.equal("ipvsadm", "Timeout (tcp tcpfin udp): "+step.line+"\n", f.run("/usr/sbin/ipvsadm", "-L", "--timeout"))
		}
		err := f.SetTimeouts(f.ctx, kernel.Timeouts{TCP: 1500 * time.Millisecond})
		if !errors.Is(err, kernel.ErrInvalid) || !strings.Contains(err.Error(), "set timeouts: the timeout of TCP is 1.5s: want whole seconds") {
			t.Errorf("half a second: %v", err)
		}
	})
}

func TestGuestInfo(t *testing.T) {
	forEach(t, func(f *fixture) {
		info, err := f.Info(f.ctx)
		f.must(err)
		title, _, _ := strings.Cut(f.run("/usr/sbin/ipvsadm", "-Ln"), "\n")
		f.equal("the title", title, fmt.Sprintf("IP Virtual Server version %s (size=%d)", info.Version, info.TableSize))
	})
}

func TestGuestSyncDaemons(t *testing.T) {
	master := kernel.SyncDaemon{Role: kernel.Master, Interface: "sync0", ID: 7}
	backup := kernel.SyncDaemon{
		Role: kernel.Backup, Interface: "sync0", ID: 255, MaxLength: 1200,
		Group: netip.MustParseAddr("ff02::81"), Port: 9000, TTL: 3,
	}
	forEach(t, func(f *fixture) {
		f.run("ip", "address", "add", "10.1.0.1/24", "dev", "sync0")
		f.daemons(nil, "")
		f.must(f.StartSync(f.ctx, master))
		asListed := master // with the kernel's defaults; the length follows the interface's MTU
		asListed.MaxLength, asListed.Group, asListed.Port, asListed.TTL = 1472, netip.MustParseAddr("224.0.0.81"), 8848, 1
		line := "master sync daemon (mcast=sync0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n"
		f.daemons([]kernel.SyncDaemon{asListed}, line)
		f.must(f.StartSync(f.ctx, backup))
		line2 := "backup sync daemon (mcast=sync0, syncid=255, maxlen=1200, group=ff02::81, port=9000, ttl=3)\n"
		f.daemons([]kernel.SyncDaemon{asListed, backup}, line+line2)
		f.refused("add server [2001:db8::9]:80 of tcp://192.0.2.1:80", kernel.ErrInvalid, syscall.EINVAL, func() error {
			f.must(f.NewService(f.ctx, plain(web, "rr")))
			// Sync messages have no room for a connection of two families.
			return f.NewServer(f.ctx, web, kernel.Server{Address: at("[2001:db8::9]:80"), Method: kernel.Tunnelling})
		}())
		f.refused("start sync daemon master on sync0", kernel.ErrDaemonExists, syscall.EEXIST, f.StartSync(f.ctx, master))
		f.must(f.StopSync(f.ctx, kernel.Master))
		f.daemons([]kernel.SyncDaemon{backup}, line2)
		f.must(f.StopSync(f.ctx, kernel.Backup))
		f.daemons(nil, "")
		f.refused("stop sync daemon backup", kernel.ErrNoDaemon, syscall.ESRCH, f.StopSync(f.ctx, kernel.Backup))
		f.refused("start sync daemon master on none0", kernel.ErrNoInterface, syscall.ENODEV,
			f.StartSync(f.ctx, kernel.SyncDaemon{Role: kernel.Master, Interface: "none0"}))
	})
}

func (f *fixture) daemons(want []kernel.SyncDaemon, lines string) {
	f.t.Helper()
	got, err := f.SyncDaemons(f.ctx)
	f.must(err)
	f.equal("sync daemons", want, got)
	f.equal("ipvsadm -L --daemon", lines, f.run("/usr/sbin/ipvsadm", "-L", "--daemon"))
}

// refused wants an error of that start that matches both.
func (f *fixture) refused(start string, meaning error, errno syscall.Errno, err error) {
	f.t.Helper()
	if !errors.Is(err, meaning) || !errors.Is(err, errno) || !strings.HasPrefix(fmt.Sprint(err), start+": ") {
		f.t.Errorf("%v, want %s: %v (errno %d)", err, start, meaning, errno)
	}
}

func TestGuestRefusals(t *testing.T) {
	forEach(t, func(f *fixture) {
		server := kernel.Server{Address: at("10.0.0.1:80"), Weight: 1}
		sip := with(plain(web, "rr"), func(s *kernel.Service) { s.Flags, s.Timeout, s.Engine = kernel.FlagPersistent, time.Second, "nope" })
		mark, all := kernel.MarkID(3, kernel.IPv6), address(kernel.TCP, "192.0.2.1:0")
		for _, id := range []kernel.ServiceID{web, web6, mark, all} {
			name := id.String()
			f.refused("remove service "+name, kernel.ErrNoService, syscall.ESRCH, f.DeleteService(f.ctx, id))
			f.refused("change service "+name, kernel.ErrNoService, syscall.ESRCH, f.SetService(f.ctx, plain(id, "rr")))
			f.refused("zero counters of "+name, kernel.ErrNoService, syscall.ESRCH, f.Zero(f.ctx, id))
			f.refused("add server 10.0.0.1:80 of "+name, kernel.ErrNoService, syscall.ESRCH, f.NewServer(f.ctx, id, server))
			f.refused("change server 10.0.0.1:80 of "+name, kernel.ErrNoService, syscall.ESRCH, f.SetServer(f.ctx, id, server))
			f.refused("remove server 10.0.0.1:80 of "+name, kernel.ErrNoService, syscall.ESRCH, f.DeleteServer(f.ctx, id, server.Address))
			_, err := f.Service(f.ctx, id)
			f.refused("get service "+name, kernel.ErrNoService, syscall.ESRCH, err)
		}
		f.refused("add service tcp://192.0.2.1:80", kernel.ErrNoScheduler, syscall.ENOENT, f.NewService(f.ctx, plain(web, "nope")))
		f.refused("add service tcp://192.0.2.1:80", kernel.ErrNoScheduler, syscall.ENOENT, f.NewService(f.ctx, sip))
		f.refused("add service tcp://[2001:db8::1]:80", kernel.ErrInvalid, syscall.EINVAL,
			f.NewService(f.ctx, with(plain(web6, "rr"), func(s *kernel.Service) { s.Prefix = 0 })))
		f.must(f.NewService(f.ctx, plain(web, "mh")))
		f.refused("add service tcp://192.0.2.1:80", kernel.ErrServiceExists, syscall.EEXIST, f.NewService(f.ctx, plain(web, "rr")))
		f.refused("change service tcp://192.0.2.1:80", kernel.ErrNoScheduler, syscall.ENOENT, f.SetService(f.ctx, plain(web, "nope")))
		f.refused("change server 10.0.0.1:80 of tcp://192.0.2.1:80", kernel.ErrNoServer, syscall.ENOENT, f.SetServer(f.ctx, web, server))
		f.refused("remove server 10.0.0.1:80 of tcp://192.0.2.1:80", kernel.ErrNoServer, syscall.ENOENT, f.DeleteServer(f.ctx, web, server.Address))
		f.must(f.NewServer(f.ctx, web, server))
		f.refused("add server 10.0.0.1:80 of tcp://192.0.2.1:80", kernel.ErrServerExists, syscall.EEXIST, f.NewServer(f.ctx, web, server))

		for want, wrong := range map[error][]kernel.Server{
			kernel.ErrRange: {
				{Address: at("10.0.0.2:80"), Weight: 1 << 31},
				{Address: at("10.0.0.2:80"), Weight: 1, Upper: 1, Lower: 2},
			},
			kernel.ErrInvalid: {
				{Address: at("[2001:db8::2]:80"), Weight: 1}, // of another family, not tunnelled
				{Address: at("224.0.0.1:80"), Weight: 1},     // no unicast
				{Address: at("10.0.0.2:80"), Weight: 1, Method: kernel.Tunnelling, Tunnel: kernel.Tunnel{Type: kernel.GUE}}, // no port
				{Address: netip.AddrPortFrom(netip.MustParseAddr("fe80::2%eth0"), 80), Weight: 1},
				{},
			},
		} {
			errno := syscall.EINVAL
			if want == kernel.ErrRange {
				errno = syscall.ERANGE
			}
			for _, s := range wrong {
				f.refused("add server "+s.Address.String()+" of tcp://192.0.2.1:80", want, errno, f.NewServer(f.ctx, web, s))
			}
		}
		for reason, s := range map[string]kernel.Service{
			"the address is missing":                                {Scheduler: "rr"},
			"the scheduler is missing":                              plain(web6, ""),
			`"0123456789abcdef" is too long for a scheduler's name`: plain(web6, "0123456789abcdef"),
			"protocol-1 is none of tcp, udp and sctp":               plain(address(1, "192.0.2.1:80"), "rr"),
			"a service by mark has neither protocol nor address nor port": plain(
				kernel.ServiceID{Mark: 1, Protocol: kernel.TCP, Address: web.Address}, "rr"),
			"the prefix of 33 bits is longer than an address": with(plain(dns, "rr"), func(s *kernel.Service) { s.Prefix = 33 }),
		} {
			err := f.NewService(f.ctx, s)
			if !errors.Is(err, kernel.ErrInvalid) || !strings.HasSuffix(fmt.Sprint(err), ": "+reason) {
				t.Errorf("%v, want %s", err, reason)
			}
		}
		f.equal("what is there in the end", []string{"TCP 192.0.2.1:80 mh", "-> 10.0.0.1:80 Masq 1 0 0"}, f.judge())
	})
}

// TestGuestPermission: without rights every driver says so.
func TestGuestPermission(t *testing.T) {
	forEach(t, func(f *fixture) {
		name := f.Name()
		err := f.namespace.Do(func() error {
			if err := dropNetAdmin(); err != nil { // of this thread, which ends with the function
				return err
			}
			d, err := kernel.Open(f.ctx, kernel.Options{Driver: name})
			if err != nil {
				return err
			}
			defer d.Close()
			_, err = d.Services(f.ctx)
			return err
		})
		f.refused("list services", kernel.ErrPermission, syscall.EPERM, err)
	})
}

// TestGuestOpen: the driver that this architecture should have, unknown ones, and
// who opens where.
func TestGuestOpen(t *testing.T) {
	forEach(t, func(f *fixture) {
		f.must(f.NewService(f.ctx, plain(web, "rr")))
		name := f.Name()
		for range 3 { // on threads of the test's own namespace
			got, err := f.Services(f.ctx)
			f.must(err)
			f.equal("the driver's namespace", 1, len(got))
			here, err := kernel.Open(f.ctx, kernel.Options{Driver: name})
			f.must(err)
			defer here.Close()
			got, err = here.Services(f.ctx)
			f.must(err)
			f.equal("the test's namespace", 0, len(got))
		}
		f.must(f.Close())
		if _, err := f.Services(f.ctx); !errors.Is(err, kernel.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
	d, err := kernel.Open(t.Context(), kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, want := d.Name(), drivers()[len(drivers())-1]; got != want {
		t.Errorf("the driver is %s, want %s", got, want)
	}
	if _, err := kernel.Open(t.Context(), kernel.Options{Driver: "moby"}); err == nil || !strings.Contains(err.Error(), `unknown driver "moby": want libipvs or genetlink`) {
		t.Errorf("unknown: %v", err)
	}
}
