package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Name is the program's, and the filter's: it is Shunt's own.
const Name = "shunt_probe"

// How the filter is known on an interface: others may have filters of the same priority.
// The first one has the packets first, so that none accepts for good what is awaited: it
// has the first priority that others leave to it, as those of one priority are all of one
// kind and protocol.
const (
	filterHandle  = 0x5348
	firstPriority = 1
	lastPriority  = 256
)

// filter is the program on an interface's ingress by traffic control.
type filter struct {
	links  *netlink.Handle
	filter *netlink.BpfFilter
	id     ebpf.ProgramID
	// discipline is what was added for the filter; nil: it was there.
	discipline *netlink.Clsact
}

// addFilter adds the filter, and replaces one of a process before.
func addFilter(links *netlink.Handle, program *ebpf.Program, index int) (_ *filter, err error) {
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	f := &filter{links: links, filter: newFilter(index)}
	f.id, _ = info.ID()
	f.filter.Fd, f.filter.DirectAction = program.FD(), true
	discipline := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	switch err := links.QdiscAdd(discipline); {
	case err == nil:
		f.discipline = discipline
	case !errors.Is(err, unix.EEXIST): // else it may be an ingress discipline, which has such filters too
		return nil, supported(fmt.Errorf("add a clsact queueing discipline: %w", err))
	}
	if err := f.put(); err != nil {
		return nil, errors.Join(supported(fmt.Errorf("add a filter: %w", err)), f.removeDiscipline())
	}
	return f, nil
}

// put puts the filter in the place of one of a process before, else in the first place.
func (f *filter) put() error {
	before, err := find(f.links, f.filter.LinkIndex)
	if err != nil {
		return err
	}
	if before != nil {
		f.filter.Priority = before.Priority
		return f.links.FilterReplace(f.filter)
	}
	for f.filter.Priority = firstPriority; ; f.filter.Priority++ {
		err := f.links.FilterReplace(f.filter)
		if !errors.Is(err, unix.EINVAL) || f.filter.Priority == lastPriority {
			return err // kernel: net/sched/cls_api.c, tcf_chain_tp_find, has EINVAL for another kind or protocol
		}
	}
}

func newFilter(index int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle, Priority: firstPriority, Protocol: unix.ETH_P_ALL,
		},
		Fd: -1, Name: Name,
	}
}

// supported says so of an error that a kernel has which lacks the discipline or the filter.
func supported(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w (modules sch_ingress and cls_bpf)", err, ebpf.ErrNotSupported)
	}
	return err
}

// Close takes the filter off the interface, and what was added for it if nobody else uses
// that by now. It is no error if either is gone, or the filter is another process's.
func (f *filter) Close() error {
	ours, err := f.find()
	if ours != nil {
		err = errors.Join(err, f.links.FilterDel(ours))
	}
	return errors.Join(err, f.removeDiscipline())
}

// Holds implements Attached.
func (f *filter) Holds() bool {
	ours, err := f.find()
	return ours != nil && err == nil
}

// find returns the filter as it is on the interface, nil if it is not, or is of another
// process.
func (f *filter) find() (*netlink.BpfFilter, error) {
	there, err := find(f.links, f.filter.LinkIndex)
	if there == nil || ebpf.ProgramID(there.Id) != f.id {
		return nil, err
	}
	return there, nil
}

// removeDiscipline removes the discipline that was added, unless somebody else has
// filters in it, of packets in or out.
func (f *filter) removeDiscipline() error {
	if f.discipline == nil {
		return nil
	}
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: f.discipline.LinkIndex}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		others, err := f.links.FilterList(link, parent)
		if err != nil || len(others) > 0 {
			return ifThere(err)
		}
	}
	return ifThere(f.links.QdiscDel(f.discipline))
}

// Sweep removes what a process that was killed has left on an interface; nothing is left
// since Linux 6.6.
func Sweep(links *netlink.Handle, index int) error {
	left, err := find(links, index)
	if left == nil || err != nil {
		return err
	}
	if err := ifThere(links.FilterDel(left)); err != nil {
		return fmt.Errorf("remove the filter %s of interface %d, which a process before has left: %w", Name, index, err)
	}
	return nil
}

// find returns the filter that is on an interface, nil if none is.
func find(links *netlink.Handle, index int) (*netlink.BpfFilter, error) {
	all, err := links.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, netlink.HANDLE_MIN_INGRESS)
	if err = ifThere(err); err != nil {
		return nil, fmt.Errorf("list the filters of interface %d: %w", index, err)
	}
	for _, other := range all {
		if b, ok := other.(*netlink.BpfFilter); ok && b.Name == Name && b.Handle == filterHandle {
			b.Fd = -1
			return b, nil
		}
	}
	return nil, nil
}

// ifThere passes over what a kernel answers of an interface, discipline or filter that it
// does not have.
func ifThere(err error) error {
	for _, gone := range []error{unix.ENODEV, unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}
