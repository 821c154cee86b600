package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// helperFile is the descriptor that the helper process finds its socket at.
const helperFile = 3

// ErrNoHelper is that no command can be run any more.
var ErrNoHelper = errors.New("the process that runs commands is gone: restart the director")

// Helper is a process that runs commands as their users: it alone needs the rights
// to become others, which its parent can give up. Each command has a socket of its own, and
// ends with it, so that none outlives the parent. Safe for concurrent use.
type Helper struct {
	gone  chan struct{} // closed when the process has ended
	ended error         // how; once it is gone

	mu     sync.Mutex
	socket *net.UnixConn // nil: closed
}

// order is what the helper is to run, and answer what came of it: one of each goes over
// a command's socket, as JSON. An order's socket that is shut ends the command; the
// helper closes it when nothing of the command is left.
type order struct {
	Command []string
	User    string
}

type answer struct {
	Output string
	Status int
	Error  string        // "": it ran
	Errno  syscall.Errno // that Error comes of; 0: none
	Ended  bool          // Error: the order's socket was shut
	Left   bool          // it does not end
}

// maxMessage bounds an order and an answer, bytes: words and output are bounded.
const maxMessage = 1 << 20

// StartHelper starts the helper: a command, not started yet, whose process does nothing
// but Serve. Close ends it.
func StartHelper(cmd *exec.Cmd) (*Helper, error) {
	const act = "start the process that runs commands"
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "commands")
	socket, err := unixConn(pair[0])
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", act, err), theirs.Close())
	}
	cmd.ExtraFiles = []*os.File{theirs} // the first is helperFile
	err = cmd.Start()
	_ = theirs.Close() // The helper's copy is what counts: with it the socket ends.
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", act, err), socket.Close())
	}
	// It says so when it is ready, and has given up what it does not need.
	_ = socket.SetReadDeadline(time.Now().Add(startTimeout))
	if _, err := io.ReadFull(socket, make([]byte, 1)); err != nil {
		_ = cmd.Process.Kill() // it may have ended
		return nil, errors.Join(fmt.Errorf("%s: it does not begin: %w", act, err), socket.Close(), cmd.Wait())
	}
	r := &Helper{gone: make(chan struct{}), socket: socket}
	go func() {
		r.ended = cmd.Wait()
		close(r.gone)
	}()
	return r, nil
}

// Err returns ErrNoHelper once the process has ended.
func (r *Helper) Err() error {
	select {
	case <-r.gone:
		return ErrNoHelper
	default:
		return nil
	}
}

// startTimeout is how long a helper may take to begin, on a host with much else to do.
const startTimeout = 10 * time.Second

// unixConn makes a connection of a socket, which it takes.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "commands")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// Close ends the helper and the commands that it runs, and waits for it.
func (r *Helper) Close() error {
	r.mu.Lock()
	socket := r.socket
	r.socket = nil
	r.mu.Unlock()
	if socket == nil {
		return nil
	}
	err := socket.Close()
	<-r.gone
	if err = errors.Join(err, r.ended); err != nil {
		return fmt.Errorf("end the process that runs commands: %w", err)
	}
	return nil
}

// run has the helper run the command until ctx ends; as Command.execute.
func (r *Helper) run(ctx context.Context, c *Command) (string, int, error) {
	text, err := json.Marshal(order{c.Args, c.User})
	if err != nil {
		return "", 0, fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	conn, err := r.open()
	if err != nil {
		return "", 0, fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	// Ended, it answers soon, or says that it cannot end.
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Now().Add(patience + 2*farewell))
		_ = conn.CloseWrite()
	})
	defer stop()
	var got answer
	if _, err = conn.Write(text); err == nil {
		err = json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&got)
	}
	switch {
	case err != nil && ctx.Err() != nil, got.Ended && ctx.Err() != nil:
		err = fmt.Errorf("run %s: %w", c.Args[0], ctx.Err())
	case err != nil:
		err = fmt.Errorf("run %s: %w", c.Args[0], ErrNoHelper)
	case got.Errno != 0:
		err = told{got.Error, got.Errno}
	case got.Error != "":
		err = errors.New(got.Error)
	}
	if !got.Left {
		_ = conn.Close()
		return got.Output, got.Status, err
	}
	left := make(chan struct{})
	c.left = left
	stop()
	go func() {
		defer close(left)
		defer conn.Close()
		_ = conn.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, conn) // until the helper closes it
	}()
	return got.Output, got.Status, err
}

// told is an error that the helper told of, whose text has the errno's already.
type told struct {
	text  string
	errno syscall.Errno
}

func (e told) Error() string { return e.text }
func (e told) Unwrap() error { return e.errno }

// open gives the helper a socket of a command's.
func (r *Helper) open() (*net.UnixConn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn, err := unixConn(pair[0])
	defer unix.Close(pair[1])
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.socket == nil {
		err = ErrNoHelper
	} else if _, _, sent := r.socket.WriteMsgUnix([]byte{0}, unix.UnixRights(pair[1]), nil); sent != nil {
		err = fmt.Errorf("%w (%v)", ErrNoHelper, sent) // its errno says nothing of the command
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
