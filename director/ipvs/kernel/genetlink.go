package kernel

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// Genetlink is the complete driver: it does all of IPVS by generic netlink. Safe
// for concurrent use: calls take turns, as they would in the kernel.
type Genetlink struct {
	socket *socket
}

var _ Driver = (*Genetlink)(nil)

// OpenGenetlink opens the driver in the calling thread's network namespace. The
// error is ErrNotLoaded where the kernel has no IPVS; one that finds its modules
// loads it by itself.
func OpenGenetlink(ctx context.Context) (*Genetlink, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	if err := s.check(ctx); err != nil {
		s.close()
		return nil, err
	}
	return &Genetlink{socket: s}, nil
}

// Name returns "genetlink".
func (g *Genetlink) Name() string { return DriverGenetlink }

// Close is described in Driver.
func (g *Genetlink) Close() error { return g.socket.close() }

// Info is described in Driver.
func (g *Genetlink) Info(ctx context.Context) (Info, error) {
	answer, err := g.socket.get(ctx, request{op: OpInfo, command: commandGetInfo})
	if err != nil {
		return Info{}, err
	}
	return decodeInfo(answer)
}

// Services is described in Driver.
func (g *Genetlink) Services(ctx context.Context) ([]ServiceEntry, error) {
	answers, err := g.socket.dump(ctx, request{op: OpListServices, command: commandGetService})
	if err != nil {
		return nil, err
	}
	services := make([]ServiceEntry, 0, len(answers))
	known := make(map[ServiceID]bool, len(answers))
	for _, answer := range answers {
		s, err := serviceOf(answer)
		if err != nil {
			return nil, err
		}
		if known[s.ServiceID] { // the list moved while it was read
			continue
		}
		known[s.ServiceID] = true
		present, err := g.addServers(ctx, &s)
		if err != nil {
			return nil, err
		}
		if present {
			services = append(services, s)
		}
	}
	return services, nil
}

// Service is described in Driver.
func (g *Genetlink) Service(ctx context.Context, id ServiceID) (ServiceEntry, error) {
	s, err := g.service(ctx, id)
	if err != nil {
		return ServiceEntry{}, err
	}
	present, err := g.addServers(ctx, &s)
	if err == nil && !present {
		err = &Error{Op: OpGetService, Object: id.String(), Errno: syscall.ESRCH}
	}
	if err != nil {
		return ServiceEntry{}, err
	}
	return s, nil
}

// service returns a service without its servers.
func (g *Genetlink) service(ctx context.Context, id ServiceID) (ServiceEntry, error) {
	answer, err := g.socket.get(ctx, request{op: OpGetService, object: id.String(), problem: id.problem(), command: commandGetService}.ofService(id))
	if err != nil {
		return ServiceEntry{}, err
	}
	return serviceOf(answer)
}

// addServers reports whether the service is still there. The kernel answers
// alike for a service without servers and for no service.
func (g *Genetlink) addServers(ctx context.Context, s *ServiceEntry) (present bool, err error) {
	answers, err := g.socket.dump(ctx, request{op: OpListServers, object: s.ServiceID.String(), command: commandGetServer}.ofService(s.ServiceID))
	if err != nil {
		return false, err
	}
	if len(answers) == 0 {
		_, err := g.service(ctx, s.ServiceID)
		if isGone(err) {
			return false, nil
		}
		return true, err
	}
	s.Servers = make([]ServerEntry, 0, len(answers))
	known := make(map[netip.AddrPort]bool, len(answers))
	for _, answer := range answers {
		content, err := only(answer, attrServer)
		if err != nil {
			return false, err
		}
		server, err := decodeServer(content, s.Family())
		if err != nil {
			return false, err
		}
		if !known[server.Address] { // a list read in parts moves if one is added
			known[server.Address] = true
			s.Servers = append(s.Servers, server)
		}
	}
	return true, nil
}

func serviceOf(answer []byte) (ServiceEntry, error) {
	content, err := only(answer, attrService)
	if err != nil {
		return ServiceEntry{}, err
	}
	return decodeService(content)
}

// NewService is described in Driver.
func (g *Genetlink) NewService(ctx context.Context, s Service) error {
	return g.writeService(ctx, OpNewService, commandNewService, s)
}

// SetService is described in Driver.
func (g *Genetlink) SetService(ctx context.Context, s Service) error {
	return g.writeService(ctx, OpSetService, commandSetService, s)
}

func (g *Genetlink) writeService(ctx context.Context, op Op, command uint8, s Service) error {
	r := request{op: op, object: s.ServiceID.String(), problem: s.problem(), command: command}
	return g.socket.do(ctx, r.nested(attrService, func(e *netlink.AttributeEncoder) { encodeService(e, s) }))
}

// DeleteService is described in Driver.
func (g *Genetlink) DeleteService(ctx context.Context, id ServiceID) error {
	return g.socket.do(ctx, request{op: OpDeleteService, object: id.String(), problem: id.problem(), command: commandDeleteService}.ofService(id))
}

// NewServer is described in Driver.
func (g *Genetlink) NewServer(ctx context.Context, service ServiceID, s Server) error {
	return g.writeServer(ctx, OpNewServer, commandNewServer, service, s)
}

// SetServer is described in Driver.
func (g *Genetlink) SetServer(ctx context.Context, service ServiceID, s Server) error {
	return g.writeServer(ctx, OpSetServer, commandSetServer, service, s)
}

func (g *Genetlink) writeServer(ctx context.Context, op Op, command uint8, service ServiceID, s Server) error {
	r := serverRequest(op, command, service, s.Address)
	return g.socket.do(ctx, r.nested(attrServer, func(e *netlink.AttributeEncoder) { encodeServer(e, s) }))
}

// DeleteServer is described in Driver.
func (g *Genetlink) DeleteServer(ctx context.Context, service ServiceID, server netip.AddrPort) error {
	r := serverRequest(OpDeleteServer, commandDeleteServer, service, server)
	return g.socket.do(ctx, r.nested(attrServer, func(e *netlink.AttributeEncoder) { encodeServerID(e, server) }))
}

func serverRequest(op Op, command uint8, service ServiceID, server netip.AddrPort) request {
	return request{
		op: op, object: serverObject(service, server), command: command,
		problem: cmp.Or(service.problem(), serverProblem(server)),
	}.ofService(service)
}

func serverObject(service ServiceID, server netip.AddrPort) string {
	return server.String() + " of " + service.String()
}

// Flush is described in Driver.
func (g *Genetlink) Flush(ctx context.Context) error {
	return g.socket.do(ctx, request{op: OpFlush, command: commandFlush})
}

// Zero is described in Driver.
func (g *Genetlink) Zero(ctx context.Context, id ServiceID) error {
	r := request{op: OpZero, command: commandZero}
	if id != (ServiceID{}) {
		r.object, r.problem = "of "+id.String(), id.problem()
		r = r.ofService(id)
	}
	return g.socket.do(ctx, r)
}

// Timeouts is described in Driver.
func (g *Genetlink) Timeouts(ctx context.Context) (Timeouts, error) {
	answer, err := g.socket.get(ctx, request{op: OpTimeouts, command: commandGetConfig})
	if err != nil {
		return Timeouts{}, err
	}
	return decodeTimeouts(answer)
}

// SetTimeouts is described in Driver.
func (g *Genetlink) SetTimeouts(ctx context.Context, t Timeouts) error {
	return g.socket.do(ctx, request{
		op: OpSetTimeouts, command: commandSetConfig, problem: t.problem(),
		encode: func(e *netlink.AttributeEncoder) {
			e.Uint32(attrTimeoutTCP, seconds(t.TCP))
			e.Uint32(attrTimeoutTCPFin, seconds(t.TCPFin))
			e.Uint32(attrTimeoutUDP, seconds(t.UDP))
		},
	})
}

// SyncDaemons is described in Driver.
func (g *Genetlink) SyncDaemons(ctx context.Context) ([]SyncDaemon, error) {
	answers, err := g.socket.dump(ctx, request{op: OpSyncDaemons, command: commandGetDaemon})
	if err != nil {
		return nil, err
	}
	daemons := make([]SyncDaemon, 0, len(answers))
	for _, answer := range answers {
		content, err := only(answer, attrDaemon)
		if err != nil {
			return nil, err
		}
		d, err := decodeDaemon(content)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
	}
	slices.SortFunc(daemons, func(a, b SyncDaemon) int { return cmp.Compare(a.Role, b.Role) })
	return daemons, nil
}

// StartSync is described in Driver.
func (g *Genetlink) StartSync(ctx context.Context, d SyncDaemon) error {
	r := request{op: OpStartSync, object: d.Role.String() + " on " + d.Interface, problem: d.problem(), command: commandNewDaemon}
	return g.socket.do(ctx, r.nested(attrDaemon, func(e *netlink.AttributeEncoder) { encodeDaemon(e, d) }))
}

// stopLimit is how long StopSync waits for an answer. The kernel is done before it
// answers, and of a daemon that was stopped before it first ran it does not: that is
// EINTR to it, which netlink sends nobody (kernel: kernel/kthread.c, kthread_stop;
// net/netfilter/ipvs/ip_vs_sync.c, stop_sync_thread; net/netlink/af_netlink.c,
// netlink_rcv_skb).
const stopLimit = 500 * time.Millisecond

// StopSync is described in Driver.
func (g *Genetlink) StopSync(ctx context.Context, role SyncRole) error {
	r := request{op: OpStopSync, object: role.String(), command: commandDeleteDaemon}
	waiting, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	err := g.socket.do(waiting, r.nested(attrDaemon, func(e *netlink.AttributeEncoder) {
		e.Uint32(daemonRole, uint32(role))
	}))
	if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	daemons, listErr := g.SyncDaemons(ctx)
	if listErr == nil && !slices.ContainsFunc(daemons, func(d SyncDaemon) bool { return d.Role == role }) {
		return nil
	}
	return errors.Join(err, listErr)
}
