package probe

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director/directortest"
)

// side is a network namespace with an interface that filters are put on.
type side struct {
	*testing.T
	in    *directortest.Namespace
	links *netlink.Handle
	on    *netlink.Device
}

func newSide(t *testing.T) *side {
	directortest.Privileged(t)
	here, err := directortest.NewNamespace("here")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	if err := here.AddVeth("eth0", here, "eth1", 0); err != nil {
		t.Fatal(err)
	}
	link, err := here.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return &side{T: t, in: here, links: here.Netlink(), on: &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: link.Attrs().Index}}}
}

func (s *side) program() *Program {
	s.Helper()
	p, err := Load()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { p.Close() })
	return p
}

func (s *side) add(p *Program) *filter {
	s.Helper()
	f, err := addFilter(s.links, p.objects.ShuntProbe, s.on.Index)
	if err != nil {
		s.Fatal(err)
	}
	return f
}

func (s *side) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// want wants these filters of packets in, by their names, and a discipline or none.
func (s *side) want(what, discipline string, names ...string) {
	s.Helper()
	filters, err := s.links.FilterList(s.on, netlink.HANDLE_MIN_INGRESS)
	s.must(err)
	var found []string
	for _, f := range filters {
		found = append(found, f.(*netlink.BpfFilter).Name)
	}
	if len(found) != len(names) || len(names) == 1 && found[0] != names[0] {
		s.Errorf("%s: filters %q, want %q", what, found, names)
	}
	all, err := s.links.QdiscList(s.on)
	s.must(err)
	kind := ""
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_INGRESS {
			kind = q.Type()
		}
	}
	if kind != discipline {
		s.Errorf("%s: discipline %q, want %q", what, kind, discipline)
	}
}

// What a process adds is gone when it closes it, and what one that was killed has left
// is replaced, or swept away.
func TestFilter(t *testing.T) {
	s := newSide(t)
	s.must(Sweep(s.links, s.on.Index))
	s.must(Sweep(s.links, 4711))

	f := s.add(s.program())
	s.want("added", "clsact", Name)
	s.must(f.Close())
	s.want("closed", "")
	s.must(f.Close())

	killed := s.add(s.program())
	next := s.add(s.program())
	s.want("of the next process", "clsact", Name)
	s.must(killed.Close())
	s.want("closed by the one before", "clsact", Name)
	s.must(next.Close())
	s.want("closed by the next", "clsact") // which it has found there

	s.add(s.program())
	s.must(Sweep(s.links, s.on.Index))
	s.want("swept", "clsact")
}

// What others have on the interface stays, and is none of ours.
func TestFilterAmongOthers(t *testing.T) {
	for _, there := range []netlink.Qdisc{
		nil, // another's filter is added when ours is there
		&netlink.Clsact{}, &netlink.Ingress{},
	} {
		s := newSide(t)
		kind := "clsact"
		if there != nil {
			kind = there.Type()
			*there.Attrs() = netlink.QdiscAttrs{LinkIndex: s.on.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}
			s.must(s.links.QdiscAdd(there))
		}
		f := s.add(s.program())
		other := newFilter(s.on.Index)
		other.Handle, other.Name, other.DirectAction, other.Fd = 1, "another", true, s.program().objects.ShuntProbe.FD()
		s.must(s.links.FilterAdd(other))
		s.want("both", kind, "another", Name)
		s.must(f.Close())
		s.want("ours closed", kind, "another")
		s.must(Sweep(s.links, s.on.Index))
		s.want("swept", kind, "another")
	}
}

// Filters of one priority are all of one kind and protocol: ours is in the first place that
// is left, and the next process's in the same.
func TestFilterBehindOtherKinds(t *testing.T) {
	s := newSide(t)
	s.must(s.links.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: s.on.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	for priority := range uint16(2) {
		other := newFilter(s.on.Index)
		other.Handle, other.Name, other.DirectAction, other.Fd = 1, "another", true, s.program().objects.ShuntProbe.FD()
		other.Priority, other.Protocol = priority+1, unix.ETH_P_IP
		s.must(s.links.FilterAdd(other))
	}
	s.add(s.program())
	s.want("both", "clsact", "another", "another", Name)
	s.must(s.links.FilterDel(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: s.on.Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_IP}, Fd: -1}))
	next := s.add(s.program())
	s.want("of the next process", "clsact", "another", Name)
	s.must(next.Close())
	s.want("closed", "clsact", "another")
}

// Others may take the program off, by a link or by a filter.
func TestAttachedHolds(t *testing.T) {
	s := newSide(t)
	wants := func(what string, a Attached, want bool) {
		t.Helper()
		if got := a.Holds(); got != want {
			t.Errorf("%s: holds: %v, want %v", what, got, want)
		}
	}
	f := s.add(s.program())
	wants("a filter", f, true)
	s.must(s.links.QdiscDel(f.discipline))
	wants("without the discipline", f, false)
	s.must(f.Close())
	f = s.add(s.program())
	next := s.add(s.program())
	wants("replaced", f, false)
	wants("the next", next, true)
	s.must(next.Close())

	var a Attached
	s.must(s.in.Do(func() (err error) {
		a, err = s.program().Attach(s.links, s.on.Index)
		return err
	}))
	wants("attached", a, true)
	s.must(s.links.LinkDel(s.on))
	wants("without the interface", a, false)
	s.must(a.Close())
}

// An interface that is not there is told by an errno that callers know.
func TestAttachToNothing(t *testing.T) {
	s := newSide(t)
	for what, attach := range map[string]func() error{
		"attach": func() error { _, err := s.program().Attach(s.links, 4711); return err },
		"filter": func() error { _, err := addFilter(s.links, s.program().objects.ShuntProbe, 4711); return err },
	} {
		if err := attach(); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: %v, want %v", what, err, unix.ENODEV)
		}
	}
}
