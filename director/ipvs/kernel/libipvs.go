//go:build linux && amd64

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hkwi/nlgo"
	"github.com/mqliang/libipvs"
)

// hasLibipvs: nlgo, which libipvs is built on, has its structures for amd64, arm
// and ppc64le alone.
const hasLibipvs = true

// Libipvs is the driver whose services and servers are made and deleted by
// github.com/mqliang/libipvs where that is sound; all else is Genetlink's. What
// is sound, and why, stands in director/decisions/0004-ipvs-drivers.md.
//
// A call of libipvs that panics, or does not come back, is an error, and the
// last one: from then on the driver is Genetlink. Whether what was asked for has
// happened is then to be read from the kernel.
type Libipvs struct {
	*Genetlink
	handle libipvs.IPVSHandle
	limit  time.Duration
	log    *slog.Logger

	mu      sync.Mutex
	givenUp error // why libipvs is not used any more, or nil
}

var _ Driver = (*Libipvs)(nil)

func openLibipvs(ctx context.Context, o Options) (Driver, error) { return OpenLibipvs(ctx, o) }

// OpenLibipvs opens the driver in the calling thread's network namespace. It has
// libipvs list the services first and compares that with Genetlink's list: what
// reads wrongly must not write. Where libipvs cannot be opened, or reads
// wrongly, the log says so and the driver is Genetlink alone.
//
// A handle of libipvs cannot be closed: it keeps a socket and a thread for the
// life of the process.
func OpenLibipvs(ctx context.Context, o Options) (*Libipvs, error) {
	o = o.withDefaults()
	g, err := OpenGenetlink(ctx)
	if err != nil {
		return nil, err
	}
	l := &Libipvs{Genetlink: g, limit: o.CallLimit, log: o.Log}
	err = g.socket.namespace.do(func() error {
		// New would run modprobe, and fail where there is none.
		l.handle, err = libipvs.NewIPVSHandle(libipvs.IPVSHandleParams{LoadModule: false})
		return err
	})
	if err != nil {
		l.giveUp(fmt.Errorf("open a handle: %w", err))
		return l, nil
	}
	if err := l.compareLists(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return l, nil
}

// Name returns "libipvs", or "genetlink" once libipvs was given up.
func (l *Libipvs) Name() string {
	if l.isGivenUp() {
		return DriverGenetlink
	}
	return DriverLibipvs
}

// NewService is described in Driver.
func (l *Libipvs) NewService(ctx context.Context, s Service) error {
	if s.problem() != "" || !expressible(s.ServiceID) || s.Engine != "" {
		return l.Genetlink.NewService(ctx, s)
	}
	return l.run(ctx, OpNewService, s.ServiceID.String(),
		func() error { return l.handle.NewService(libService(s)) },
		func() error { return l.Genetlink.NewService(ctx, s) })
}

// DeleteService is described in Driver.
func (l *Libipvs) DeleteService(ctx context.Context, id ServiceID) error {
	if id.problem() != "" || !expressible(id) {
		return l.Genetlink.DeleteService(ctx, id)
	}
	return l.run(ctx, OpDeleteService, id.String(),
		func() error { return l.handle.DelService(libService(Service{ServiceID: id})) },
		func() error { return l.Genetlink.DeleteService(ctx, id) })
}

// NewServer is described in Driver.
func (l *Libipvs) NewServer(ctx context.Context, id ServiceID, s Server) error {
	if id.problem() != "" || serverProblem(s.Address) != "" || !expressible(id) || s.Tunnel != (Tunnel{}) {
		return l.Genetlink.NewServer(ctx, id, s)
	}
	return l.run(ctx, OpNewServer, serverObject(id, s.Address),
		func() error { return l.handle.NewDestination(libService(Service{ServiceID: id}), libServer(s)) },
		func() error { return l.Genetlink.NewServer(ctx, id, s) })
}

// DeleteServer is described in Driver.
func (l *Libipvs) DeleteServer(ctx context.Context, id ServiceID, server netip.AddrPort) error {
	if id.problem() != "" || serverProblem(server) != "" || !expressible(id) {
		return l.Genetlink.DeleteServer(ctx, id, server)
	}
	return l.run(ctx, OpDeleteServer, serverObject(id, server),
		func() error {
			return l.handle.DelDestination(libService(Service{ServiceID: id}), libServer(Server{Address: server}))
		},
		func() error { return l.Genetlink.DeleteServer(ctx, id, server) })
}

// run has libipvs do something, or, where that was given up, the other driver.
func (l *Libipvs) run(ctx context.Context, op Op, object string, f, other func() error) error {
	if l.isGivenUp() {
		return other()
	}
	err := l.guard(ctx, f)
	var refusal nlgo.NlMsgerr
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refusal):
		return fmt.Errorf("%s: %w", act(op, object), err)
	case len(refusal.Data) < 4:
		return fmt.Errorf("%s: the kernel's answer has %d octets", act(op, object), len(refusal.Data))
	}
	errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(refusal.Data)))
	if errno == syscall.ENOENT {
		// Nothing happened; the other driver knows of what ENOENT is said, and finds
		// the family again if IPVS was loaded anew.
		return other()
	}
	return &Error{Op: op, Object: object, Errno: errno}
}

// errStuck is of a call that did not come back.
var errStuck = errors.New("libipvs did not come back: whether it was done is unknown")

// guard calls f, but not for ever, and not at the price of the program. A call
// that was left alone goes on in its goroutine, and its result is thrown away.
func (l *Libipvs) guard(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	type result struct {
		err      error
		panicked bool
	}
	done := make(chan result, 1)
	go func() {
		r := result{panicked: true}
		defer func() {
			if r.panicked {
				r.err = fmt.Errorf("libipvs panicked: %v", recover())
			}
			done <- r
		}()
		r.err = f()
		r.panicked = false
	}()
	limit := time.NewTimer(l.limit)
	defer limit.Stop()
	select {
	case r := <-done:
		if r.panicked {
			l.giveUp(r.err)
		}
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		l.giveUp(errStuck)
		return errStuck
	}
}

func (l *Libipvs) isGivenUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.givenUp != nil
}

func (l *Libipvs) giveUp(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.givenUp == nil {
		l.givenUp = why
		l.log.Warn("libipvs is not used any more, generic netlink does its work", "err", why)
	}
}

// expressible reports whether libipvs can name the service: it panics on port 0.
func expressible(id ServiceID) bool { return id.Mark != 0 || id.Address.Port() != 0 }

// libService fills all that libipvs would panic on.
func libService(s Service) *libipvs.Service {
	lib := &libipvs.Service{
		AddressFamily: libipvs.AddressFamily(s.Family()),
		FWMark:        s.Mark,
		SchedName:     s.Scheduler,
		// With the mask 0 the kernel would not look at the flags.
		Flags:   libipvs.Flags{Flags: uint32(s.Flags), Mask: ^uint32(0)},
		Timeout: seconds(s.Timeout),
		Netmask: binary.NativeEndian.Uint32(s.netmask()), // as octets, whatever their order
	}
	if s.Mark == 0 {
		lib.Protocol = libipvs.Protocol(s.Protocol)
		lib.Address = s.Address.Addr().AsSlice()
		lib.Port = s.Address.Port()
	}
	return lib
}

func libServer(s Server) *libipvs.Destination {
	return &libipvs.Destination{
		AddressFamily: libipvs.AddressFamily(familyOf(s.Address.Addr())),
		Address:       s.Address.Addr().AsSlice(),
		Port:          s.Address.Port(),
		FwdMethod:     libipvs.FwdMethod(s.Method),
		Weight:        s.Weight,
		UThresh:       s.Upper,
		LThresh:       s.Lower,
	}
}

// compareLists gives libipvs up if it does not list what Genetlink lists.
func (l *Libipvs) compareLists(ctx context.Context) error {
	var difference error
	for range 3 { // somebody may change the services in between
		want, err := l.Services(ctx)
		if err != nil {
			return err
		}
		var got []ServiceEntry
		err = l.guard(ctx, func() (err error) { got, err = l.list(); return err })
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case l.isGivenUp():
			return nil
		case err != nil:
			difference = fmt.Errorf("list services: %w", err)
		default:
			difference = compareLists(got, want)
		}
		if difference == nil {
			return nil
		}
	}
	l.giveUp(difference)
	return nil
}

// list returns what libipvs reads: identities, configuration without tunnels and
// engines, and no counters, which are 32 bits wide.
func (l *Libipvs) list() ([]ServiceEntry, error) {
	services, err := l.handle.ListServices()
	if err != nil {
		return nil, err
	}
	var all []ServiceEntry
	for _, lib := range services {
		s, err := fromLibService(lib)
		if err != nil {
			return nil, err
		}
		// libipvs cannot ask for the servers of a service it panics on.
		if expressible(s.ServiceID) {
			servers, err := l.handle.ListDestinations(lib)
			if err != nil {
				return nil, fmt.Errorf("list servers of %s: %w", s.ServiceID, err)
			}
			for _, lib := range servers {
				server, err := fromLibServer(lib)
				if err != nil {
					return nil, fmt.Errorf("a server of %s: %w", s.ServiceID, err)
				}
				s.Servers = append(s.Servers, server)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

func fromLibService(lib *libipvs.Service) (s ServiceEntry, err error) {
	s.Scheduler = lib.SchedName
	s.Flags = ServiceFlags(lib.Flags.Flags) &^ flagHashed
	s.Timeout = time.Duration(lib.Timeout) * time.Second
	if lib.FWMark != 0 {
		s.ServiceID = MarkID(lib.FWMark, Family(lib.AddressFamily))
	} else {
		w := wireAddress{family: Family(lib.AddressFamily), octets: lib.Address, port: lib.Port}
		s.Protocol = Protocol(lib.Protocol)
		if s.Address, err = w.addrPort(); err != nil {
			return ServiceEntry{}, err
		}
	}
	s.setNetmask(binary.NativeEndian.AppendUint32(nil, lib.Netmask))
	return s, nil
}

func fromLibServer(lib *libipvs.Destination) (s ServerEntry, err error) {
	w := wireAddress{family: Family(lib.AddressFamily), octets: lib.Address, port: lib.Port}
	if s.Address, err = w.addrPort(); err != nil {
		return ServerEntry{}, err
	}
	s.Method = Method(lib.FwdMethod & libipvs.IP_VS_CONN_F_FWD_MASK)
	s.Weight, s.Upper, s.Lower = lib.Weight, lib.UThresh, lib.LThresh
	return s, nil
}

// compareLists compares what libipvs is able to read.
func compareLists(got, want []ServiceEntry) error {
	if len(got) != len(want) {
		return fmt.Errorf("it lists %d services, there are %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		w.Engine = ""
		if g.Service != w.Service {
			return fmt.Errorf("it lists the service %+v, there is %+v", g.Service, w.Service)
		}
		if !expressible(w.ServiceID) {
			continue
		}
		same := slices.EqualFunc(g.Servers, w.Servers, func(g, w ServerEntry) bool {
			w.Tunnel = Tunnel{}
			return g.Server == w.Server
		})
		if !same {
			return fmt.Errorf("it lists other servers of %s than there are", w.ServiceID)
		}
	}
	return nil
}
