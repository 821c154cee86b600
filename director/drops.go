package director

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// DropCounter is a Dataplane that counts the packets that end in it by reason, service
// and interface.
type DropCounter interface {
	// Drops reads the counts that are not zero, since the service has its place in the
	// data plane or was set to zero. Those of services that are gone are there until
	// their last connection has ended.
	Drops(ctx context.Context) ([]Drop, error)
}

// Drop is how many packets were dropped, or answered, for one reason.
type Drop struct {
	Reason    string // the packet event's name
	Number    uint8  // the event's, see PacketEvent
	Kind      PacketKind
	Service   ServiceKey // zero if the packets were for none that is known
	Removed   bool       // the service is gone
	Interface string     // that the packets came by
	Packets   uint64
	Bytes     uint64 // of the frames
}

// Drops reads what was dropped by reason, service and interface, in this order: see
// DropCounter.
func (d *Director) Drops(ctx context.Context) ([]Drop, error) {
	c, ok := d.dp.(DropCounter)
	if !ok {
		return nil, d.unsupported("count drops by reason", "the kernel counts what it drops in its own statistics")
	}
	drops, err := c.Drops(ctx)
	slices.SortFunc(drops, func(a, b Drop) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Reason, b.Reason), a.Service.Compare(b.Service), cmp.Compare(a.Interface, b.Interface))
	})
	return drops, err
}

// unsupported is ErrUnsupported of what the data plane has not.
func (d *Director) unsupported(what, instead string) error {
	return fmt.Errorf("%s: %w by the data plane %s: %s", what, ErrUnsupported, d.features.Plane, instead)
}
