package kernel

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNamespace is the network namespace of the calling thread.
const threadNamespace = "/proc/thread-self/ns/net"

// namespace is the network namespace that a driver was opened in. A daemon's
// threads are all in one, where nothing is to be done; setns(2) wants
// CAP_SYS_ADMIN, which a daemon may have given up.
type namespace struct {
	file *os.File
	stat unix.Stat_t
}

// currentNamespace returns the calling thread's. The caller has locked it.
func currentNamespace() (*namespace, error) {
	n := &namespace{}
	var err error
	if n.file, err = os.Open(threadNamespace); err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	if err := unix.Fstat(int(n.file.Fd()), &n.stat); err != nil {
		n.file.Close()
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	return n, nil
}

// do runs f on a thread that is in the namespace: this one as a rule.
func (n *namespace) do(f func() error) error {
	runtime.LockOSThread()
	var here unix.Stat_t
	if err := unix.Stat(threadNamespace, &here); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("find the thread's network namespace: %w", err)
	}
	if here.Dev == n.stat.Dev && here.Ino == n.stat.Ino {
		defer runtime.UnlockOSThread()
		return f()
	}
	runtime.UnlockOSThread()

	result := make(chan error, 1)
	go func() { result <- n.doElsewhere(f) }()
	return <-result
}

// doElsewhere is a goroutine's, so that a thread that cannot go back ends with
// it.
func (n *namespace) doElsewhere(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(threadNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("find the thread's network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace of IPVS: %w", err)
	}
	err = f()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread() // else the thread is never used again
	}
	return err
}

func (n *namespace) close() error { return n.file.Close() }
