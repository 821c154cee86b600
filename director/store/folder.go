package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	newSuffix     = ".new"      // a file that is being made
	damagedSuffix = ".damaged-" // and the time: a file that was set aside

	// keepDamaged is how many files set aside are kept of each.
	keepDamaged = 3
)

// lockFolder makes the folder if it is missing and locks it until the file
// returned is closed. The lock is on the folder and not on a file in it, because
// files are replaced.
func lockFolder(path string) (*os.File, error) {
	if err := makeFolder(path); err != nil {
		return nil, fmt.Errorf("make folder %s: %w", path, err)
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("open %s: it is a symbolic link or no folder: give the path of the folder itself", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err == nil {
		err = private(path, info)
	}
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("folder %s: %w: stop the other shuntd, or use another folder", path, errInUse)
		}
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// makeFolder makes the folder and its parents, each durably.
func makeFolder(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := makeFolder(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// duplicate makes a durable copy of a file.
func duplicate(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := openPlain(from, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// replace gives a file that is whole and durable its name.
func replace(from, to string) error {
	// Point of no return.
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

// setAside renames a damaged file and returns its new name.
func setAside(path string) (string, error) {
	aside := path + damagedSuffix + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	old, err := filepath.Glob(path + damagedSuffix + "*")
	if err != nil {
		return "", err
	}
	slices.Sort(old)
	for len(old) > keepDamaged {
		if err := os.Remove(old[0]); err != nil {
			return "", err
		}
		old = old[1:]
	}
	return aside, nil
}
