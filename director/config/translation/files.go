package translation

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The limits of what is read and made, so that no text takes much memory.
const (
	MaxBytes    = 4 << 20 // of a file
	MaxFiles    = 1000    // of a translation
	MaxServices = 4096    // of a translation
	MaxServers  = 1 << 17 // of all services
)

// Files are where a text's includes are read from.
type Files interface {
	// ReadFile returns a file, or an error if it is larger than MaxBytes.
	ReadFile(name string) ([]byte, error)
	// Glob returns the names that match, sorted; none is no error.
	Glob(pattern string) ([]string, error)
}

// ErrNotRegular says that a folder, a pipe or a device cannot be read as a text.
var ErrNotRegular = errors.New("it is not a regular file")

// Host reads the files of this host: regular ones, since others might block for
// ever.
type Host struct{}

var _ Files = Host{}

// ReadFile reads a file.
func (Host) ReadFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: %w", name, ErrNotRegular)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		return nil, fmt.Errorf("read %s: it is larger than %d MiB", name, MaxBytes>>20)
	}
	return data, err
}

// Glob returns the names of files that match.
func (Host) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }
