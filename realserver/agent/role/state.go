package role

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// DefaultFile is where it is kept what was there before.
const DefaultFile = "/var/lib/shunt-agent/prepared.json"

// ErrBusy is of a file that another prepare or undo works with.
var ErrBusy = errors.New("another shunt-agent prepares or undoes at this moment")

// stateVersion is the form of the file.
const stateVersion = 1

// maxState is how large a file is read, bytes.
const maxState = 16 << 20

// state is the file: what was changed, in that order. All of it ends with the host's
// boot, or with the network namespace.
type state struct {
	Version   int      `json:"version"`
	Boot      string   `json:"boot"`
	Namespace string   `json:"namespace"`
	Changes   []Change `json:"changes"`
}

// here is the state of this boot and namespace in which nothing was changed.
func here() (state, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return state{}, fmt.Errorf("read the boot's id: %w", err)
	}
	namespace, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return state{}, fmt.Errorf("read the network namespace: %w", err)
	}
	return state{Version: stateVersion, Boot: strings.TrimSpace(string(boot)), Namespace: namespace}, nil
}

// file keeps a state. Not safe for concurrent use.
type file struct{ path string }

// lock takes the file for this process until the returned function is called.
func (f file) lock() (func(), error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", f.path, err)
	}
	lock, err := os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", f.path, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.path, ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", f.path, err)
	}
	return func() { _ = lock.Close() }, nil
}

// load returns what was changed since the boot; nothing where there is no file.
func (f file) load() (state, error) {
	now, err := here()
	if err != nil {
		return now, err
	}
	text, err := f.read()
	if errors.Is(err, fs.ErrNotExist) {
		return now, nil
	}
	if err != nil {
		return now, fmt.Errorf("read what was changed: %s: %w", f.path, err)
	}
	s, err := parseState(text)
	if err != nil {
		return now, fmt.Errorf("read what was changed: %s: %w; nothing was done: mend it, or remove it and what was prepared is taken for the host's own", f.path, err)
	}
	if s.Boot != now.Boot {
		return now, nil
	}
	if s.Namespace != now.Namespace {
		return now, fmt.Errorf("read what was changed: %s: it is of the network namespace %s, this is %s: give this one a --state of its own, or remove the file if that namespace is gone", f.path, s.Namespace, now.Namespace)
	}
	return s, nil
}

func (f file) read() ([]byte, error) {
	opened, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = opened.Close() }()
	text, err := io.ReadAll(io.LimitReader(opened, maxState+1))
	if err == nil && len(text) > maxState {
		err = fmt.Errorf("more than %d bytes", maxState)
	}
	return text, err
}

// parseState reads and judges a file's text.
func parseState(text []byte) (s state, err error) {
	var version struct{ Version int }
	if err := json.Unmarshal(text, &version); err != nil {
		return s, located(text, err)
	}
	if version.Version != stateVersion {
		return s, fmt.Errorf("version %d: this shunt-agent reads %d", version.Version, stateVersion)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, located(text, err)
	}
	if s.Boot == "" || s.Namespace == "" {
		return s, errors.New("it does not say of which boot and namespace it is")
	}
	for i, c := range s.Changes {
		if err := c.validate(); err != nil {
			return s, fmt.Errorf("changes[%d]: %w", i, err)
		}
	}
	return s, nil
}

// located says in which line an error is.
func located(text []byte, err error) error {
	offset := int64(-1)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = syntax.Offset
	} else if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = kind.Offset
	}
	if offset < 0 {
		return err
	}
	before := text[:min(int(offset), len(text))]
	return fmt.Errorf("line %d, column %d: %w", bytes.Count(before, []byte("\n"))+1, len(before)-bytes.LastIndexByte(before, '\n')-1, err)
}

// save writes the file at once, or removes it where nothing is left.
func (f file) save(s state) error {
	if len(s.Changes) == 0 {
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the record of what was changed: %w", err)
		}
		return nil
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = renameio.WriteFile(f.path, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write down what is changed: %w", err)
	}
	return nil
}

var (
	ourSysctl = regexp.MustCompile(`^net/ipv4/conf/([^/\s]{1,15})/(arp_ignore|arp_announce|rp_filter)$`)
	number    = regexp.MustCompile(`^-?[0-9]{1,10}$`)
)

// validate refuses what Prepare never writes: a damaged file must not have undo change
// something else.
func (c Change) validate() error {
	fail := func(what, value string) error { return fmt.Errorf("%s: %q is no %s", c.Kind, value, what) }
	values := []string{c.Before, c.After}
	switch c.Kind {
	case kindSysctl:
		if found := ourSysctl.FindStringSubmatch(c.Name); found == nil || found[1] == "." || found[1] == ".." {
			return fail("setting that is changed", c.Name)
		}
		for _, v := range values {
			if !number.MatchString(v) {
				return fail("number", v)
			}
		}
		return nil
	case kindAddress:
		if _, p, err := parseAddress(c.Name); err != nil || !p.IsSingleIP() {
			return fail("interface and address", c.Name)
		}
	case kindLocal, kindRoute:
		if _, err := parseRoute(c.Object); err != nil {
			return fail("route", c.Name)
		}
	case kindDecap:
		if !filepath.IsAbs(c.Name) {
			return fail("whole path", c.Name)
		}
		for _, v := range values {
			if _, err := parseDecapsulation(v); err != nil {
				return fmt.Errorf("%s: %w", c.Kind, err)
			}
		}
		return nil
	default:
		return fmt.Errorf("unknown kind %q", c.Kind)
	}
	for _, v := range values {
		if !slices.Contains([]string{"", present}, v) {
			return fail("value", v)
		}
	}
	return nil
}
