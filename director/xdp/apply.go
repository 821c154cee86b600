package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/conntrack"
	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/realserver"
)

// Apply runs the operations in order.
func (d *Dataplane) Apply(ctx context.Context, ops []director.Operation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range ops {
		err := d.check(ctx)
		if err == nil {
			err = d.apply(op)
		}
		if err != nil {
			return &director.OperationError{Operation: op, Err: err}
		}
	}
	d.awaitResolution(ctx)
	return nil
}

// check says why no operation can run: the caller gave up, or we are closed.
func (d *Dataplane) check(ctx context.Context) error {
	if d.closed {
		return errors.New("the data plane is closed")
	}
	return ctx.Err()
}

func (d *Dataplane) apply(op director.Operation) error {
	switch op := op.(type) {
	case director.AddService:
		return d.addService(op.Service)
	case director.EditService:
		return d.editService(op.Service)
	case director.RemoveService:
		return d.removeService(op.Key)
	case director.AddServer:
		return d.addServer(op.Key, op.Server)
	case director.EditServer:
		return d.editServer(op.Key, op.Server)
	case director.RemoveServer:
		return d.removeServer(op.Key, op.Address)
	case director.SetTimeouts:
		return d.plane.ChangeSettings(func(s *bpf.KernelSettings) {
			putTimeouts(s, d.plane.Clock, readTimeouts(s).Merge(op.Timeouts))
		})
	default:
		return fmt.Errorf("operation %T: %w", op, director.ErrUnsupported)
	}
}

// checkService refuses what the fast path does not have.
func checkService(s director.Service) error {
	if schedulerNumber(s.Scheduler) == 0 {
		return fmt.Errorf("scheduler %s: %w by the XDP data plane", s.Scheduler, director.ErrUnsupported)
	}
	if p := s.Key.Protocol; p != conntrack.TCP && p != conntrack.UDP {
		return fmt.Errorf("protocol %s: %w by the XDP data plane", p, director.ErrUnsupported)
	}
	return nil
}

func checkServer(s realserver.Server) error {
	switch s.Method {
	case realserver.NAT, realserver.DR, realserver.Local:
		return nil
	default:
		return fmt.Errorf("method %s: %w by the XDP data plane", s.Method, director.ErrUnsupported)
	}
}

func (d *Dataplane) addService(s director.Service) error {
	if err := checkService(s); err != nil {
		return err
	}
	if svc := d.model.byKey[s.Key]; svc != nil {
		if !svc.removed {
			return d.editService(s)
		}
		return d.reviveService(svc, s)
	}
	index, err := freeIndex(d.model.services, d.plane.Limits.Services, "services")
	if err != nil {
		return err
	}
	if s.VIP == director.VIPManaged {
		if err := d.vips.add(s.Key.Address.Addr()); err != nil {
			return err
		}
	}
	svc := &service{index: index, key: s.Key, name: s.Name, scheduler: s.Scheduler, flags: s.Flags, vip: s.VIP}
	d.model.services[index], d.model.byKey[s.Key] = svc, svc
	if err := d.publishService(svc); err != nil {
		delete(d.model.services, index)
		delete(d.model.byKey, s.Key)
		return errors.Join(err, d.dropVIP(svc))
	}
	return nil
}

// publishService makes a service of the model known to packets.
func (d *Dataplane) publishService(svc *service) error {
	if err := d.writeFilter(); err != nil {
		return err
	}
	k := bpf.KernelService{
		Key: serviceKey(svc.key), Scheduler: schedulerNumber(svc.scheduler), Flags: serviceFlags(svc),
		Life: uint8(bpf.KernelLifecycleLIFE_LIVE),
	}
	copy(k.Name[:], svc.name)
	if err := d.plane.RetiredTraffic.Put(svc.index, &bpf.KernelTraffic{}); err != nil {
		return fmt.Errorf("clear counters: %w", err)
	}
	if err := d.plane.Services.Put(svc.index, &k); err != nil {
		return fmt.Errorf("write service: %w", err)
	}
	// Point of no return.
	if err := d.plane.ServiceIndex.Put(serviceKey(svc.key), svc.index); err != nil {
		return errors.Join(fmt.Errorf("index service: %w", err), d.plane.Services.Put(svc.index, &bpf.KernelService{}))
	}
	return nil
}

// reviveService takes a removed service back whose connections have not all
// ended; its servers come back as they are added.
func (d *Dataplane) reviveService(svc *service, s director.Service) error {
	if s.VIP == director.VIPManaged {
		if err := d.vips.add(s.Key.Address.Addr()); err != nil {
			return err
		}
	}
	svc.name, svc.scheduler, svc.flags, svc.vip = s.Name, s.Scheduler, s.Flags, s.VIP
	svc.removed = false
	if err := d.rename(svc); err != nil {
		return err
	}
	for _, member := range d.model.servers {
		if member.service == svc {
			if err := d.writeServer(member); err != nil {
				return err
			}
		}
	}
	if err := d.reschedule(svc, nil, true); err != nil {
		return err
	}
	if err := d.plane.ServiceIndex.Put(serviceKey(svc.key), svc.index); err != nil {
		return fmt.Errorf("index service: %w", err)
	}
	return nil
}

// rename writes the service's name, which packets do not look at.
func (d *Dataplane) rename(svc *service) error {
	var k bpf.KernelService
	if err := d.plane.Services.Lookup(svc.index, &k); err != nil {
		return fmt.Errorf("read service: %w", err)
	}
	var name [len(k.Name)]uint8
	copy(name[:], svc.name)
	if name == k.Name {
		return nil
	}
	k.Name = name
	if err := d.plane.Services.Put(svc.index, &k); err != nil {
		return fmt.Errorf("write service: %w", err)
	}
	return nil
}

func (d *Dataplane) editService(s director.Service) error {
	if err := checkService(s); err != nil {
		return err
	}
	svc, err := d.model.live(s.Key)
	if err != nil {
		return err
	}
	if s.VIP == director.VIPManaged && svc.vip != director.VIPManaged {
		if err := d.vips.add(s.Key.Address.Addr()); err != nil {
			return err
		}
	}
	old := *svc
	svc.name, svc.scheduler, svc.flags, svc.vip = s.Name, s.Scheduler, s.Flags, s.VIP
	if err := d.rename(svc); err != nil {
		*svc = old
		return err
	}
	if err := d.reschedule(svc, svc.list, svc.scheduler != old.scheduler); err != nil {
		*svc = old
		return err
	}
	if old.vip == director.VIPManaged && svc.vip != director.VIPManaged {
		return d.dropVIP(&old)
	}
	return nil
}

func (d *Dataplane) removeService(key director.ServiceKey) error {
	svc, err := d.model.live(key)
	if err != nil {
		return nil // what is not there is removed
	}
	if err := d.plane.ServiceIndex.Delete(serviceKey(key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("unindex service: %w", err)
	}
	svc.removed = true
	// The service first: what dies in between is adopted as removed.
	if err := d.reschedule(svc, nil, true); err != nil {
		svc.removed = false
		return errors.Join(err, d.plane.ServiceIndex.Put(serviceKey(key), svc.index))
	}
	for _, s := range d.model.servers {
		if s.service != svc {
			continue
		}
		d.retire(s)
		if err := d.writeServer(s); err != nil {
			return err
		}
	}
	return d.dropVIP(svc)
}

// retire begins the server's end: its index is free when a sweep that began
// later found no key of it.
func (d *Dataplane) retire(s *server) {
	s.removed = true
	s.removedBefore = d.sweeps.started + 1
	d.unwatch(s)
}

func (d *Dataplane) addServer(key director.ServiceKey, v realserver.Server) error {
	if err := checkServer(v); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		return err
	}
	s := d.model.find(svc, v.Address)
	if s != nil && !s.removed {
		return d.editServer(key, v)
	}
	isNew := s == nil
	if isNew {
		index, err := freeIndex(d.model.servers, d.plane.Limits.Servers, "servers")
		if err != nil {
			return err
		}
		s = &server{index: index, service: svc, address: v.Address}
	}
	s.method, s.weight, s.lastWeight, s.removed = v.Method, v.Weight, v.Weight, false
	d.model.servers[s.index] = s
	d.watch(s)
	if err := d.publishServer(s, isNew); err != nil {
		d.retire(s)
		if isNew {
			d.hops.release(s.hop)
			delete(d.model.servers, s.index)
			return errors.Join(err, d.plane.Servers.Put(s.index, &bpf.KernelServer{}))
		}
		return errors.Join(err, d.writeServer(s))
	}
	return nil
}

// publishServer writes the server and puts it at the head of the schedule. One
// that was removed lately comes back with its counters and connections, as in
// the kernel (ip_vs_ctl.c, ip_vs_trash_get_dest).
func (d *Dataplane) publishServer(s *server, isNew bool) error {
	if err := d.writeFilter(); err != nil {
		return err
	}
	if isNew {
		if err := d.clearCounters(s.index); err != nil {
			return err
		}
		if err := d.plane.Servers.Put(s.index, newKernelServer(s)); err != nil {
			return fmt.Errorf("write server: %w", err)
		}
	} else if err := d.writeServer(s); err != nil {
		return err
	}
	return d.reschedule(s.service, append([]*server{s}, s.service.list...), false)
}

func newKernelServer(s *server) *bpf.KernelServer {
	virtual, real := s.service.key.Address, s.address
	return &bpf.KernelServer{
		Hop: s.hop, Service: s.service.index, Life: uint8(bpf.KernelLifecycleLIFE_LIVE), Method: uint8(s.method),
		Port: bpf.Port(real.Port()), VirtualPort: bpf.Port(virtual.Port()),
		DeltaL4: bpf.Delta(wire(virtual), wire(real)),
		DeltaIp: bpf.Delta(virtual.Addr().AsSlice(), real.Addr().AsSlice()),
		Weight:  s.weight, LastWeight: s.lastWeight, OfferedWeight: s.offered(),
		Address: bpf.Address(real.Addr()), VirtualAddress: bpf.Address(virtual.Addr()),
	}
}

// wire returns the address and port as on the wire.
func wire(a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
}

func (d *Dataplane) clearCounters(index uint32) error {
	perCPU := make([]bpf.KernelTraffic, ebpf.MustPossibleCPU())
	if err := d.plane.ServerTraffic.Put(index, perCPU); err != nil {
		return fmt.Errorf("clear counters: %w", err)
	}
	if err := d.plane.Loads.Put(index, &bpf.KernelServerLoad{}); err != nil {
		return fmt.Errorf("clear counts: %w", err)
	}
	return nil
}

func (d *Dataplane) editServer(key director.ServiceKey, v realserver.Server) error {
	if err := checkServer(v); err != nil {
		return err
	}
	svc, err := d.model.live(key)
	if err != nil {
		return err
	}
	s := d.model.find(svc, v.Address)
	if s == nil || s.removed {
		return director.ErrNotFound
	}
	old := *s
	s.method, s.weight = v.Method, v.Weight
	if v.Weight != 0 {
		s.lastWeight = v.Weight
	}
	if s.method == realserver.Local {
		d.unwatch(s)
	} else {
		d.watch(s)
	}
	err = errors.Join(d.writeFilter(), d.writeServer(s))
	if err == nil {
		err = d.reschedule(svc, svc.list, false)
	}
	if err != nil {
		s.method, s.weight, s.lastWeight = old.method, old.weight, old.lastWeight
		return errors.Join(err, d.writeServer(s))
	}
	return nil
}

func (d *Dataplane) removeServer(key director.ServiceKey, addr netip.AddrPort) error {
	svc, err := d.model.live(key)
	if err != nil {
		return nil // what is not there is removed
	}
	s := d.model.find(svc, addr)
	if s == nil || s.removed {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(svc.list), func(m *server) bool { return m == s })
	if err := d.reschedule(svc, list, false); err != nil {
		return err
	}
	d.retire(s)
	return d.writeServer(s)
}

func (d *Dataplane) writeFilter() error { return d.plane.SetFilter(d.model.filter()) }

// dropVIP takes the service's address off the host if no other live service has
// it, be it one whose address somebody else manages.
func (d *Dataplane) dropVIP(svc *service) error {
	if svc.vip != director.VIPManaged || d.model.needsAddress(svc) {
		return nil
	}
	return d.vips.remove(svc.key.Address.Addr())
}
