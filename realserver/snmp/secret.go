package snmp

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// maxSecret bounds a community or a passphrase, bytes; leastPassphrase is the least
// length of a passphrase (RFC 3414 §11.2).
const (
	maxSecret       = 255
	leastPassphrase = 8
)

// readSecret returns the one line of a file that is root's or our own, and not for others
// to read or write. No error shows anything of it.
func readSecret(name string) (string, error) {
	// A named pipe must not hold us up.
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("read the secret in %s: %w", name, bare(err))
	}
	defer func() { _ = file.Close() }()
	if err := guarded(file); err != nil {
		return "", fmt.Errorf("read the secret in %s: %w", name, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSecret+3)) // with an end of the line, and one too many
	if err != nil {
		return "", fmt.Errorf("read the secret in %s: %w", name, bare(err))
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case line == "":
		return "", fmt.Errorf("read the secret in %s: the file is empty", name)
	case len(line) > maxSecret:
		return "", fmt.Errorf("read the secret in %s: it is longer than %d bytes", name, maxSecret)
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("read the secret in %s: it is more than one line, or has control characters", name)
	}
	return line, nil
}

// guarded says why a file is no place for a secret.
func guarded(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return bare(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return fmt.Errorf("it is no regular file")
	case !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("the file belongs to somebody else: want root or user %d", os.Geteuid())
	case mode.Perm()&0o007 != 0:
		return fmt.Errorf("anyone may use the file (mode %04o): want 0640 or 0600", mode.Perm())
	case mode.Perm()&0o020 != 0 && stat.Gid != 0:
		return fmt.Errorf("group %d may write the file (mode %04o): want 0640 or 0600", stat.Gid, mode.Perm())
	}
	return nil
}
