package ipvs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another daemon manages IPVS in this network namespace.
var ErrInUse = errors.New("another shuntd manages the kernel's IPVS in this network namespace")

// claimName is the abstract name of the socket that says so. Such names are each
// network namespace's own, as IPVS is (man 7 network_namespaces), and are gone with
// whoever had them.
const claimName = "@shunt/ipvs"

// claimed is a socket that nobody is answered on: who holds it is all it says.
type claimed struct{ fd int }

// claim makes the calling thread's network namespace this process's to manage: two
// daemons would undo one another's work for ever. The error is ErrInUse where it is
// somebody else's already. A name that is taken by a user who may not manage IPVS is
// no claim, and keeps nobody from his work: held is then nil.
func claim() (held *claimed, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("claim IPVS: make a socket: %w", err)
	}
	defer func() {
		if held == nil {
			_ = unix.Close(fd)
		}
	}()
	switch err := unix.Bind(fd, &unix.SockaddrUnix{Name: claimName}); {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, rival()
	case err != nil:
		return nil, fmt.Errorf("claim IPVS: name a socket: %w", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil { // so that others learn whose it is
		return nil, fmt.Errorf("claim IPVS: %w", err)
	}
	return &claimed{fd}, nil
}

// rival says who has the claim; nil for one who may not have it.
func rival() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("see who has claimed IPVS: make a socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: claimName}); err != nil {
		return ErrInUse // it is about to listen, or too many have asked: nobody takes them off
	}
	who, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil:
		return fmt.Errorf("see who has claimed IPVS: %w", err)
	case who.Uid != 0 && int(who.Uid) != os.Geteuid():
		return nil
	case who.Pid == 0: // in a namespace of processes that we do not see
		return ErrInUse
	default:
		return fmt.Errorf("%w: process %d", ErrInUse, who.Pid)
	}
}

// release gives the claim up.
func (c *claimed) release() error {
	if c == nil {
		return nil
	}
	return unix.Close(c.fd)
}
