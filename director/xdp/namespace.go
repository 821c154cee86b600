package xdp

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is the network namespace that Open was called in: attaching works in
// the calling thread's, and later callers may be in another.
type namespace struct{ file *os.File }

const threadNamespace = "/proc/thread-self/ns/net"

func openNamespace() (namespace, error) {
	f, err := os.Open(threadNamespace)
	if err != nil {
		return namespace{}, fmt.Errorf("open the network namespace: %w", err)
	}
	return namespace{f}, nil
}

func (n namespace) close() {
	if n.file != nil {
		n.file.Close()
	}
}

// do runs the function in the namespace: on the calling thread if that is in it,
// which in a daemon all are, else on one of its own, which needs CAP_SYS_ADMIN.
func (n namespace) do(function func() error) error {
	runtime.LockOSThread()
	here, err := n.isHere()
	if err == nil && here {
		defer runtime.UnlockOSThread()
		return function()
	}
	runtime.UnlockOSThread()
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		result <- function()
	}()
	return <-result
}

// isHere says whether the calling thread is in the namespace.
func (n namespace) isHere() (bool, error) {
	var ours, threads unix.Stat_t
	err := errors.Join(unix.Fstat(int(n.file.Fd()), &ours), unix.Stat(threadNamespace, &threads))
	if err != nil {
		return false, fmt.Errorf("look at the network namespace: %w", err)
	}
	return ours.Dev == threads.Dev && ours.Ino == threads.Ino, nil
}
