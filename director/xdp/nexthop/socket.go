package nexthop

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errOverrun is the loss of events: everything must be read anew.
var errOverrun = errors.New("kernel dropped events: receive buffer full")

// groups are what may change a next hop. Links that go down take IPv4 routes
// with them without a message of their own (kernel: net/ipv4/fib_frontend.c).
var groups = [...]int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
}

// batch is how many messages are handled before the next look at the clock.
const batch = 256

// eventSocket receives route netlink events. Unlike the one in netlink's nl
// package it waits with a deadline, says when events were lost and goes on.
type eventSocket struct {
	file *os.File
	conn syscall.RawConn
	buf  [64 << 10]byte // the kernel's events are far smaller
}

// openEvents opens the socket in the namespace of the calling thread.
func openEvents(receiveBuffer int) (*eventSocket, error) {
	const kind = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_NETLINK, kind, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket for events: %w", err)
	}
	s := &eventSocket{file: os.NewFile(uintptr(fd), "route netlink events")}
	if err := s.subscribe(fd, receiveBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to netlink events: %w", err), s.close())
	}
	return s, nil
}

func (s *eventSocket) subscribe(fd, receiveBuffer int) (err error) {
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fmt.Errorf("set the receive buffer: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("join group %d: %w", group, err)
		}
	}
	return nil
}

// interrupt makes receive return until the next setDeadline.
func (s *eventSocket) interrupt() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) }

// setDeadline sets until when receive waits.
func (s *eventSocket) setDeadline(deadline time.Time) error { return s.file.SetReadDeadline(deadline) }

// receive returns messages that are there or waits for some. It returns none at
// the deadline, errOverrun after a loss and another error after close.
func (s *eventSocket) receive() ([]syscall.NetlinkMessage, error) {
	// Also when the deadline is past, what is there comes first.
	messages, err := s.poll()
	if err != nil || len(messages) > 0 {
		return messages, err
	}
	readErr := s.conn.Read(func(fd uintptr) bool {
		messages, err = s.take(fd)
		return err != nil || len(messages) > 0
	})
	if errors.Is(readErr, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	return messages, errors.Join(err, readErr)
}

// poll returns messages that are there.
func (s *eventSocket) poll() (messages []syscall.NetlinkMessage, err error) {
	if controlErr := s.conn.Control(func(fd uintptr) { messages, err = s.take(fd) }); controlErr != nil {
		return nil, controlErr
	}
	return messages, err
}

// take reads datagrams until there are none, a batch is full or events were
// lost.
func (s *eventSocket) take(fd uintptr) ([]syscall.NetlinkMessage, error) {
	var messages []syscall.NetlinkMessage
	for len(messages) < batch {
		n, _, flags, from, err := unix.Recvmsg(int(fd), s.buf[:], nil, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return messages, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS), err == nil && flags&unix.MSG_TRUNC != 0:
			return nil, errOverrun
		case err != nil:
			return nil, fmt.Errorf("receive netlink events: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not from the kernel
		}
		// The messages point into their bytes, which are used again.
		parsed, err := syscall.ParseNetlinkMessage(append([]byte(nil), s.buf[:n]...))
		if err != nil {
			return nil, errOverrun
		}
		messages = append(messages, parsed...)
	}
	return messages, nil
}

// drain throws away what is there: everything will be read anew.
func (s *eventSocket) drain() error {
	for {
		messages, err := s.poll()
		if err != nil && !errors.Is(err, errOverrun) {
			return err
		}
		if err == nil && len(messages) == 0 {
			return nil
		}
	}
}

func (s *eventSocket) close() error { return s.file.Close() }
