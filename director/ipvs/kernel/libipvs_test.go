//go:build linux && amd64

package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hkwi/nlgo"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"github.com/mqliang/libipvs"
)

// fakeHandle is libipvs as it may behave.
type fakeHandle struct {
	libipvs.IPVSHandle // nil: what is not expected panics
	do                 func() error

	mu    sync.Mutex
	calls []string
}

func (h *fakeHandle) call(name string) error {
	h.mu.Lock()
	h.calls = append(h.calls, name)
	h.mu.Unlock()
	return h.do()
}

func (h *fakeHandle) called() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

func (h *fakeHandle) NewService(*libipvs.Service) error {
	return h.call("NewService")
}

func (h *fakeHandle) DelService(*libipvs.Service) error {
	return h.call("DelService")
}

func (h *fakeHandle) NewDestination(*libipvs.Service, *libipvs.Destination) error {
	return h.call("NewDestination")
}

func (h *fakeHandle) DelDestination(*libipvs.Service, *libipvs.Destination) error {
	return h.call("DelDestination")
}

// libipvsOn returns a driver on the handle, whose generic netlink counts.
func libipvsOn(t *testing.T, h *fakeHandle, limit time.Duration) (l *Libipvs, asked *int, log *bytes.Buffer) {
	asked, log = new(int), new(bytes.Buffer)
	g := fake(t, func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
		*asked++
		return []genetlink.Message{{Data: []byte{0, 0, 0, 0}}}, nil
	})
	return &Libipvs{Genetlink: g, handle: h, limit: limit, log: slog.New(slog.NewTextHandler(log, nil))}, asked, log
}

func refusal(errno syscall.Errno) error {
	return nlgo.NlMsgerr(syscall.NetlinkMessage{Data: binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))})
}

// TestWhoDoesWhat: libipvs gets what it does right and nothing else.
func TestWhoDoesWhat(t *testing.T) {
	ctx := context.Background()
	plain, all := Service{ServiceID: web, Scheduler: "rr"}, ServiceID{Protocol: TCP, Address: at("192.0.2.1:0")}
	withEngine := plain
	withEngine.Engine = "sip"
	server := Server{Address: at("10.0.0.1:80")}
	gue := server
	gue.Method, gue.Tunnel = Tunnelling, Tunnel{Type: GUE, Port: 1}
	ipip := server
	ipip.Method = Tunnelling
	for name, c := range map[string]struct {
		call func(Driver) error
		lib  string
	}{
		"new service":             {func(d Driver) error { return d.NewService(ctx, plain) }, "NewService"},
		"new service by mark":     {func(d Driver) error { return d.NewService(ctx, Service{ServiceID: MarkID(1, IPv6), Scheduler: "rr"}) }, "NewService"},
		"new service, engine":     {func(d Driver) error { return d.NewService(ctx, withEngine) }, ""},
		"new service, all ports":  {func(d Driver) error { return d.NewService(ctx, Service{ServiceID: all, Scheduler: "rr"}) }, ""},
		"set service":             {func(d Driver) error { return d.SetService(ctx, plain) }, ""},
		"delete service":          {func(d Driver) error { return d.DeleteService(ctx, web) }, "DelService"},
		"delete, all ports":       {func(d Driver) error { return d.DeleteService(ctx, all) }, ""},
		"new server":              {func(d Driver) error { return d.NewServer(ctx, web, server) }, "NewDestination"},
		"new server, ipip":        {func(d Driver) error { return d.NewServer(ctx, web, ipip) }, "NewDestination"},
		"new server, gue":         {func(d Driver) error { return d.NewServer(ctx, web, gue) }, ""},
		"new server, all ports":   {func(d Driver) error { return d.NewServer(ctx, all, server) }, ""},
		"set server":              {func(d Driver) error { return d.SetServer(ctx, web, server) }, ""},
		"delete server":           {func(d Driver) error { return d.DeleteServer(ctx, web, server.Address) }, "DelDestination"},
		"delete one of all ports": {func(d Driver) error { return d.DeleteServer(ctx, all, server.Address) }, ""},
		"flush":                   {func(d Driver) error { return d.Flush(ctx) }, ""},
	} {
		h := &fakeHandle{do: func() error { return nil }}
		l, asked, _ := libipvsOn(t, h, time.Minute)
		if err := c.call(l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		before := strings.Join(h.called(), " ")
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
		if err := c.call(l); !errors.Is(err, ErrClosed) || before != strings.Join(h.called(), " ") {
			t.Errorf("%s after Close: %v", name, err)
		}
		if got := strings.Join(h.called(), " "); got != c.lib || (*asked == 1) != (c.lib == "") {
			t.Errorf("%s: libipvs did %q, want %q; generic netlink was asked %d times", name, got, c.lib, *asked)
		}
	}
}

// TestLibipvsRefuses: the kernel's numbers mean what they mean by the other driver;
// after ENOENT that one is asked.
func TestLibipvsRefuses(t *testing.T) {
	ctx := context.Background()
	for errno, want := range map[syscall.Errno]error{
		syscall.EEXIST: ErrServerExists, syscall.ESRCH: ErrNoService, syscall.EPERM: ErrPermission, syscall.ENOENT: nil,
	} {
		l, asked, _ := libipvsOn(t, &fakeHandle{do: func() error { return refusal(errno) }}, time.Minute)
		err := l.NewServer(ctx, web, Server{Address: at("10.0.0.1:80")})
		if !errors.Is(err, want) || (*asked == 1) != (errno == syscall.ENOENT) || l.Name() != DriverLibipvs {
			t.Errorf("%v: %v, want %v; generic netlink was asked %d times", errno, err, want, *asked)
		}
	}
	for want, failure := range map[string]error{
		"add service tcp://192.0.2.1:80: no luck":                          errors.New("no luck"),
		"add service tcp://192.0.2.1:80: the kernel's answer has 0 octets": nlgo.NlMsgerr{},
	} {
		l, asked, _ := libipvsOn(t, &fakeHandle{do: func() error { return failure }}, time.Minute)
		if err := l.NewService(ctx, Service{ServiceID: web, Scheduler: "rr"}); err == nil || err.Error() != want || *asked != 0 {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestLibipvsIsGivenUp: a panic, or a call that does not come back, is an error
// once, and then the other driver does it.
func TestLibipvsIsGivenUp(t *testing.T) {
	for want, do := range map[string]func(never <-chan struct{}) error{
		"libipvs panicked: Incomplete service id fields":            func(<-chan struct{}) error { panic("Incomplete service id fields") },
		"libipvs did not come back: whether it was done is unknown": func(never <-chan struct{}) error { <-never; return nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			never := make(chan struct{})
			defer close(never)
			h := &fakeHandle{do: func() error { return do(never) }}
			l, asked, log := libipvsOn(t, h, time.Minute)
			service := Service{ServiceID: web, Scheduler: "rr"}
			if err := l.NewService(t.Context(), service); err == nil || err.Error() != "add service tcp://192.0.2.1:80: "+want {
				t.Errorf("%v, want %s", err, want)
			}
			for range 2 {
				if err := l.NewService(t.Context(), service); err != nil {
					t.Errorf("the next call: %v", err)
				}
			}
			if *asked != 2 || len(h.called()) != 1 || l.Name() != DriverGenetlink || strings.Count(log.String(), "level=WARN") != 1 {
				t.Errorf("generic netlink was asked %d times, libipvs %d times, the driver is %s, the log %q", *asked, len(h.called()), l.Name(), log)
			}
		})
	}
}

// TestLibipvsAndContexts: who has no time left does not wait, and does not give
// libipvs up.
func TestLibipvsAndContexts(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	ctx, cancel := context.WithCancel(context.Background())
	entered := make(chan struct{})
	l, _, _ := libipvsOn(t, &fakeHandle{do: func() error { close(entered); <-never; return nil }}, time.Hour)
	go func() { <-entered; cancel() }()
	if err := l.DeleteService(ctx, web); !errors.Is(err, context.Canceled) || l.Name() != DriverLibipvs {
		t.Errorf("%v, and the driver is %s", err, l.Name())
	}
	if err := l.DeleteService(ctx, web); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestCompareLists: a handle that reads wrongly is found out, and what it is known
// not to read is no difference.
func TestCompareLists(t *testing.T) {
	list := func() []ServiceEntry {
		return []ServiceEntry{
			{Service: Service{ServiceID: web, Scheduler: "rr", Prefix: 32}, Servers: []ServerEntry{{Server: Server{Address: at("10.0.0.1:80"), Weight: 1}}}},
			{Service: Service{ServiceID: ServiceID{Protocol: TCP, Address: at("192.0.2.1:0")}, Scheduler: "rr"}},
		}
	}
	for name, c := range map[string]struct {
		want   string // in the difference
		change func(is []ServiceEntry)
	}{
		"the same":                 {"", func([]ServiceEntry) {}},
		"an engine":                {"", func(is []ServiceEntry) { is[0].Engine = "sip" }},
		"a tunnel":                 {"", func(is []ServiceEntry) { is[0].Servers[0].Tunnel.Type = GRE }},
		"counters":                 {"", func(is []ServiceEntry) { is[0].Stats.Counters.InBytes, is[0].Servers[0].Active = 1, 1 }},
		"servers of port 0":        {"", func(is []ServiceEntry) { is[1].Servers = []ServerEntry{{}} }},
		"another scheduler":        {"it lists the service", func(is []ServiceEntry) { is[0].Scheduler = "wlc" }},
		"another address":          {"it lists the service", func(is []ServiceEntry) { is[0].Address = at("192.0.2.2:80") }},
		"another weight":           {"other servers of tcp://192.0.2.1:80", func(is []ServiceEntry) { is[0].Servers[0].Weight = 2 }},
		"a server that is missing": {"other servers of tcp://192.0.2.1:80", func(is []ServiceEntry) { is[0].Servers = nil }},
	} {
		is := list()
		c.change(is)
		err := compareLists(list(), is)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := compareLists(list()[:1], list()); err == nil || err.Error() != "it lists 1 services, there are 2" {
		t.Errorf("one less: %v", err)
	}
}

func TestFromLibipvs(t *testing.T) {
	if _, err := fromLibService(&libipvs.Service{AddressFamily: 3, Address: net.IP{1, 2, 3, 4}}); err == nil {
		t.Error("a service of no family is taken")
	}
	if _, err := fromLibServer(&libipvs.Destination{AddressFamily: 10, Address: net.IP{1, 2, 3, 4}}); err == nil {
		t.Error("a server of IPv6 with four octets is taken")
	}
}
