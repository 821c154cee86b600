//go:build linux && amd64

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
	closed  bool
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
	if err := l.open(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return l, nil
}

// open fails with the context alone; whatever else is wrong gives libipvs up.
func (l *Libipvs) open(ctx context.Context) error {
	handle := make(chan libipvs.IPVSHandle, 1)
	err := l.guard(ctx, func() error {
		return l.socket.namespace.do(func() error {
			// With LoadModule it would run modprobe, and fail where there is none.
			h, err := libipvs.NewIPVSHandle(libipvs.IPVSHandleParams{LoadModule: false})
			handle <- h
			return err
		})
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		l.giveUp(fmt.Errorf("open a handle: %w", err))
		return nil
	}
	l.handle = <-handle
	return l.compareLists(ctx)
}

// Name returns "libipvs", or "genetlink" once libipvs was given up.
func (l *Libipvs) Name() string {
	if l.isGivenUp() {
		return DriverGenetlink
	}
	return DriverLibipvs
}

// Close is described in Driver. It leaves libipvs's socket and thread behind.
func (l *Libipvs) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return l.Genetlink.Close()
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

// run has libipvs do something, or, where that was given up, the other driver; that
// one also says that it is closed.
func (l *Libipvs) run(ctx context.Context, op Op, object string, f, other func() error) error {
	if l.isGivenUp() || l.isClosed() {
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

func (l *Libipvs) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
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
