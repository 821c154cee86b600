package script

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// account is a user that scripts run as.
type account struct {
	uid, gid uint32
	groups   []uint32
}

// lookUser finds a user by name or number.
func lookUser(name string) (account, error) {
	found, err := user.Lookup(name)
	if unknown := user.UnknownUserError(""); errors.As(err, &unknown) {
		if byID, idErr := user.LookupId(name); idErr == nil {
			found, err = byID, nil
		}
	}
	if err != nil {
		return account{}, fmt.Errorf("run scripts as %s: %w", name, err)
	}
	groups, err := found.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("run scripts as %s: %w", name, err)
	}
	numbers := make([]uint32, 0, len(groups)+2)
	for _, text := range append([]string{found.Uid, found.Gid}, groups...) {
		number, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("run scripts as %s: id %q is no number", name, text)
		}
		numbers = append(numbers, uint32(number))
	}
	return account{uid: numbers[0], gid: numbers[1], groups: numbers[2:]}, nil
}

// credential returns what the process changes to; nil if it is that user already, who
// may have no right to change groups.
func (a account) credential() *syscall.Credential {
	if os.Geteuid() == int(a.uid) && a.uid != 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// maxLinks is how many symbolic links a path may go through, as the kernel's
// (include/linux/namei.h, MAXSYMLINKS).
const maxLinks = 40

// trustedProgram returns the program that a path leads to, after every folder, link and
// file on the way was found to be root's or the user's and not for others to write: who
// could change one of them could run what they like as the user.
//
// A folder with the sticky bit may be for all to write, as there no one can replace what
// is another's.
func trustedProgram(name string, uid uint32) (string, error) {
	links := 0
	at := "/"
	if err := trusted(name, at, uid); err != nil {
		return "", err
	}
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(at, part) // ".." too: at has no links in it.
		if err := trusted(name, next, uid); err != nil {
			return "", err
		}
		target, err := os.Readlink(next)
		if err != nil {
			at = next // No link.
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("run %s: more than %d symbolic links", name, maxLinks)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	info, err := os.Stat(at)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("run %s: %s is no regular file", name, at)
	}
	return at, nil
}

// trusted says why a step on the way to a program cannot be trusted.
func trusted(name, step string, uid uint32) error {
	info, err := os.Lstat(step)
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("run %s: the owner of %s is not known", name, step)
	}
	if stat.Uid != 0 && stat.Uid != uid {
		return fmt.Errorf("run %s: %s belongs to user %d, who could change it: want root or user %d", name, step, stat.Uid, uid)
	}
	mode := info.Mode()
	if mode&os.ModeSymlink != 0 || mode.IsDir() && mode&os.ModeSticky != 0 {
		return nil // A link's mode is not looked at (symlink(7)).
	}
	switch {
	case mode.Perm()&0o002 != 0:
		return fmt.Errorf("run %s: anyone may write %s (mode %04o)", name, step, mode.Perm())
	case mode.Perm()&0o020 != 0 && stat.Gid != 0:
		return fmt.Errorf("run %s: group %d may write %s (mode %04o)", name, stat.Gid, step, mode.Perm())
	}
	return nil
}
