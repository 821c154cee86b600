package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSocket is where the daemon listens unless told otherwise.
const DefaultSocket = "/run/shunt/shuntd.sock"

// ErrInUse says that another daemon answers on the socket.
var ErrInUse = errors.New("another shuntd is running")

// maxSocketPath is the longest path a Unix socket can have
// (kernel: include/uapi/linux/un.h, UNIX_PATH_MAX less the final zero).
const maxSocketPath = 107

// ListenOptions say who may open the control socket besides its owner.
type ListenOptions struct {
	// Group is the name or number of a group whose members may: as operators.
	// Empty: nobody.
	Group string
}

// Listen opens the control socket, readable and writable by its owner, and by
// the group if there is one. A missing folder is made, with mode 0700 or, for
// the group, 0710; an existing one must let the group through and must not let
// others replace the socket. A lock file beside the socket keeps a second
// daemon away even while the first is too busy to answer; a socket left by a
// dead daemon is removed. Closing the listener removes the socket.
func Listen(path string, opts ListenOptions) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: the path is %d bytes long, a socket's can have %d", path, len(path), maxSocketPath)
	}
	group, err := opts.group()
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := prepareFolder(filepath.Dir(path), group); err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := listenLocked(path, group)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &socket{UnixListener: l, path: path, lock: lock, grouped: group != noGroup}, nil
}

// noGroup is the number that changes nothing (chown(2)).
const noGroup = -1

func (o ListenOptions) group() (int, error) {
	if o.Group == "" {
		return noGroup, nil
	}
	found, err := user.LookupGroup(o.Group)
	if err != nil {
		if found, err = user.LookupGroupId(o.Group); err != nil {
			return noGroup, fmt.Errorf("there is no group %q", o.Group)
		}
	}
	return strconv.Atoi(found.Gid)
}

// socket is a listener that takes its file and its lock away with it.
type socket struct {
	*net.UnixListener
	path    string
	lock    *os.File
	grouped bool // members of a group may open it
	once    sync.Once
}

// Close removes the socket's file while the lock still makes it ours.
func (s *socket) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		_ = os.Remove(s.path)
		err = s.UnixListener.Close()
		_ = s.lock.Close()
	})
	return err
}

func prepareFolder(folder string, group int) error {
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(folder, group); err != nil {
			return fmt.Errorf("make the socket's folder: %w", err)
		}
		info, err = os.Stat(folder)
	}
	if err != nil {
		return fmt.Errorf("look at the socket's folder: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("socket folder %s has mode %#o: others could replace the socket; chmod 0700 it",
			folder, info.Mode().Perm())
	}
	if group == noGroup || info.Mode().Perm()&0o001 != 0 {
		return nil
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && (int(owner.Gid) != group || info.Mode().Perm()&0o010 == 0) {
		return fmt.Errorf("socket folder %s has mode %#o and group %d: group %d could not reach the socket; chgrp %d %s && chmod 0710 %s",
			folder, info.Mode().Perm(), owner.Gid, group, group, folder, folder)
	}
	return nil
}

func makeFolder(folder string, group int) error {
	if err := os.MkdirAll(folder, 0o700); err != nil || group == noGroup {
		return err
	}
	if err := os.Chown(folder, -1, group); err != nil {
		return err
	}
	return os.Chmod(folder, 0o710)
}

func lockFile(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the socket's lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return lock, nil
}

func listenLocked(path string, group int) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The umask is the process's: other goroutines' files are at worst more
	// private for this instant. Without it the socket would be open to others
	// between bind and chmod.
	old := unix.Umask(0o077)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // Close does, once
	if err := admit(path, group); err != nil {
		_ = l.Close()
		_ = os.Remove(path)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// admit lets the owner, and the group if there is one, open the socket.
func admit(path string, group int) error {
	if group == noGroup {
		return os.Chmod(path, 0o600)
	}
	if err := os.Chown(path, -1, group); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// removeStale removes a socket that nobody answers on, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: a file that is not a socket is there; remove it or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("listen on %s: %w", path, ErrInUse)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("see whether %s is in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}
