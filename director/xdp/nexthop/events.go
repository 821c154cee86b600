package nexthop

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// handle takes events into account.
func (r *Resolver) handle(messages []syscall.NetlinkMessage) []change {
	if len(messages) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var changes []change
	for _, m := range messages {
		var err error
		switch m.Header.Type {
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			changes, err = r.handleNeighbour(changes, m)
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			changes, err = r.handleLink(changes, m)
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			r.stale = r.stale || !isClone(m.Data)
		default: // a rule, an address or a nexthop object
			r.stale = true
		}
		if err != nil {
			r.opts.Log.Warn("follow next hops: event passed over", "err", err)
		}
	}
	return changes
}

func (r *Resolver) handleNeighbour(changes []change, m syscall.NetlinkMessage) ([]change, error) {
	key, n, err := decodeNeighbour(m.Data)
	if err != nil || !r.isAttached(key.iface) {
		return changes, err
	}
	before := r.neighbours.get(key)
	if m.Header.Type == unix.RTM_DELNEIGH {
		r.neighbours.remove(key)
	} else {
		r.neighbours.set(key, n)
	}
	h := r.holds[key]
	if h == nil {
		return changes, nil
	}
	// Somebody removed it or took our flag off, or it is no longer permanent.
	if m.Header.Type == unix.RTM_DELNEIGH || before.managed && !n.managed || before.isStatic() && !n.isStatic() {
		r.keep(key, h)
	}
	return r.evaluateUsers(changes, h), nil
}

func (r *Resolver) handleLink(changes []change, m syscall.NetlinkMessage) ([]change, error) {
	index, l, err := decodeLink(m.Data)
	if err != nil || index == 0 {
		return changes, err
	}
	before, found := r.links[index]
	if m.Header.Type == unix.RTM_DELLINK {
		delete(r.links, index)
		r.neighbours.removeInterface(index)
	} else {
		r.links[index] = l
		if found && l == before {
			return changes, nil
		}
	}
	r.stale = true
	return r.evaluateAll(changes), nil
}

// resync reads links and neighbours anew and has all routes asked for.
func (r *Resolver) resync() ([]change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.events.drain(); err != nil {
		return nil, err
	}
	if err := r.readAll(); err != nil {
		return nil, err
	}
	r.stale, r.recheck = true, true
	return r.evaluateAll(nil), nil
}

// readAll reads links and neighbours. Events that are older than what is read
// may be handled after it; those that follow them make it right again.
func (r *Resolver) readAll() error {
	links := map[int]link{}
	err := r.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, sizeofIfinfomsg, func(b []byte) error {
		index, l, err := decodeLink(b)
		if index != 0 {
			links[index] = l
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read links: %w", err)
	}
	var neighbours neighbourTable
	err = r.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, sizeofNdmsg, func(b []byte) error {
		key, n, err := decodeNeighbour(b)
		if r.isAttached(key.iface) {
			neighbours.set(key, n.after(r.neighbours.get(key)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read neighbours: %w", err)
	}
	r.links, r.neighbours = links, neighbours
	return nil
}

// dump has the kernel list something and calls each with every entry. A list
// that changed while it was made is asked for again; after some tries it is
// taken as it is: what changed comes as an event too.
func (r *Resolver) dump(request, answer, headerSize int, each func([]byte) error) error {
	const tries = 5
	for try := 1; ; try++ {
		req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
		req.Sockets = r.dumps
		req.AddRawData(make([]byte, headerSize)) // of any kind
		entries, err := req.Execute(unix.NETLINK_ROUTE, uint16(answer))
		if errors.Is(err, nl.ErrDumpInterrupted) && try < tries {
			continue
		}
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
		for _, entry := range entries {
			if err := each(entry); err != nil {
				return err
			}
		}
		return nil
	}
}
