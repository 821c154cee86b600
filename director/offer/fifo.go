package offer

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shunt-lb/shunt/director"
)

// fifoLine is the line of a change, as keepalived's lvs_notify_fifo has it
// (keepalived.conf(5)): VS [192.0.2.1]:tcp:80 UP, or RS [10.0.0.1]:tcp:80
// [192.0.2.1]:tcp:80 DOWN.
func fifoLine(key director.ServiceKey, server netip.AddrPort, state string) string {
	end := func(addr netip.AddrPort) string {
		return fmt.Sprintf("[%s]:%s:%d", addr.Addr(), key.Protocol, addr.Port())
	}
	service := end(key.Address)
	if key.IsMark() {
		service = fmt.Sprintf("FWM %d", key.Mark)
	}
	if !server.IsValid() {
		return fmt.Sprintf("VS %s %s", service, state)
	}
	if key.IsMark() { // a mark has no protocol
		return fmt.Sprintf("RS [%s]:%d %s %s", server.Addr(), server.Port(), service, state)
	}
	return fmt.Sprintf("RS %s %s %s", end(server), service, state)
}

// fifos are the named pipes that are open. Safe for concurrent use.
type fifos struct {
	mu   sync.Mutex
	open map[string]fifo
}

// fifo is a pipe, open for reading too: what is written waits in it for its reader, as
// far as it has room.
type fifo struct {
	fd   int // not blocking
	stat unix.Stat_t
}

// write writes a line, in one piece (a line is shorter than PIPE_BUF). It never waits:
// without room the line is lost.
func (f *fifos) write(path, line string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	pipe, err := f.get(path)
	if err != nil {
		return err
	}
	if _, err := unix.Write(pipe.fd, []byte(line+"\n")); errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("write to the pipe %s: it is full, nobody reads it", path)
	} else if err != nil {
		return fmt.Errorf("write to the pipe %s: %w", path, err)
	}
	return nil
}

// get returns the pipe, which it makes if there is none, for its owner alone to read.
// One that was replaced is opened anew.
func (f *fifos) get(path string) (fifo, error) {
	var now unix.Stat_t
	err := unix.Lstat(path, &now)
	if pipe, ok := f.open[path]; ok {
		if err == nil && pipe.stat.Dev == now.Dev && pipe.stat.Ino == now.Ino {
			return pipe, nil
		}
		_ = unix.Close(pipe.fd)
		delete(f.open, path)
	}
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return fifo{}, fmt.Errorf("make the pipe %s: %w", path, err)
		}
	}
	pipe := fifo{}
	if pipe.fd, err = unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
		return fifo{}, fmt.Errorf("open the pipe %s: %w", path, err)
	}
	if err := unix.Fstat(pipe.fd, &pipe.stat); err != nil || pipe.stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		_ = unix.Close(pipe.fd)
		return fifo{}, errors.Join(fmt.Errorf("open %s: it is no named pipe", path), err)
	}
	f.open[path] = pipe
	return pipe, nil
}

func (f *fifos) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, pipe := range f.open {
		_ = unix.Close(pipe.fd)
		delete(f.open, path)
	}
}
