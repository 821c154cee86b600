package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Serve is what the process of StartHelper does: it runs what its parent orders
// until the parent ends or closes it, and ends what still runs. It takes no other user's
// word for a program (trustedProgram), and becomes root, or one of root's group, only if
// it may: whoever takes the parent over cannot get that by it.
func Serve(mayBeRoot bool) error {
	const act = "run commands for the director"
	socket, err := unixConn(helperFile)
	if err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	defer socket.Close()
	if _, err := socket.Write([]byte{0}); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	buffer, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		n, rightsN, _, _, err := socket.ReadMsgUnix(buffer, rights)
		switch {
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
			continue // the order's socket is closed by that
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", act, err)
		}
		conn, err := passed(rights[:rightsN])
		if err != nil {
			continue // there were no files left for it: whoever ordered sees it closed
		}
		work.Go(func() {
			defer conn.Close()
			serveOrder(ctx, conn, mayBeRoot)
		})
	}
}

// passed returns the socket of a command that came with a message.
func passed(rights []byte) (*net.UnixConn, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages: want 1", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		return nil, fmt.Errorf("%d descriptors: want 1", len(fds))
	}
	unix.CloseOnExec(fds[0])
	return unixConn(fds[0])
}

// serveOrder runs one command and answers; it returns when nothing of it is left.
func serveOrder(ctx context.Context, conn *net.UnixConn, mayBeRoot bool) {
	var o order
	decoder := json.NewDecoder(io.LimitReader(conn, maxMessage))
	if err := decoder.Decode(&o); err != nil || len(o.Command) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		var one [1]byte
		_, _ = conn.Read(one[:]) // nothing follows: it was shut
		cancel()
	}()
	c := Command{Args: o.Command, User: o.User}
	var a answer
	var err error
	if who, lookErr := lookUser(o.User); lookErr == nil && who.isRoots() && !mayBeRoot {
		err = fmt.Errorf("run %s as %s: no command was root's, or of root's group, when the daemon began: restart it", o.Command[0], o.User)
	} else {
		a.Output, a.Status, err = c.execute(ctx)
	}
	if a.Left = c.left != nil; err != nil {
		a.Error, a.Ended = err.Error(), ctx.Err() != nil && !a.Left
		_ = errors.As(err, &a.Errno) // 0 without one
	}
	_ = json.NewEncoder(conn).Encode(a) // a parent that is gone needs no answer
	if a.Left {
		<-c.left
	}
}

// isRoots reports whether the user is root, or has root's group: who may write what
// root's group may can become root on many hosts.
func (a account) isRoots() bool {
	return a.uid == 0 || a.gid == 0 || slices.Contains(a.groups, 0)
}

// IsRoot reports whether commands of the user are root's: they run only where that was
// said when the helper began. One that is not found is not.
func IsRoot(user string) bool {
	who, err := lookUser(user)
	return err == nil && who.isRoots()
}
