package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// rewrite replaces a file's text as a whole: a crash leaves the one or the other.
// Who may read the file stays as it is, for one of them is the daemon: owner,
// group, mode and extended attributes, which ACLs are. Of a link the target is
// written. What could not be kept is refused, and nothing is written.
func rewrite(name string, text []byte) error {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	old, err := os.Open(name)
	if err != nil {
		return err
	}
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return errors.New("not a regular file: print it and write it where it belongs")
	case owner.Nlink > 1:
		return fmt.Errorf("the file has %d names (hard links), and the others would keep the old text: print it and write it there", owner.Nlink)
	}
	// Nobody else reads it until it is what it replaces.
	pending, err := renameio.NewPendingFile(name, renameio.WithTempDir(filepath.Dir(name)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = pending.Cleanup() }()
	if err := pending.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("keep owner %d and group %d: %w", owner.Uid, owner.Gid, reason(err))
	}
	if err := copyAttributes(pending.File, old); err != nil {
		return err
	}
	const special = fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if err := pending.Chmod(info.Mode() & (fs.ModePerm | special)); err != nil {
		return fmt.Errorf("keep mode %v: %w", info.Mode(), reason(err))
	}
	if _, err := pending.Write(text); err != nil {
		return err
	}
	return pending.CloseAtomicallyReplace()
}

// reason takes the name of the pending file out of the error: nobody knows it.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// maxAttributes is how many bytes the names of a file's attributes can have, and
// how many a value (kernel: include/uapi/linux/limits.h, XATTR_LIST_MAX,
// XATTR_SIZE_MAX).
const maxAttributes = 64 << 10

// copyAttributes gives a file the extended attributes of another.
func copyAttributes(to, from *os.File) error {
	names := make([]byte, maxAttributes)
	n, err := unix.Flistxattr(int(from.Fd()), names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, maxAttributes)
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("keep the extended attribute %s: %w", name, err)
		}
	}
	return nil
}
