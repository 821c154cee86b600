package ipvs

import (
	"context"
	"errors"
	"slices"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
)

// The sizes of the headers before a message of a sync daemon.
const (
	header4 = 20 + 8 // IPv4 and UDP
	header6 = 40 + 8
)

// The bounds that the kernel sets (kernel: net/netfilter/ipvs/ip_vs_sync.c,
// start_sync_thread).
const (
	masterMTU       = 1500 // a master's messages fit in it whatever the interface's is
	minBackupLength = 1024
)

func syncRole(role director.SyncRole) kernel.SyncRole {
	if role == director.SyncMaster {
		return kernel.Master
	}
	return kernel.Backup
}

func kernelDaemon(s director.SyncDaemon) kernel.SyncDaemon {
	return kernel.SyncDaemon{
		Role: syncRole(s.Role), Interface: s.Interface, ID: s.ID, MaxLength: s.MaxLength, Group: s.Group, Port: s.Port, TTL: s.TTL,
	}
}

// foundDaemon returns the daemon as it was asked for, if the kernel has what it
// makes of that; else as the kernel has it, with no length where that is the one it
// takes by itself.
func (d *Dataplane) foundDaemon(k kernel.SyncDaemon) director.SyncDaemon {
	role := director.SyncRole(k.Role.String())
	if asked, ok := d.memory.sync[role]; ok && d.asStarted(asked) == k {
		return asked
	}
	s := runningDaemon(k)
	unasked := s
	unasked.MaxLength = 0
	if d.asStarted(unasked) == k {
		return unasked
	}
	return s
}

// runningDaemon returns the daemon as the kernel has it.
func runningDaemon(k kernel.SyncDaemon) director.SyncDaemon {
	return director.SyncDaemon{
		Role: director.SyncRole(k.Role.String()), Interface: k.Interface, ID: k.ID, MaxLength: k.MaxLength, Group: k.Group, Port: k.Port, TTL: k.TTL,
	}
}

// asStarted returns what the kernel makes of the daemon (kernel: ip_vs_sync.c,
// start_sync_thread).
func (d *Dataplane) asStarted(s director.SyncDaemon) kernel.SyncDaemon {
	k := kernelDaemon(s.Normalize())
	header, mtu, least := uint32(header4), uint32(masterMTU), uint32(1)
	if k.Group.Is6() {
		header = header6
	}
	if k.Role == kernel.Backup {
		least = minBackupLength
		if link, err := d.links.LinkByName(k.Interface); err == nil {
			mtu = min(max(uint32(link.Attrs().MTU), masterMTU), 65535)
		}
	}
	length := mtu - header
	if k.MaxLength != 0 {
		length = min(max(uint32(k.MaxLength), least), 65535-header)
	}
	k.MaxLength = uint16(length)
	return k
}

func (a *application) startSync(ctx context.Context, op director.StartSync) error {
	running, err := a.driver.SyncDaemons(ctx)
	if err != nil {
		return err
	}
	want := a.asStarted(op.Daemon)
	for _, k := range running {
		switch {
		case k.Role != want.Role:
		case k == want:
			a.memory.sync[op.Daemon.Role] = op.Daemon
			return nil
		default:
			return explain(kernel.ErrDaemonExists)
		}
	}
	if err := a.driver.StartSync(ctx, kernelDaemon(op.Daemon)); err != nil {
		return explainSync(err, op.Daemon)
	}
	a.memory.sync[op.Daemon.Role] = op.Daemon
	return nil
}

// stopSync stops the daemon, unless one that is the same to the kernel is to be
// started next: after a start of ours it is not known how the length came about.
func (a *application) stopSync(ctx context.Context, op director.StopSync) error {
	running, err := a.driver.SyncDaemons(ctx)
	if err != nil {
		return err
	}
	same := func(next director.Operation) bool {
		start, ok := next.(director.StartSync)
		return ok && start.Daemon.Role == op.Role && slices.Contains(running, a.asStarted(start.Daemon))
	}
	if slices.ContainsFunc(a.rest, same) {
		return nil
	}
	err = a.driver.StopSync(ctx, syncRole(op.Role))
	if err != nil && !errors.Is(err, kernel.ErrNoDaemon) {
		return explain(err)
	}
	delete(a.memory.sync, op.Role)
	return nil
}
