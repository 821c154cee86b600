package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oneOf returns a reader of one of the words.
func oneOf[T ~string](words ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		if slices.Contains(words, T(s)) {
			return T(s), nil
		}
		names := make([]string, len(words))
		for i, word := range words {
			names[i] = string(word)
		}
		return "", fmt.Errorf("unknown word %q: want %s%s", s, orList(names), didYouMean(s, names))
	}
}

// orList writes "a, b or c".
func orList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func nonEmpty(s string) (string, error) {
	if s == "" {
		return "", errors.New("the value is empty")
	}
	return s, nil
}

func size32(least, most uint32) func(string) (uint32, error) {
	read := sizeBetween(uint64(least), uint64(most))
	return func(s string) (uint32, error) {
		n, err := read(s)
		return uint32(n), err
	}
}

func parseConnections(s string) (uint64, error) {
	return sizeBetween(minConnections, maxConnections)(s)
}

func parseHistory(s string) (int, error) {
	n, err := sizeBetween(minHistory, maxHistory)(s)
	return int(n), err
}

// parsePercent reads 0% to 100%. The sign is required: 0.5 and 50 would be
// mistaken for each other.
func parsePercent(s string) (int, error) {
	digits, found := strings.CutSuffix(s, "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !found || err != nil || n > 100 {
		return 0, fmt.Errorf("%q is not a share: want 0%% to 100%%", s)
	}
	return int(n), nil
}

func parseReconcile(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && (d < minReconcile || d > maxReconcile) {
		err = fmt.Errorf("%s is out of range: want %s to %s", s, minReconcile, maxReconcile)
	}
	return d, err
}

func parseSocket(s string) (string, error) {
	if len(s) > maxSocketPath {
		return "", fmt.Errorf("the path has %d bytes: a socket's has at most %d", len(s), maxSocketPath)
	}
	return parsePath(s)
}

func parsePath(s string) (string, error) {
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf("%q is not an absolute path", s)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("%q has a NUL byte", s)
	}
	return filepath.Clean(s), nil
}

// parseGroup reads the name or the number of a group; whether there is one is
// for the host to say.
func parseGroup(s string) (string, error) {
	if s == "" || len(s) > 32 || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == ':' || r == '/' || r == ',' || r == 0x7f
	}) {
		return "", fmt.Errorf("%q is not the name of a group", s)
	}
	return s, nil
}

// parseTCPListen reads host:port, where the host is an IP address or, for all
// addresses, empty.
func parseTCPListen(s string) (string, error) {
	if port, all := strings.CutPrefix(s, ":"); all {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("%q is not a port: want 1 to 65535", port)
		}
		return s, nil
	}
	addr, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is not an address and a port: want 192.0.2.1:9443, [2001:db8::1]:9443 or :9443 (names are not looked up)", s)
	case addr.Port() == 0:
		return "", errors.New("port 0 is reserved")
	case addr.Addr().Is4In6():
		return "", fmt.Errorf("%s is an IPv4 address in IPv6 form: write %s", addr.Addr(), netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
	case addr.Addr().IsMulticast():
		return "", fmt.Errorf("%s is multicast: want an address of this host", addr.Addr())
	}
	return addr.String(), nil
}
