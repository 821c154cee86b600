package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

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
			f.equal("ipvsadm", "Timeout (tcp tcpfin udp): "+step.line+"\n", f.run("ipvsadm", "-L", "--timeout"))
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
		title, _, _ := strings.Cut(f.run("ipvsadm", "-Ln"), "\n")
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
	f.equal("ipvsadm -L --daemon", lines, f.run("ipvsadm", "-L", "--daemon"))
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
