package directortest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name in the file system: when its
// sockets, processes and this process are gone, so is it, whatever happened in
// between. Safe for concurrent use.
type Namespace struct {
	// Name is for messages only.
	Name string

	file  *os.File
	route *netlink.Handle
	jobs  chan func() // run one after another on the namespace's own thread

	mu       sync.Mutex
	children map[*Cmd]struct{} // started and not yet waited for
	closed   bool
}

// NewNamespace makes a namespace with nothing but a loopback interface, which
// is up. The caller closes it.
func NewNamespace(name string) (*Namespace, error) {
	n := &Namespace{Name: name, jobs: make(chan func()), children: map[*Cmd]struct{}{}}
	ready := make(chan error)
	onOwnThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		ready <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	if err := n.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up network namespace %s: %w", name, err), n.Close())
	}
	return n, nil
}

// setUp opens the netlink socket and turns off what makes a lab slow or
// unpredictable: duplicate address detection and router solicitations.
func (n *Namespace) setUp() error {
	err := n.Do(func() (err error) {
		// Only NETLINK_ROUTE: without families, NewHandle fails where
		// xfrm_user is a module that is not loaded (Debian's cloud kernel).
		n.route, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return err
	}
	for _, kind := range []string{"all", "default"} {
		for _, knob := range []string{"accept_dad", "accept_ra", "router_solicitations", "disable_ipv6"} {
			if err := n.Sysctl("net/ipv6/conf/"+kind+"/"+knob, "0"); err != nil {
				return err
			}
		}
		if err := n.Sysctl("net/ipv4/conf/"+kind+"/rp_filter", "0"); err != nil {
			return err
		}
	}
	return n.up("lo")
}

// onOwnThread starts f on a thread that is never used for anything else: it
// ends with f, so that a change of namespace cannot leak into the program. The
// main thread cannot end and is what /proc/self shows, so it is passed over.
func onOwnThread(f func()) { go lockThread(f, make(chan struct{})) }

func lockThread(f func(), locked chan<- struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// While this goroutine holds the main thread, the next gets another.
		elsewhere := make(chan struct{})
		go lockThread(f, elsewhere)
		<-elsewhere
		runtime.UnlockOSThread()
		return
	}
	close(locked)
	f() // returning while locked ends the thread
}

// Do runs f inside the namespace on a thread of its own and returns its error.
// Sockets that f opens stay in the namespace. f must not call t.FailNow or
// t.Fatal, which is reported as an error; goroutines that f starts are outside
// the namespace.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	onOwnThread(func() {
		err := errors.New("the function did not return (t.Fatal inside Do?)")
		defer func() { result <- err }()
		if setErr := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); setErr != nil {
			err = fmt.Errorf("enter network namespace %s: %w", n.Name, setErr)
			return
		}
		err = f()
	})
	return <-result
}

// Netlink returns the route netlink socket of the namespace, valid until Close.
func (n *Namespace) Netlink() *netlink.Handle { return n.route }

// File returns the namespace's file, valid until Close. Its Fd can be given to
// setns(2); another process finds it as /proc/PID/fd/FD.
func (n *Namespace) File() *os.File { return n.file }

// Sysctl sets a kernel parameter of the namespace, named by its path below
// /proc/sys: "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error {
		// Interface names may hold dots, so the name stays a path.
		path := filepath.Join("/proc/sys", name)
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s to %q in %s: %w", name, value, n.Name, err)
		}
		return nil
	})
}

// ReadSysctl returns a kernel parameter of the namespace.
func (n *Namespace) ReadSysctl(name string) (string, error) {
	var value []byte
	err := n.Do(func() (err error) {
		value, err = os.ReadFile(filepath.Join("/proc/sys", name))
		return err
	})
	return strings.TrimSpace(string(value)), err
}

// Close kills the processes started in the namespace that still run, waits for
// them and lets go of the namespace. The kernel removes it with its links once
// the last socket in it is closed. Closing twice is harmless.
func (n *Namespace) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	children := make([]*Cmd, 0, len(n.children))
	for c := range n.children {
		children = append(children, c)
	}
	n.mu.Unlock()

	for _, c := range children {
		_ = c.Process.Kill() // it may have ended just now
		_ = c.Wait()         // a killed process always "fails"
	}
	close(n.jobs)
	if n.route != nil {
		n.route.Close()
	}
	return n.file.Close()
}
