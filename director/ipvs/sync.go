package ipvs

import (
	"context"
	"errors"

	"github.com/shunt-lb/shunt/director"
	"github.com/shunt-lb/shunt/director/ipvs/kernel"
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

// runningDaemon returns the daemon as the kernel has it.
func runningDaemon(k kernel.SyncDaemon) director.SyncDaemon {
	return director.SyncDaemon{
		Role: director.SyncRole(k.Role.String()), Interface: k.Interface, ID: k.ID, MaxLength: k.MaxLength, Group: k.Group, Port: k.Port, TTL: k.TTL,
	}
}

func (a *application) startSync(ctx context.Context, op director.StartSync) error {
	running, err := a.driver.SyncDaemons(ctx)
	if err != nil {
		return err
	}
	for _, k := range running {
		switch was := runningDaemon(k); {
		case was.Role != op.Daemon.Role:
		case was.As(op.Daemon.Normalize()):
			return nil
		default:
			return explain(kernel.ErrDaemonExists)
		}
	}
	if err := a.driver.StartSync(ctx, kernelDaemon(op.Daemon)); err != nil {
		return explainSync(err, op.Daemon)
	}
	return nil
}

// stopSync stops the daemon; one that does not run is stopped.
func (a *application) stopSync(ctx context.Context, op director.StopSync) error {
	err := a.driver.StopSync(ctx, syncRole(op.Role))
	if err != nil && !errors.Is(err, kernel.ErrNoDaemon) {
		return explain(err)
	}
	return nil
}
