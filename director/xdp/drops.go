package xdp

import (
	"context"
	"fmt"

	"github.com/shunt-lb/shunt/bpf"
	"github.com/shunt-lb/shunt/director"
)

var _ director.DropCounter = (*Dataplane)(nil)

// Drops reads what was dropped or answered, by reason, service and interface.
func (d *Dataplane) Drops(ctx context.Context) ([]director.Drop, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	rows, err := d.plane.Drops()
	if err != nil {
		return nil, err
	}
	names := interfaceNames{d: d, known: map[uint32]string{}}
	drops := make([]director.Drop, len(rows))
	for i, row := range rows {
		info := bpf.Events[row.Event]
		drops[i] = director.Drop{
			Reason: info.Name, Number: uint8(row.Event), Kind: director.PacketKind(info.Kind), Interface: names.of(row.Interface),
			Packets: row.Packets, Bytes: row.Bytes,
		}
		if svc := d.model.services[row.Service]; svc != nil {
			drops[i].Service, drops[i].Removed = svc.key, svc.removed
		}
	}
	return drops, nil
}

// interfaceNames finds interfaces' names.
type interfaceNames struct {
	d     *Dataplane
	known map[uint32]string
}

// of returns the name of the interface with the index; of one that is gone, its number.
func (n *interfaceNames) of(index uint32) string {
	if name, ok := n.known[index]; ok {
		return name
	}
	name := fmt.Sprintf("#%d", index)
	if link, err := n.d.links.LinkByIndex(int(index)); err == nil {
		name = link.Attrs().Name
	}
	n.known[index] = name
	return name
}
