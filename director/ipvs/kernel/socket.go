package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// listings is how often a list is read that the kernel says has changed while it
// was read.
const listings = 8

// request is a command of the family, and what it is in words.
type request struct {
	op      Op
	object  string
	problem string // not empty: the kernel is not asked
	command uint8
	encode  func(*netlink.AttributeEncoder) // may be nil
}

// nested returns the request with one more attribute, of attributes.
func (r request) nested(attribute uint16, encode func(*netlink.AttributeEncoder)) request {
	before := r.encode
	r.encode = func(e *netlink.AttributeEncoder) {
		if before != nil {
			before(e)
		}
		e.Nested(attribute, func(e *netlink.AttributeEncoder) error {
			encode(e)
			return nil
		})
	}
	return r
}

// ofService returns the request with the service's identity.
func (r request) ofService(id ServiceID) request {
	return r.nested(attrService, func(e *netlink.AttributeEncoder) { encodeID(e, id) })
}

func (r request) refused(errno syscall.Errno) error {
	return &Error{Op: r.op, Object: r.object, Errno: errno}
}

// socket is a connection to the kernel's family, made anew where it is in doubt:
// after a call that was given up, answers may still come.
type socket struct {
	dial func() (*genetlink.Conn, error)
	// turn has room for one: who has put something in may use what is below.
	turn       chan struct{}
	connection *genetlink.Conn // nil: to be dialled
	family     uint16
	closed     bool

	namespace *namespace // nil in tests
	closeOnce sync.Once
	closeErr  error
}

func openSocket() (*socket, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	s := newSocket(func() (connection *genetlink.Conn, err error) {
		err = n.do(func() error {
			// The kernel makes the parts of a list as large as the reader's buffer,
			// 32 KiB at most.
			connection, err = genetlink.Dial(&netlink.Config{MessageBufferSize: 64 << 10})
			return err
		})
		return connection, err
	})
	s.namespace = n
	return s, nil
}

func newSocket(dial func() (*genetlink.Conn, error)) *socket {
	return &socket{dial: dial, turn: make(chan struct{}, 1)}
}

// check makes the connection.
func (s *socket) check(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	return s.connect(request{op: OpOpen})
}

// do runs a command that is answered by yes or no.
func (s *socket) do(ctx context.Context, r request) error {
	_, err := s.call(ctx, r, netlink.Request|netlink.Acknowledge)
	return err
}

// get runs a command that has one answer and returns its attributes.
func (s *socket) get(ctx context.Context, r request) ([]byte, error) {
	answers, err := s.call(ctx, r, netlink.Request)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, fmt.Errorf("%s: the kernel answered %d times", act(r.op, r.object), len(answers))
	}
	return answers[0], nil
}

// dump runs a command that is answered by a list.
func (s *socket) dump(ctx context.Context, r request) ([][]byte, error) {
	return s.call(ctx, r, netlink.Request|netlink.Dump)
}

func (s *socket) call(ctx context.Context, r request, flags netlink.HeaderFlags) ([][]byte, error) {
	if r.problem != "" {
		return nil, &Error{Op: r.op, Object: r.object, Errno: syscall.EINVAL, Reason: r.problem}
	}
	message, err := r.message()
	if err != nil {
		return nil, err
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	for range listings {
		if err := s.connect(r); err != nil {
			return nil, err
		}
		answers, interrupted, err := s.execute(ctx, message, flags)
		switch {
		case err == nil && !interrupted:
			return answers, nil
		case err == nil:
			continue
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w", act(r.op, r.object), ctx.Err())
		}
		errno, isAnswer := answerOf(err)
		if !isAnswer {
			s.drop()
			return nil, fmt.Errorf("%s: %w", act(r.op, r.object), err)
		}
		if errno == syscall.ENOENT { // of what was asked, or of the family itself
			if changed, err := s.familyChanged(r); err != nil {
				return nil, err
			} else if changed {
				continue
			}
		}
		return nil, r.refused(errno)
	}
	return nil, fmt.Errorf("%s: the list changed each time it was read", act(r.op, r.object))
}

func (r request) message() (genetlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	if r.encode != nil {
		r.encode(e)
	}
	data, err := e.Encode()
	if err != nil {
		return genetlink.Message{}, fmt.Errorf("%s: %w", act(r.op, r.object), err)
	}
	return genetlink.Message{Header: genetlink.Header{Command: r.command, Version: familyVersion}, Data: data}, nil
}

// execute sends the message and returns the attributes of each answer. If the
// context ends it stops waiting and gives the connection up; the kernel does what
// it has begun.
func (s *socket) execute(ctx context.Context, m genetlink.Message, flags netlink.HeaderFlags) (answers [][]byte, interrupted bool, err error) {
	connection := s.connection
	stop := context.AfterFunc(ctx, func() {
		_ = connection.SetDeadline(time.Unix(1, 0)) // wakes the reader
	})
	defer func() {
		if !stop() {
			s.drop()
		}
	}()
	sent, err := connection.Send(m, s.family, flags)
	if err != nil {
		return nil, false, err
	}
	messages, headers, err := connection.Receive()
	if err != nil {
		return nil, false, err
	}
	if err := netlink.Validate(sent, headers); err != nil {
		return nil, false, err
	}
	for i, message := range messages {
		if headers[i].Header.Flags&netlink.DumpInterrupted != 0 {
			interrupted = true
		}
		answers = append(answers, message.Data)
	}
	return answers, interrupted, nil
}

// answerOf returns the number in a kernel's answer, in contrast to an error of the
// socket.
func answerOf(err error) (syscall.Errno, bool) {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return 0, false
	}
	errno, ok := op.Err.(syscall.Errno)
	return errno, ok
}

// take waits for the caller's turn.
func (s *socket) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed {
		s.release()
		return ErrClosed
	}
	return nil
}

func (s *socket) release() { <-s.turn }

// connect dials and finds the family, if that is not done.
func (s *socket) connect(r request) error {
	if s.connection != nil {
		return nil
	}
	connection, err := s.dial()
	if err != nil {
		return fmt.Errorf("%s: open generic netlink: %w", r.op, err)
	}
	family, err := connection.GetFamily(familyName)
	if err != nil {
		connection.Close()
		return r.familyError(err)
	}
	s.connection, s.family = connection, family.ID
	return nil
}

func (r request) familyError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return r.refused(syscall.ENOPROTOOPT)
	}
	return fmt.Errorf("%s: find the netlink family %s: %w", r.op, familyName, err)
}

// familyChanged reports whether IPVS was unloaded and loaded since, which gives
// the family another number.
func (s *socket) familyChanged(r request) (bool, error) {
	family, err := s.connection.GetFamily(familyName)
	if err != nil {
		s.drop()
		return false, r.familyError(err)
	}
	changed := family.ID != s.family
	s.family = family.ID
	return changed, nil
}

func (s *socket) drop() {
	if s.connection != nil {
		s.connection.Close()
		s.connection = nil
	}
}

// close waits for the call that runs.
func (s *socket) close() error {
	s.closeOnce.Do(func() {
		s.turn <- struct{}{}
		defer s.release()
		s.closed = true
		s.drop()
		if s.namespace != nil {
			s.closeErr = s.namespace.close()
		}
	})
	return s.closeErr
}
