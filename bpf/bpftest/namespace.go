package bpftest

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namespace is a thread that runs functions in a network namespace of its own,
// which has the two ends of one veth. Test runs send nothing, so that it does
// not matter that they are connected.
type namespace struct {
	outside, inside uint32 // indices of the interfaces
	work            chan func()
	done            chan struct{}
}

// newNamespace starts the thread; it ends with the test.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{work: make(chan func()), done: make(chan struct{})} // unbuffered: do waits
	started := make(chan error)
	go n.serve(started)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(n.work)
		<-n.done
	})
	return n
}

func (n *namespace) serve(started chan<- error) {
	defer close(n.done)
	runtime.LockOSThread()
	// The thread goes back where it came from, and only then to other goroutines.
	origin, err := netns.Get()
	if err != nil {
		started <- fmt.Errorf("open the network namespace: %w", err)
		return
	}
	defer origin.Close()
	own, err := netns.New()
	if err != nil {
		started <- fmt.Errorf("make a network namespace: %w", err)
		return
	}
	defer own.Close()
	started <- n.addInterfaces()
	for f := range n.work {
		f()
	}
	if err := netns.Set(origin); err != nil {
		return // stays locked: the runtime ends a thread whose goroutine ends so
	}
	runtime.UnlockOSThread()
}

func (n *namespace) addInterfaces() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "outside", DirectorOutside[:]
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr = "inside", DirectorInside[:]
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	for name, index := range map[string]*uint32{"outside": &n.outside, "inside": &n.inside} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find veth's end %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set veth's end %s up: %w", name, err)
		}
		*index = uint32(link.Attrs().Index)
	}
	return nil
}

// do runs f in the namespace and waits for it.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.work <- func() {
		defer close(done)
		f()
	}
	<-done
}
